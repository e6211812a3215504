"""What a zone's owner may sign, through the real validator: ATTACKS.md rows 27, 38 to 40, and 42.

DNSSEC proves all of it.  Each guard has its control, in which it is out.
"""

from collections.abc import Callable, Iterator
from contextlib import suppress
from ipaddress import IPv4Address, IPv6Address, ip_address

import dns.message
import dns.query
import pytest
from cryptography.hazmat.primitives.asymmetric import ed25519, rsa

from hushwire.crypto import keys
from hushwire.crypto.keys import PublicKey
from hushwire.daemon import unbound
from hushwire.daemon.resolver import resolve
from hushwire.daemon.unbound import Validator
from hushwire.events import Answered, Lookup, Outcome
from hushwire.lab import defects
from hushwire.lab.asking import answers, believed, bind_by_gateway, found, trusting, watched
from hushwire.lab.evil import EvilWorld
from hushwire.names import binding, ipseckey
from hushwire.names import reverse as reverse_zones
from hushwire.names.binding import Binding, Unbound
from hushwire.names.ipseckey import IPSECKEY, BadKeyRecord, KeyRecord, generic, write_record
from hushwire.names.lookup import NameLookup
from hushwire.names.reverse import bind_address, reverse_name
from hushwire.wire.address import IPAddress

EVIL, GATEWAY = "evil.example", "gateway.evil.example"
V4, V6, VICTIM = IPv4Address("192.0.2.1"), IPv6Address("2001:db8::1"), IPv4Address("192.0.2.9")
OWN = IPv4Address("198.51.100.1")
KEY = PublicKey.of(ed25519.Ed25519PrivateKey.from_private_bytes(bytes(32)).public_key())


@pytest.fixture(scope="module")
def world() -> Iterator[EvilWorld]:
    with EvilWorld() as world:
        yield world


def secure(world: EvilWorld, name: str = EVIL) -> list[Answered]:
    """The answers, none of them in doubt."""
    heard = answers(world, name)
    assert {answer.outcome for answer in heard} <= {Outcome.SECURE, Outcome.DENIED}
    return heard


# Row 38.

GATEWAYS = {
    "elsewhere": {"victim": f"A {VICTIM}"},
    "alias": {"victim": "CNAME victim.example."},
    "chain": {"victim": "CNAME one", "one": "CNAME two", "two": "CNAME victim.example."},
    "dname": {"": "DNAME example."},
    "loop": {"victim": "CNAME victim"},
    "loop-of-two": {"victim": "CNAME other", "other": "CNAME victim"},
    "nowhere": {},
}
"""What there is below KIND.evil.example; the gateway is victim.KIND.evil.example."""


@pytest.mark.parametrize("guard", ["in", "out"])
@pytest.mark.parametrize("kind", GATEWAYS)
def test_row_38_a_gateways_name_is_not_asked_for(
    world: EvilWorld, monkeypatch: pytest.MonkeyPatch, kind: str, guard: str
) -> None:
    gateway = f"victim.{kind}.evil.example"
    for owner, record in GATEWAYS[kind].items():
        rdtype, target = record.split()
        relative = "" if target[-1] == "." or rdtype == "A" else f".{kind}.evil.example."
        world.set(f"{owner}.{kind}.evil.example".lstrip("."), {rdtype: [target + relative]})
    world.publish("victim.example", [VICTIM])
    world.publish(EVIL, [V4], [KeyRecord(10, gateway, KEY)])
    if guard == "out":
        monkeypatch.setattr(NameLookup, "_bind", bind_by_gateway)
    world.asked.clear()
    watch = watched(world, EVIL)
    drawn = {name for name, _ in world.asked if "victim" in name}
    if guard == "in":
        assert not drawn
        assert watch.unbound is not None
        assert watch.unbound.outcome is Outcome.SECURE
        assert f"gateway {gateway} is no address of the name" in watch.unbound.reason
        return
    # The control: who follows it asks, and where it leads anywhere it leads to the victim.
    assert gateway in drawn
    led = kind in ("elsewhere", "alias", "chain", "dname")
    assert (watch.binding.addresses if watch.binding else ()) == ((VICTIM,) if led else ())
    assert ("victim.example" in drawn) is (led and kind != "elsewhere")


