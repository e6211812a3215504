"""The guard: the parent's judgement of everything the node asks of SAD and SPD (DESIGN.md section 3).

The node parses what strangers send, so it may be theirs one day.  It may tighten freely, and loosen only where a
configured rule already permits clear.  What the guard lets through is within these bounds whatever the node says.
"""

from collections.abc import Collection

from hushwire.config import Config, Rule
from hushwire.crypto.suite import can_encrypt
from hushwire.events import DeletePolicy, DeleteSA, InstallPolicy, InstallSA
from hushwire.names.binding import why_not_a_peer
from hushwire.peer import REQID_BASE, group_rules
from hushwire.policy.assurance import Assurance
from hushwire.policy.sad import SA, Direction, Mode, SAName
from hushwire.policy.selector import Selector
from hushwire.policy.spd import Action, Policy
from hushwire.timers import Now
from hushwire.wire.address import IPAddress

Request = InstallSA | DeleteSA | InstallPolicy | DeletePolicy

MOST_PEERS = 1 << 16
"""Peers of one host: as many reqids are its own."""
LONGEST_LIFE = 25 * 3600
"""Seconds that an SA may be asked to live."""
PRIORITIES = range(100, 1001)
"""Those of the node's policies; above and below are the guard's own."""
RATE, BURST = 2000.0, 8000.0
"""Requests a second, and at once."""


class Forbidden(Exception):
    """The node asked for what no rule allows; one line says what."""


