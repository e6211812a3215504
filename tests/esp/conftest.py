"""Two planes with an SA pair between them."""

import struct
from dataclasses import replace
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network  # noqa: F401
from types import SimpleNamespace

import pytest

from hushwire.crypto.secret import Secret
from hushwire.entropy import SeededEntropy
from hushwire.esp.plane import Plane
from hushwire.events import InstallPolicy, InstallSA
from hushwire.policy.sad import SA, Direction, Encapsulation, EspSuite, Lifetime, Mode
from hushwire.policy.selector import Selector
from hushwire.policy.spd import Action, Policy
from hushwire.timers import Now
from hushwire.wire.address import Endpoint, IPAddress
from hushwire.wire.registry import EncrID, IntegID

ALICE, BOB = IPv4Address("192.0.2.1"), IPv4Address("192.0.2.2")
ALICE6, BOB6 = IPv6Address("2001:db8::1"), IPv6Address("2001:db8::2")
MALLORY = IPv4Address("198.51.100.66")
FOR_EVER = Lifetime()
NOW = Now(1000.0, 1_700_000_000.0)

GCM = EspSuite(EncrID.AES_GCM_16, 128)
CHACHA = EspSuite(EncrID.CHACHA20_POLY1305, 256)
CBC = EspSuite(EncrID.AES_CBC, 256, IntegID.HMAC_SHA2_256_128)
SUITES = [
    GCM, EspSuite(EncrID.AES_GCM_16, 256, esn=True), CHACHA, replace(CHACHA, esn=True), CBC, replace(CBC, esn=True),
    EspSuite(EncrID.AES_CBC, 128, IntegID.HMAC_SHA2_384_192), EspSuite(EncrID.AES_CBC, 192, IntegID.HMAC_SHA2_512_256),
]  # fmt: skip


def keys(suite: EspSuite, seed: str) -> tuple[Secret, Secret]:
    """Fresh keys of the lengths that `suite` wants."""
    entropy = SeededEntropy(seed.encode())
    salt = 0 if suite.integ else 4
    integ = {12: 32, 13: 48, 14: 64}.get(suite.integ, 0)
    return Secret(entropy.private(suite.key_bits // 8 + salt)), Secret(entropy.private(integ))


def make_sa(
    source: IPAddress = ALICE, destination: IPAddress = BOB, spi: int = 0x1000, suite: EspSuite = GCM,
    mode: Mode = Mode.TRANSPORT, lifetime: Lifetime = FOR_EVER, seed: str = "key", selector: Selector | None = None,
) -> SA:  # fmt: skip
    """An SA as the sender installs it."""
    encr, integ = keys(suite, seed)
    selector = selector or Selector.between(source, destination)
    return SA(
        spi, Direction.OUT, source, destination, mode, suite, encr, integ, selector, 7, lifetime,
        Encapsulation(4500, 4500),
    )  # fmt: skip


def received(sa: SA) -> SA:
    """The same SA as the receiver installs it."""
    selector = Selector(
        sa.selector.remote, sa.selector.local, sa.selector.protocol, sa.selector.remote_port, sa.selector.local_port
    )
    return replace(sa, direction=Direction.IN, selector=selector)


def policy(sa: SA, action: Action = Action.PROTECT) -> Policy:
    return Policy(sa.selector, sa.direction, action, 100, sa.reqid, sa.mode)


def plane_with(*sas: SA, seed: bytes = b"plane") -> Plane:
    """A plane with these SAs and a policy for each."""
    plane = Plane(SeededEntropy(seed))
    for number, sa in enumerate(sas):
        plane.install(InstallPolicy(2 * number + 1, policy(sa)), NOW)
        plane.install(InstallSA(2 * number + 2, sa), NOW)
    return plane


def ones_sum(octets: bytes) -> int:
    """RFC 1071, word by word."""
    words = struct.unpack(f">{(len(octets) + 1) // 2}H", octets + bytes(len(octets) % 2))
    total = sum(words)
    while total > 0xFFFF:
        total = (total & 0xFFFF) + (total >> 16)
    return total


def udp(
    source: IPAddress, destination: IPAddress, payload: bytes = b"payload", ports: tuple[int, int] = (5, 7)
) -> bytes:
    """A UDP packet with right checksums."""
    upper = struct.pack(">HHHH", *ports, 8 + len(payload), 0) + payload
    return ip(source, destination, 17, summed(source, destination, 17, upper, 6))


def tcp(
    source: IPAddress, destination: IPAddress, sequence: int, payload: bytes, flags: int = 0x10, ack: int = 9,
    options: bytes = b"", ports: tuple[int, int] = (40000, 80),
) -> bytes:  # fmt: skip
    """A TCP packet with right checksums."""
    header = struct.pack(">HHIIBBHHH", *ports, sequence, ack, (20 + len(options)) // 4 << 4, flags, 512, 0, 0)
    return ip(source, destination, 6, summed(source, destination, 6, header + options + payload, 16))


def summed(source: IPAddress, destination: IPAddress, protocol: int, upper: bytes, at: int) -> bytes:
    pseudo = source.packed + destination.packed + struct.pack(">II", len(upper), protocol)
    checksum = ones_sum(pseudo + upper) ^ 0xFFFF
    return upper[:at] + struct.pack(">H", checksum or 0xFFFF) + upper[at + 2 :]


def ip(source: IPAddress, destination: IPAddress, protocol: int, upper: bytes, fragment: int = 0x4000) -> bytes:
    """An IP packet around an upper layer's."""
    if source.version == 6:
        return struct.pack(">IHBB", 6 << 28, len(upper), protocol, 64) + source.packed + destination.packed + upper
    header = struct.pack(">BBHHHBBH", 0x45, 0, 20 + len(upper), 0, fragment, 64, protocol, 0)
    header += source.packed + destination.packed
    return header[:10] + struct.pack(">H", ones_sum(header) ^ 0xFFFF) + header[12:] + upper


def end(address: IPAddress, port: int = 4500) -> Endpoint:
    return Endpoint(address, port)


def everything(version: int = 4) -> Selector:
    """The selector of a tunnel for all."""
    network = ip_network("0.0.0.0/0" if version == 4 else "::/0")
    return Selector(network, network)


class Kit(SimpleNamespace):
    """The names of this module, for test modules, which do not import each other."""

    def __repr__(self) -> str:
        return "<kit>"


@pytest.fixture(scope="session")
def kit() -> Kit:
    """All of the above."""
    return Kit(**{name: value for name, value in globals().items() if not name.startswith("_")})