@pytest.mark.parametrize(
    ("owner", "record"),
    [("www.evil.example", {"CNAME": ["bob.example."]}), ("down.evil.example", {"DNAME": ["example."]})],
    ids=["alias", "dname"],
)
def test_row_38_an_alias_is_the_owners_word(world: EvilWorld, owner: str, record: dict[str, list[str]]) -> None:
    """Accepted: an alias that is signed speaks for the name, and what it leads to is asked in its stead."""
    name = owner if "CNAME" in record else f"bob.{owner}"
    world.publish("bob.example", [V4], [KEY])
    world.set(owner, record)
    bound = found(name, *secure(world, name))
    assert isinstance(bound, Binding)
    assert (bound.canonical, bound.addresses) == ("bob.example", (V4,))


# Row 27.


@pytest.mark.parametrize(
    "target", ["ali\\000ce.example.", "alice\\.bob.example.", "bl\\252cher.example.", "-.example."]
)
def test_row_27_an_alias_of_what_is_no_host(world: EvilWorld, monkeypatch: pytest.MonkeyPatch, target: str) -> None:
    world.publish("*.example", [VICTIM], [KEY])
    world.set("strange.evil.example", {"CNAME": [target]})
    unbound = found("strange.evil.example", *answers(world, "strange.evil.example"))
    # Control: nothing else is wrong with it.
    monkeypatch.setattr(Validator, "_canonical", lambda self, lookup, result: "")
    bound = found("strange.evil.example", *answers(world, "strange.evil.example"))
    world.withdraw("*.example")
    assert isinstance(unbound, Unbound)
    assert (unbound.outcome, unbound.reason.isprintable()) == (Outcome.ERROR, True)
    assert isinstance(bound, Binding)


# Row 39.


def reverse(world: EvilWorld, judge: Callable[[Answered], Answered] = lambda answer: answer) -> Binding | Unbound:
    """What the reverse zone says of V4."""
    (answer,) = resolve(trusting(world), [Lookup(1, reverse_name(V4), IPSECKEY)])
    try:
        return bind_address(V4, judge(answer), own=[OWN])
    except Unbound as unbound:
        return unbound


def test_row_39_a_reverse_zones_owner_delegates_his_own_block(world: EvilWorld) -> None:
    """Accepted: who signs the reverse zone has the addresses, and may say who speaks for them."""
    world.publish(reverse_name(V4), keys=[KeyRecord(10, VICTIM, KEY)])
    bound = reverse(world)
    assert isinstance(bound, Binding)
    assert (bound.addresses, bound.gateway, bound.keys_at(VICTIM)) == ((V4,), VICTIM, (KEY,))
    # Control: a name's owner may not, for an address is not his to give (row 35).
    world.publish(EVIL, [V4], [KeyRecord(10, VICTIM, KEY)])
    assert isinstance(found(EVIL, *secure(world)), Unbound)


@pytest.mark.parametrize("gateway", [ip_address("127.0.0.1"), ip_address("::1"), OWN, GATEWAY], ids=str)
def test_row_39_but_not_to_where_nobody_is(
    world: EvilWorld, monkeypatch: pytest.MonkeyPatch, gateway: IPAddress | str
) -> None:
    world.publish(reverse_name(V4), keys=[KeyRecord(10, gateway, KEY)])
    unbound = reverse(world)
    assert isinstance(unbound, Unbound)
    assert unbound.outcome is Outcome.SECURE
    # Control: without the guard it is where the key counts.
    monkeypatch.setattr(reverse_zones, "_why_not_through", lambda gateway, address, own: None)
    bound = reverse(world)
    assert isinstance(bound, Binding)
    assert [record.gateway for record in bound.records] == [gateway]


@pytest.mark.parametrize("defect", [defects.spoil, defects.strip_signatures, defects.deny])
def test_row_39_nor_without_signatures(
    world: EvilWorld, monkeypatch: pytest.MonkeyPatch, defect: defects.Defect
) -> None:
    world.publish(reverse_name(V4), keys=[KeyRecord(10, VICTIM, KEY)])
    world.misbehave(reverse_name(V4), defect)
    doubted = reverse(world)
    # Control: without validation the gateway is there, or it is denied that there is a key.
    monkeypatch.setattr(unbound, "OPTIONS", tuple((dict(unbound.OPTIONS) | {"module-config": "iterator"}).items()))
    had = reverse(world, believed)
    world.behave()
    assert isinstance(doubted, Unbound)
    assert doubted.outcome is Outcome.ERROR
    if defect is defects.deny:
        assert isinstance(had, Unbound)
        assert had.outcome is Outcome.DENIED
    else:
        assert isinstance(had, Binding)
        assert had.gateway == VICTIM


# Row 40.

