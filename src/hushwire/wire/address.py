"""Addresses and UDP end points as the rest of hushwire names them."""

from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network

IPAddress = IPv4Address | IPv6Address
IPNetwork = IPv4Network | IPv6Network


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One end of a UDP association."""

    address: IPAddress
    port: int
    """UDP port, 0..65535."""

    def __str__(self) -> str:
        host = f"[{self.address}]" if self.address.version == 6 else str(self.address)
        return f"{host}:{self.port}"


def host_network(address: IPAddress) -> IPNetwork:
    """The prefix that holds one address only: /32 or /128."""
    if isinstance(address, IPv4Address):
        return IPv4Network(address)
    return IPv6Network(address)
