"""What the tests of the resolver's front share: a signed world, and one resolver in front of it."""

from collections.abc import Iterator
from ipaddress import IPv4Address, IPv6Address

import pytest

from hushwire.lab.dns import SignedWorld
from hushwire.lab.resolving import TYPES, Node, Resolver, only, passes, refuses, resolving, trusting

V4, V6, OTHER = IPv4Address("192.0.2.1"), IPv6Address("2001:db8::1"), IPv4Address("192.0.2.9")
RULED = "alice.example"
NAMES = {RULED, "alias.bob.example", "refused.alice.example", "slow.alice.example", "mute.alice.example",
              "made.alice.example", "absent.alice.example", "mail.bob.example", "ruled.unsigned.example"}  # fmt: skip
"""Those that a rule speaks of."""


@pytest.fixture(scope="session")
def signed() -> Iterator[SignedWorld]:
    with SignedWorld() as world:
        world.publish(RULED, [V4, V6])
        world.set(RULED, {"HTTPS": ["1 . mandatory=alpn,ipv4hint alpn=h2 ipv4hint=192.0.2.1 ipv6hint=2001:db8::1"]})
        world.set(RULED, {"MX": ["1 mail2.bob.example."]})
        for name in ("slow.alice.example", "mute.alice.example", "made.alice.example", "refused.alice.example"):
            world.publish(name, [V4])
        world.publish("ruled.unsigned.example", [V4])
        world.publish("plain.bob.example", [V4, V6])
        world.publish("mail.bob.example", [V4])
        world.publish("mail2.bob.example", [OTHER])
        world.set("types.bob.example", TYPES)
        world.set("my\\032printer._ipp._tcp.bob.example", {"TXT": ['"a b"']})
        world.set("alias.bob.example", {"CNAME": ["alias2.bob.example."]})
        world.set("alias2.bob.example", {"CNAME": [f"{RULED}."]})
        world.set("other-alias.bob.example", {"CNAME": ["types.bob.example."]})
        world.set("dname.bob.example", {"DNAME": ["alice.example."]})
        world.set("big.bob.example", {"TXT": [f'"{number:03d}{"x" * 200}"' for number in range(100)]})
        world.set("www.bob.example", {"HTTPS": [f"1 {RULED}. alpn=h2 ipv4hint=192.0.2.1"]})
        yield world


@pytest.fixture(scope="session")
def shared(signed: SignedWorld) -> Iterator[Resolver]:
    node = Node(
        {
            RULED: only(V4, V6),
            "alias.bob.example": only(V4, V6),
            "refused.alice.example": refuses("bob proved no key"),
            "slow.alice.example": only(V4),
            "made.alice.example": only(OTHER, ttl=30),
            "absent.alice.example": only(OTHER),
            "mail.bob.example": passes(1),
            "ruled.unsigned.example": passes(),
        },
        {"slow.alice.example": 4.0},
    )
    with resolving(trusting(signed), node, NAMES.__contains__) as it:
        yield it