NO_PEERS = [
    "0.0.0.0", "0.1.2.3", "127.0.0.1", "127.255.255.254", "169.254.1.1", "224.0.0.1", "239.255.255.255",
    "240.0.0.1", "255.255.255.255", str(OWN),
    "::", "::1", "fe80::1", "ff02::1", "::7f00:1", "::ffff:127.0.0.1", "::ffff:192.0.2.1",
    "64:ff9b::7f00:1", "64:ff9b::c000:201", "64:ff9b:1::7f00:1", "2002:7f00:1::1",
]  # fmt: skip


@pytest.mark.parametrize("address", [*map(ip_address, NO_PEERS)], ids=str)
def test_row_40_rebinding(world: EvilWorld, monkeypatch: pytest.MonkeyPatch, address: IPAddress) -> None:
    world.publish("inner.evil.example", [address], [KEY])
    heard = secure(world, "inner.evil.example")
    unbound = found("inner.evil.example", *heard, own=[OWN])
    assert isinstance(unbound, Unbound)
    assert unbound.outcome is Outcome.SECURE
    assert f"{address} is " in unbound.reason
    # Control: without the guard it is a peer's.
    monkeypatch.setattr(binding, "why_not_a_peer", lambda address, own: None)
    bound = found("inner.evil.example", *heard, own=[OWN])
    assert isinstance(bound, Binding)
    assert bound.addresses == (address,)


def test_row_40_a_good_address_is_kept(world: EvilWorld) -> None:
    world.publish("both.evil.example", [*map(ip_address, NO_PEERS), V4, V6], [KEY])
    bound = found("both.evil.example", *secure(world, "both.evil.example"), own=[OWN])
    assert isinstance(bound, Binding)
    assert bound.addresses == (V6, V4)


# Row 42.


def of_rsa(bits: int, exponent: int = 65537) -> bytes:
    """The public key field; nobody holds the key."""
    length = (exponent.bit_length() + 7) // 8
    return bytes((length,)) + exponent.to_bytes(length, "big") + modulus(bits)


