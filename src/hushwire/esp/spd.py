"""The policies of one direction, looked up by flow (RFC 4301 s4.4.1)."""

from bisect import insort

from hushwire.policy.selector import Flow, Selector
from hushwire.policy.spd import Policy
from hushwire.wire.address import IPAddress


class SPD:
    """Ordered by priority, as the kernel's; policies for one remote host, of which there are many, by its address."""

    __slots__ = ("_hosts", "_made", "_policies", "_wide")

    def __init__(self) -> None:
        self._policies: dict[Selector, Policy] = {}
        self._hosts: dict[IPAddress, list[Policy]] = {}
        self._wide: list[Policy] = []
        self._made: dict[tuple[int, IPAddress], dict[Selector, IPAddress]] = {}
        """By reqid and real address, the synthetic one of each policy."""

    def install(self, policy: Policy) -> None:
        """Add it, or update the one with its selector in place (DESIGN.md law 1)."""
        self.delete(policy.selector)
        self._policies[policy.selector] = policy
        insort(self._row(policy.selector), policy, key=_priority)
        if policy.real is not None:
            made = self._made.setdefault((policy.reqid, policy.real), {})
            made[policy.selector] = policy.selector.remote.network_address

    def delete(self, selector: Selector) -> None:
        """Remove the policy with exactly this selector; nothing happens if there is none."""
        policy = self._policies.pop(selector, None)
        if policy is not None:
            row = self._row(selector)
            row.remove(policy)
            if not row and row is not self._wide:
                del self._hosts[selector.remote.network_address]
            if policy.real is not None:
                made = self._made[policy.reqid, policy.real]
                del made[selector]
                if not made:
                    del self._made[policy.reqid, policy.real]

    def at(self, selector: Selector) -> Policy | None:
        """The policy with exactly this selector."""
        return self._policies.get(selector)

    def made_for(self, reqid: int, real: IPAddress) -> IPAddress | None:
        """The synthetic address that stands for a real one in the policies of this reqid."""
        return next(iter(self._made.get((reqid, real), {}).values()), None)

    def is_made(self, remote: IPAddress) -> bool:
        """Whether it is a synthetic address that a policy is for."""
        return any(policy.real is not None for policy in self._hosts.get(remote, ()))

    def find(self, flow: Flow) -> Policy | None:
        """The policy that decides about `flow`; of equal priority, the one installed first."""
        best: Policy | None = None
        for row in (self._hosts.get(flow.remote, ()), self._wide):
            for policy in row:
                if best is not None and policy.priority >= best.priority:
                    break
                if policy.selector.matches(flow):
                    best = policy
                    break
        return best

    def _row(self, selector: Selector) -> list[Policy]:
        if selector.remote.prefixlen == selector.remote.max_prefixlen:
            return self._hosts.setdefault(selector.remote.network_address, [])
        return self._wide


def _priority(policy: Policy) -> int:
    return policy.priority