class Guard:
    """A reference monitor: judge() returns or raises Forbidden; done() tells it what came of a request."""

    def __init__(self, config: Config) -> None:
        self._groups = group_rules(config.rules)
        self._own: Collection[IPAddress] = ()
        self._sas: set[SAName] = set()
        self._policies: dict[tuple[Selector, Direction], Policy] = {}
        self._tokens = BURST
        self._filled = 0.0

    @property
    def sas(self) -> frozenset[SAName]:
        """The SAs that were installed and not deleted."""
        return frozenset(self._sas)

    def addresses(self, own: Collection[IPAddress]) -> None:
        """The host's own addresses, from the kernel."""
        self._own = frozenset(own)

    def adopt(self, policy: Policy) -> None:
        """A policy that an earlier run of ours left standing."""
        self._policies[policy.selector, policy.direction] = policy

    def judge(self, request: Request, now: Now) -> None:
        """Raise Forbidden unless the request is within bounds."""
        self._spend(now)
        match request:
            case InstallSA(_, sa):
                self._judge_sa(sa)
            case DeleteSA(name):
                if name not in self._sas:
                    raise Forbidden(f"SA {name.spi:08x} is not ours to delete")
            case InstallPolicy(_, policy):
                self._judge_policy(policy)
            case DeletePolicy(selector, direction):
                self._judge_deletion(selector, direction)

    def done(self, request: Request) -> None:
        """The plane did what was asked."""
        match request:
            case InstallSA(_, sa):
                self._sas.add(SAName(sa.spi, sa.destination))
            case DeleteSA(name):
                self._sas.discard(name)
            case InstallPolicy(_, policy):
                self._policies[policy.selector, policy.direction] = policy
            case DeletePolicy(selector, direction):
                self._policies.pop((selector, direction), None)

    def _spend(self, now: Now) -> None:
        self._tokens = min(BURST, self._tokens + (now.monotonic - self._filled) * RATE)
        self._filled = now.monotonic
        if self._tokens < 1:
            raise Forbidden("too many requests")
        self._tokens -= 1

    def _judge_sa(self, sa: SA) -> None:
        self._judge_reqid(sa.reqid)
        ours = sa.source if sa.direction is Direction.OUT else sa.destination
        theirs = sa.destination if sa.direction is Direction.OUT else sa.source
        if ours not in self._own:
            raise Forbidden(f"an SA of {ours}, which is no address of this host")
        self._judge_remote(theirs)
        if not 255 < sa.spi < 1 << 32:
            raise Forbidden(f"SPI {sa.spi:#x}")
        if not can_encrypt(sa.suite.encr, sa.suite.key_bits, sa.suite.integ):
            raise Forbidden(f"an SA with {sa.suite}")
        if not 0 < sa.lifetime.hard_seconds <= LONGEST_LIFE:
            raise Forbidden(f"an SA that lives {sa.lifetime.hard_seconds} s")
        if not sa.suite.esn and not 0 < sa.lifetime.hard_packets < 1 << 32:
            # RFC 4303 s3.3.3: a sequence number must not come round.
            raise Forbidden("an SA of 32-bit sequence numbers without a limit of packets")
        if not sa.replay_window:
            raise Forbidden("an SA without a replay window")
        if sa.direction is Direction.IN and SAName(sa.spi, sa.destination) in self._sas:
            # Its keys again would be its nonces again (DESIGN.md law 5).
            raise Forbidden(f"SA {sa.spi:08x} stands already")

    def _judge_policy(self, policy: Policy) -> None:
        if policy.priority not in PRIORITIES:
            raise Forbidden(f"a policy of priority {policy.priority}")
        if policy.action is Action.CLEAR:
            raise Forbidden(f"clear for {policy.selector}")
        if policy.action is Action.BLOCK:
            self._judge_scope(policy.selector, None)
            return
        rules = self._judge_reqid(policy.reqid)
        self._judge_scope(policy.selector, rules)
        if (policy.mode is Mode.TUNNEL) != (policy.tunnel is not None):
            raise Forbidden("a tunnel without end points, or end points without a tunnel")
        if policy.tunnel is not None and policy.tunnel[0] not in self._own:
            raise Forbidden(f"a tunnel from {policy.tunnel[0]}, which is no address of this host")

    def _judge_deletion(self, selector: Selector, direction: Direction) -> None:
        policy = self._policies.get((selector, direction))
        if policy is None:
            raise Forbidden(f"the policy for {selector} is not ours to delete")
        rules = self._rules_of(policy.reqid)
        if rules is None or any(rule.below is not Action.CLEAR for rule in rules):
            raise Forbidden(f"no rule permits clear for {selector}")

    def _judge_reqid(self, reqid: int) -> tuple[Rule, ...] | None:
        if not REQID_BASE < reqid <= REQID_BASE + MOST_PEERS:
            raise Forbidden(f"reqid {reqid:#x}, which is not ours")
        return self._rules_of(reqid)

    def _rules_of(self, reqid: int) -> tuple[Rule, ...] | None:
        """The rules of a configured peer; None for one that `hushwire connect` named."""
        number = reqid - REQID_BASE
        return self._groups[number - 1] if 0 < number <= len(self._groups) else None

    def _judge_scope(self, selector: Selector, rules: tuple[Rule, ...] | None) -> None:
        """Hosts, or the networks that a tunnel's rule names.  To break other traffic is an attack, too."""
        for rule in rules or ():
            if selector.remote in rule.remote_networks or selector.local in rule.local_networks:
                return
        if selector.remote.prefixlen != selector.remote.max_prefixlen:
            raise Forbidden(f"a policy for all of {selector.remote}")
        if selector.local.network_address not in self._own or selector.local.prefixlen != selector.local.max_prefixlen:
            raise Forbidden(f"a policy of {selector.local}, which is no address of this host")
        remote = selector.remote.network_address
        self._judge_remote(remote)
        for rule in rules or ():
            if rule.require is Assurance.TRUSTED and remote not in _places(rule):
                raise Forbidden(f"a policy for {remote}, where {rule.peer} is not")

    def _judge_remote(self, remote: IPAddress) -> None:
        reason = why_not_a_peer(remote, self._own)
        if reason is not None:
            raise Forbidden(f"{remote} is {reason}")


def _places(rule: Rule) -> tuple[IPAddress, ...]:
    if rule.address is not None:
        return (rule.address,)
    return () if isinstance(rule.peer, str) else (rule.peer.network_address,)
