"""XFRM, the kernel plane: installs and deletes SAs and policies, and tells what happens to them (RFC 4301 s4.4).

The first packet of a flow is not lost while its SA is made only when `net.core.xfrm_larval_drop` is 0: then the
kernel holds it in the policy's queue, for some seconds, until the SA with its Acquire's sequence number comes.
"""

import errno
from collections.abc import Container, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass

from hushwire.events import Acquire, Expire, Mapping
from hushwire.linux import xfrm_codec as codec
from hushwire.linux.netlink import NETLINK_XFRM, Client, Netlink, NetlinkError
from hushwire.policy.sad import SA, Direction, Mode, SAName
from hushwire.policy.selector import Selector
from hushwire.policy.spd import Policy
from hushwire.wire.address import IPAddress


@dataclass(frozen=True, slots=True)
class FoundPolicy:
    """A policy in the kernel's SPD."""

    policy: Policy
    ifindex: int
    """Of the only device it speaks of; 0: any."""
    mark: int = 0
    """Of the only packets it speaks of; 0: any."""


@dataclass(frozen=True, slots=True)
class Usage:
    """What went through an SA so far."""

    octets: int
    packets: int


class Xfrm(Client):
    """The SAD and SPD of this network namespace.  Writing needs CAP_NET_ADMIN."""

    def __init__(self) -> None:
        super().__init__(NETLINK_XFRM)

    def install_sa(self, sa: SA, mark: int | None = None, *, any_selector: bool = False) -> None:
        """Add an SA; the larval one of its Acquire gives way to it and its packets go out.

        `mark` is what its packets bear afterwards; None: what they bore before.
        """
        body = codec.write_sa(sa, mark, any_selector=any_selector)
        self._netlink.request(codec.MSG_NEWSA, body, f"install SA {sa.spi:#x}")

    def update_sa(self, sa: SA) -> None:
        """Change the lifetime or the encapsulation of an SA; keys and sequence numbers stay."""
        self._netlink.request(codec.MSG_UPDSA, codec.write_sa(sa), f"update SA {sa.spi:#x}")

    def delete_sa(self, name: SAName) -> None:
        """Delete an SA; it may be gone already."""
        with _unless_gone(errno.ESRCH):
            self._netlink.request(codec.MSG_DELSA, codec.write_sa_id(name), f"delete SA {name.spi:#x}")

    def sa(self, name: SAName, own: Container[IPAddress]) -> SA:
        """One SA.  `own` are the host's addresses, which tell inbound from outbound."""
        (found,) = self._netlink.request(codec.MSG_GETSA, codec.write_sa_id(name), f"read SA {name.spi:#x}")
        return codec.read_sa(found.body, own)

    def usage(self, name: SAName) -> Usage:
        """How much an SA has carried."""
        (found,) = self._netlink.request(codec.MSG_GETSA, codec.write_sa_id(name), f"read SA {name.spi:#x}")
        return Usage(*codec.read_usage(found.body))

    def sas(self, own: Container[IPAddress]) -> list[SA]:
        """All SAs that hushwire could have made."""
        found = []
        for message in self._netlink.dump(codec.MSG_GETSA, b"", "read the SAD"):
            with suppress(codec.Unspoken):
                found.append(codec.read_sa(message.body, own))
        return found

    def install_policy(self, policy: Policy, ifindex: int = 0, mark: int = 0) -> None:
        """Add a policy, or update it in place without a moment in which it is not there (DESIGN.md law 1).

        With `ifindex` or `mark` it speaks of packets of that device, or with that mark, only.

        What comes out of a tunnel may be for another host, so an inbound tunnel policy governs forwarding too.
        """
        number = codec.POLICY_OUT if policy.direction is Direction.OUT else codec.POLICY_IN
        numbers = [number]
        if policy.direction is Direction.IN and policy.mode is Mode.TUNNEL:
            numbers.append(codec.POLICY_FWD)
        for number in numbers:
            body = codec.write_policy(policy, number, ifindex, mark)
            self._netlink.request(codec.MSG_UPDPOLICY, body, f"install policy {policy.selector}")

    def delete_policy(self, selector: Selector, direction: Direction, ifindex: int = 0, mark: int = 0) -> None:
        """Delete a policy; it may be gone already."""
        numbers = [codec.POLICY_OUT] if direction is Direction.OUT else [codec.POLICY_IN, codec.POLICY_FWD]
        for number in numbers:
            body = codec.write_policy_id(selector, direction, number, ifindex, mark)
            with _unless_gone(errno.ENOENT):
                self._netlink.request(codec.MSG_DELPOLICY, body, f"delete policy {selector}")

    def policies(self) -> list[FoundPolicy]:
        """All policies that hushwire could have made; those that govern forwarding follow from the inbound ones."""
        found = []
        for message in self._netlink.dump(codec.MSG_GETPOLICY, b"", "read the SPD"):
            with suppress(codec.Unspoken):
                found.append(FoundPolicy(*codec.read_policy(message.body), codec.read_policy_mark(message.body)))
        return found


class XfrmEvents:
    """The kernel's news of SAs.  As long as nobody listens the kernel raises no Acquire and drops the packet."""

    def __init__(self) -> None:
        self._netlink = Netlink(NETLINK_XFRM, (GROUP_ACQUIRE, GROUP_EXPIRE, GROUP_MAPPING))

    def fileno(self) -> int:
        """To poll for reading."""
        return self._netlink.fileno()

    def close(self) -> None:
        self._netlink.close()

    def receive(self) -> list[Acquire | Expire | Mapping]:
        """The next news.  OSError ENOBUFS: some were lost."""
        return [event for message in self._netlink.receive() if (event := codec.read_event(message))]


@contextmanager
def _unless_gone(number: int) -> Iterator[None]:
    """To delete what is not there is done already."""
    try:
        yield
    except NetlinkError as refused:
        if refused.errno != number:
            raise


GROUP_ACQUIRE, GROUP_EXPIRE, GROUP_MAPPING = 1, 2, 8