def modulus(bits: int) -> bytes:
    return ((1 << bits) - 159).to_bytes(bits // 8, "big")


def record(field: bytes, algorithm: int = 2, gateway_type: int = 0, gateway: bytes = b"") -> bytes:
    return bytes((10, gateway_type, algorithm)) + gateway + field


GOOD = of_rsa(2048)
ED25519 = write_record(KeyRecord(10, None, KEY))[3:]
BAD_RECORDS = {
    "RSA of 512 bits": record(of_rsa(512)),
    "RSA of 1024 bits": record(of_rsa(1024)),
    "RSA of 16384 bits": record(of_rsa(16384)),
    "exponent 1": record(of_rsa(2048, 1)),
    "exponent 3": record(of_rsa(2048, 3)),
    "exponent 0": record(b"\1\0" + modulus(2048)),
    "even exponent": record(of_rsa(2048, 65536)),
    "an exponent as large as the modulus": record(b"\xff" + b"\xff" * 255 + modulus(2048)),
    "long form of the exponent's length": record(b"\0\0\3\1\0\1" + modulus(2048)),
    "exponent led by a zero": record(b"\4\0\1\0\1" + modulus(2048)),
    "modulus led by a zero": record(b"\3\1\0\1\0" + modulus(2048)),
    "no modulus": record(b"\3\1\0\1"),
    "exponent cut short": record(b"\xff\1\0\1"),
    "Ed25519 with an octet more": record(ED25519 + b"\0", 4),
    "Ed25519 with an octet less": record(ED25519[:-1], 4),
    "a point of low order": record(b"\1" + bytes(31), 4),
    "Ed25519 said to be RSA": record(ED25519, 2),
    "Ed25519 said to be ECDSA": record(ED25519, 3),
    "RSA said to be Ed25519": record(GOOD, 4),
    "a point on no curve": record(b"\1" * 64, 3),
    "DSA": record(GOOD, 1),
    "an unknown algorithm": record(GOOD, 5),
    "an unknown algorithm, the last": record(GOOD, 255),
    "no key": record(b"", 0),
    "gateway type 4": record(GOOD, 2, 4, b"\1"),
    "gateway type 255": record(GOOD, 2, 255),
    "compressed gateway name": record(GOOD, 2, 3, b"\xc0\x0c"),
    "gateway name that points to itself": record(GOOD, 2, 3, b"\4evil\xc0\x03"),
    "gateway name without its end": record(b"", 2, 3, b"\4evil"),
    "gateway address cut short": record(b"", 2, 2, b"\x20\x01\x0d\xb8"),
    "one octet": b"\x0a",
    "two octets": b"\x0a\0",
    "no key field": record(b"", 2),
}  # fmt: skip


NOBODYS_KEY = {
    "exponent 1", "exponent 0", "even exponent", "no modulus", "exponent cut short", "Ed25519 with an octet less",
    "a point on no curve", "no key", "gateway name without its end", "gateway address cut short", "one octet",
    "two octets", "no key field",
}  # fmt: skip
"""Records in which nobody finds a key: no library makes one of such numbers, or no octets are left for one."""


def read_carelessly(rdata: bytes) -> KeyRecord:
    """In the place of read_record(): any algorithm and any form, behind whatever there may be of a gateway."""
    compressed = rdata[1:2] == b"\3" and 0xC0 in rdata[3:9]
    field = rdata[rdata.index(0xC0) + 2 if compressed else 3 :]
    long = field[:1] == b"\0"
    length, start = (int.from_bytes(field[1:3]), 3) if long else (int.from_bytes(field[:1]), 1)
    exponent, modulus = (int.from_bytes(part) for part in (field[start : start + length], field[start + length :]))
    with suppress(ValueError):
        return KeyRecord(rdata[0], None, PublicKey.of(rsa.RSAPublicNumbers(exponent, modulus).public_key()))
    if len(field) in (32, 33):
        return KeyRecord(rdata[0], None, PublicKey.of(ed25519.Ed25519PublicKey.from_public_bytes(field[:32])))
    raise BadKeyRecord("nobody finds a key in it")


@pytest.mark.parametrize("kind", BAD_RECORDS)
def test_row_42_no_key(world: EvilWorld, monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    rdata = BAD_RECORDS[kind]
    world.publish("keys.evil.example", [V4])
    world.set("keys.evil.example", {"IPSECKEY": [generic(rdata)]})
    heard = secure(world, "keys.evil.example")
    left = found("keys.evil.example", *heard)
    assert isinstance(left, Unbound)
    assert left.outcome is Outcome.SECURE
    # The one good key beside it is found.
    world.set("keys.evil.example", {"IPSECKEY": [generic(rdata), generic(record(ED25519, 4))]})
    bound = found("keys.evil.example", *secure(world, "keys.evil.example"))
    assert isinstance(bound, Binding)
    assert (bound.keys, len(bound.ignored)) == ((KEY,), 1)
    # Control: who reads carelessly, and lets any size and exponent pass, has a key.
    for name in ("_check_rsa", "_check_eddsa"):
        monkeypatch.setattr(keys, name, lambda *_: None)
    monkeypatch.setattr(ipseckey, "read_record", read_carelessly)
    assert isinstance(found("keys.evil.example", *heard), Unbound if kind in NOBODYS_KEY else Binding)


def test_row_42_a_record_without_octets(world: EvilWorld) -> None:
    """The library takes it for no message at all."""
    world.publish("keys.evil.example", [V4])
    world.set("keys.evil.example", {"IPSECKEY": [generic(b"")]})
    unbound = found("keys.evil.example", *answers(world, "keys.evil.example"))
    assert isinstance(unbound, Unbound)
    assert unbound.outcome is Outcome.ERROR


def test_row_42_control_a_key_that_nothing_is_wrong_with(world: EvilWorld) -> None:
    world.publish("keys.evil.example", [V4])
    world.set("keys.evil.example", {"IPSECKEY": [generic(record(GOOD))]})
    assert isinstance(found("keys.evil.example", *answers(world, "keys.evil.example")), Binding)


def test_row_42_two_hundred_records(world: EvilWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    bad = [b"\x0b" + record(of_rsa(2048, 65537)[:-2] + number.to_bytes(2, "big"))[1:] for number in range(1, 400, 2)]
    world.publish("many.evil.example", [V4])
    world.set("many.evil.example", {"IPSECKEY": [*map(generic, bad), generic(record(ED25519, 4))]})
    question = dns.message.make_query("many.evil.example", "IPSECKEY")
    assert dns.query.udp_with_fallback(question, world.address, port=world.port, timeout=5)[1]
    heard = secure(world, "many.evil.example")
    assert len(heard[2].rdata) == 201
    bound = found("many.evil.example", *heard)
    assert isinstance(bound, Binding)
    assert (bound.keys[0], len(bound.keys)) == (KEY, ipseckey.MAX_TRIED)
    # Control: without the bound each is decoded.
    monkeypatch.setattr(ipseckey, "MAX_TRIED", 1000)
    all_of_them = found("many.evil.example", *heard)
    assert isinstance(all_of_them, Binding)
    assert len(all_of_them.keys) == 201
