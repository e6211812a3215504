"""Synthetic addresses: one for each name and real address, so that traffic is bound to the name (DESIGN.md law 2).

They lead nowhere but through a policy made for them: whatever else becomes of that, no packet for one can leave.
"""

from collections.abc import Callable
from ipaddress import IPv4Network, IPv6Network, ip_address

from hushwire.wire.address import IPAddress

POOLS: dict[int, IPv4Network | IPv6Network] = {
    # RFC 2544 s C.2.2: for benchmarks, never on the Internet.
    4: IPv4Network("198.18.0.0/15"),
    # RFC 4193: a unique local prefix of our own.
    6: IPv6Network("fd68:7773:6877:1::/96"),
}
"""By IP version."""

RESERVED = 16
"""The first addresses of a pool are not given out: nobody shall take one for a network's own."""


class PoolEmpty(Exception):
    """Every synthetic address of a family has a name."""


class SyntheticAddresses:
    """Who has which.  One that is given back is given to another name as late as can be."""

    def __init__(self, first: Callable[[], int] = lambda: 0) -> None:
        """`first` draws where to begin: what an earlier run gave out, and programs may still hold, is hardly soon given
        to another name."""
        self._first = first
        self._taken: dict[tuple[str, IPAddress], IPAddress] = {}
        self._given: set[IPAddress] = set()
        self._next: dict[int, int] = {}

    def take(self, name: str, real: IPAddress) -> IPAddress:
        """The address that stands for `real` as `name` has it: the same for as long as it is not given back."""
        known = self._taken.get((name, real))
        if known is not None:
            return known
        pool = POOLS[real.version]
        size = min(pool.num_addresses, 1 << 24) - 1
        if real.version not in self._next:
            self._next[real.version] = RESERVED + self._first() % (size - RESERVED)
        for _ in range(len(self._given) + 1):
            number = self._next[real.version]
            self._next[real.version] = number + 1 if number + 1 < size else RESERVED
            made = ip_address(int(pool.network_address) + number)
            if made not in self._given:
                self._taken[name, real] = made
                self._given.add(made)
                return made
        raise PoolEmpty(f"no synthetic IPv{real.version} address is left for {name}")

    def give_back(self, name: str, real: IPAddress) -> None:
        """What stood for `real` is used no more.  Raises KeyError if nothing did."""
        self._given.discard(self._taken.pop((name, real)))


def is_synthetic(address: IPAddress) -> bool:
    """Whether it is of a pool, and so never a peer's own."""
    return address in POOLS[address.version]
