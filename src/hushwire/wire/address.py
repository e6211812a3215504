"""Addresses and UDP end points as the rest of hushwire names them."""

from abc import ABC
from dataclasses import dataclass
from functools import lru_cache
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    IPAddress = IPv4Address | IPv6Address
    IPNetwork = IPv4Network | IPv6Network
else:
    # One class each at run time, so that isinstance and a typed decoder take either family.
    class IPAddress(ABC):  # noqa: B024
        """An IPv4 or IPv6 address."""

    class IPNetwork(ABC):  # noqa: B024
        """An IPv4 or IPv6 prefix."""

    for _family in (IPv4Address, IPv6Address):
        IPAddress.register(_family)
    for _family in (IPv4Network, IPv6Network):
        IPNetwork.register(_family)


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One end of a UDP association."""

    address: IPAddress
    port: int
    """UDP port, 0..65535."""

    def __str__(self) -> str:
        host = f"[{self.address}]" if self.address.version == 6 else str(self.address)
        return f"{host}:{self.port}"


def address_from_octets(octets: bytes) -> IPAddress:
    """The address of 4 or 16 octets; ValueError on any other length."""
    if len(octets) == 4:
        return IPv4Address(octets)
    if len(octets) == 16:
        return IPv6Address(octets)
    raise ValueError(f"an address has 4 or 16 octets, not {len(octets)}")


@lru_cache(4096)
def host_network(address: IPAddress) -> IPNetwork:
    """The prefix that holds one address only: /32 or /128."""
    if isinstance(address, IPv4Address):
        return IPv4Network(address)
    return IPv6Network(address)
