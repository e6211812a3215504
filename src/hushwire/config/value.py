"""One setting: a function from what TOML gives to a value; a ValueError says what is wrong and what would be right."""

from collections.abc import Callable, Mapping
from ipaddress import ip_address, ip_network

from hushwire.config.model import NameServer
from hushwire.names.name import BadName, host_name
from hushwire.policy.pad import Identity
from hushwire.wire.address import Endpoint, IPAddress, IPNetwork, host_network
from hushwire.wire.registry import IDType

Reader = Callable[[object], object]


def shown(value: object) -> str:
    """A setting in an error: escaped and cut, on one line."""
    plain = ascii(value)
    return plain if len(plain) <= 80 else f"{plain[:80]}..."


def text(value: object) -> str:
    if not isinstance(value, str) or not value or not value.isprintable():
        raise ValueError(f'{shown(value)} is not a text; write one in quotes, such as "alice"')
    return value


def path(value: object) -> str:
    said = text(value)
    if not said.startswith("/"):
        raise ValueError(f'{shown(said)} is not an absolute path; begin it with "/"')
    return said


def number(low: int, high: int, what: str) -> Reader:
    def read(value: object) -> int:
        if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
            raise ValueError(f"{shown(value)} is no {what}; write a whole number from {low} to {high}")
        return value

    return read


def waits(value: object) -> tuple[float, ...]:
    def right(wait: object) -> bool:
        return isinstance(wait, int | float) and not isinstance(wait, bool) and 0.01 <= wait <= 3600

    if not isinstance(value, list) or not 1 <= len(value) <= 20 or not all(map(right, value)):
        raise ValueError(
            f"{shown(value)} is no list of waits; write 1 to 20 of 0.01 to 3600 seconds, such as [0.5, 1, 2]"
        )
    return tuple(map(float, value))


def one_of(choices: Mapping[str, object]) -> Reader:
    def read(value: object) -> object:
        if not isinstance(value, str) or value not in choices:
            words = " or ".join(f'"{choice}"' for choice in choices)
            raise ValueError(f"{shown(value)} is not known here; write {words}")
        return choices[value]

    return read


def list_of(reader: Reader) -> Reader:
    def read(value: object) -> tuple[object, ...]:
        if not isinstance(value, list) or not value:
            raise ValueError(f"{shown(value)} is not a list with something in it; put it in brackets: [...]")
        return tuple(map(reader, value))

    return read


def name(value: object) -> str:
    try:
        return host_name(text(value))
    except BadName as error:
        raise ValueError(f'{error}; write one such as "alice.example"') from None


def address(value: object) -> IPAddress:
    try:
        found = ip_address(text(value))
    except ValueError:
        raise ValueError(f'{shown(value)} is no address; write one such as "192.0.2.2" or "2001:db8::2"') from None
    if getattr(found, "scope_id", None) or found.is_multicast or found.is_unspecified:
        raise ValueError(
            f"{shown(value)} is no address of one host everywhere; write one without a % and not multicast"
        )
    return found


def network(value: object) -> IPNetwork:
    said = text(value)
    try:
        return ip_network(said)
    except ValueError:
        pass
    try:
        right = f'did you mean "{ip_network(said, strict=False)}"?'
    except ValueError:
        right = 'write one such as "192.0.2.0/24" or "2001:db8::/32"'
    raise ValueError(f"{shown(value)} is no prefix; {right}")


def peer(value: object) -> str | IPNetwork:
    said = text(value)
    if "/" in said:
        return network(said)
    if ":" in said or said.rpartition(".")[2].isdigit():
        return host_network(address(said))
    return pattern(said)


def pattern(value: object) -> str:
    """A name, or all below one, or all."""
    said = text(value)
    if said == "*":
        return said
    return f"*.{name(said[2:])}" if said.startswith("*.") else name(said)


def yes_or_no(value: object) -> bool:
    if not isinstance(value, bool):
        raise ValueError(f"{shown(value)} is neither true nor false; write one of them, without quotes")
    return value


def protocol(value: object) -> int:
    if isinstance(value, str) and value in PROTOCOLS:
        return PROTOCOLS[value]
    if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= 255:
        words = ", ".join(f'"{word}"' for word in PROTOCOLS)
        raise ValueError(f"{shown(value)} is no protocol; write {words} or a number from 1 to 255")
    return value


PROTOCOLS = {"tcp": 6, "udp": 17, "icmp": 1, "icmpv6": 58, "sctp": 132, "dccp": 33, "udplite": 136, "gre": 47}
"""IANA's numbers of the usual ones."""


def identity(value: object) -> Identity:
    said = text(value)
    if ":" in said or said.rpartition(".")[2].isdigit():
        return Identity.address(address(said))
    user, at, domain = said.rpartition("@")
    return Identity.received(IDType.RFC822_ADDR, f"{user}@{name(domain)}".encode()) if at else Identity.fqdn(name(said))


def server(value: object) -> NameServer:
    where, hash_sign, certified = text(value).partition("#")
    found = _endpoint(where, 853 if hash_sign else 53)
    return NameServer(found.address, found.port, name(certified) if hash_sign else "")


def _endpoint(said: str, default: int) -> Endpoint:
    host, at, port = said.partition("@")
    if at and not (port.isdecimal() and port.isascii() and 1 <= int(port) <= 65535):
        raise ValueError(f'{shown(said)} has no port after its @; write one such as "127.0.0.1@5353"')
    return Endpoint(address(host), int(port) if at else default)


def root(value: object) -> Endpoint:
    return _endpoint(text(value), 53)


def listener(value: object) -> Endpoint:
    found = _endpoint(text(value), 53)
    if not found.address.is_loopback:
        # Others would have their questions answered with our policies, and learn whom we ask for.
        raise ValueError(f'{shown(value)} is not of loopback; write one such as "127.0.0.153"')
    return found
