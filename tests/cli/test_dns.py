"""`hushwire dns`: dnspython reads and a server serves what is shown; what is checked is what a validator says."""

import socket
from collections.abc import Iterator
from contextlib import contextmanager
from ipaddress import IPv4Address, IPv6Address
from pathlib import Path

import click
import dns.message
import dns.query
import dns.rcode
import dns.rdatatype
import dns.zonefile
import pytest
from click.testing import CliRunner, Result

from hushwire.cli.dns import dns as noun
from hushwire.cli.key import TYPES, key, read_public
from hushwire.cli.options import forward
from hushwire.crypto.keys import KeyKind, PrivateKey
from hushwire.lab.dns import SignedWorld
from hushwire.lab.resolving import Upstream
from hushwire.names.ipseckey import KeyRecord, read_record


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("keys")
    for kind in TYPES:
        CliRunner().invoke(key, ["new", "--type", kind, str(folder / kind)])
    return {kind: folder / kind for kind in TYPES}


@pytest.fixture(scope="module")
def world() -> Iterator[SignedWorld]:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind(("127.0.0.1", 0))
        port = sock.getsockname()[1]
    with SignedWorld(port=port) as world:
        yield world


def run(*arguments: str | Path) -> Result:
    return CliRunner().invoke(noun, [str(argument) for argument in arguments])


def check(world: SignedWorld, name: str) -> Result:
    return run("check", name, "--anchor", world.anchor_path, "--forward", world.forward)


@contextmanager
def spoiling(world: SignedWorld, owner: str, rdtype: str) -> Iterator[str]:
    """Somebody between us and the world, who lets `rdtype` of `owner` through until it was had once."""
    questions = [0]

    def answer(octets: bytes) -> bytes:
        query = dns.message.from_wire(octets)
        if query.question[0].to_text() == f"{owner}. IN {rdtype}":
            questions[0] += 1
            if questions[0] > 1:
                refusal = dns.message.make_response(query)
                refusal.set_rcode(dns.rcode.SERVFAIL)
                return refusal.to_wire()
        return dns.query.tcp(query, world.address, port=world.port, timeout=5).to_wire()

    with Upstream(answer) as port:
        yield f"127.0.0.1@{port}"


@pytest.mark.parametrize("rdtype", ["DNSKEY", "DS", "TXT"])
def test_a_link_of_the_chain_that_cannot_be_read(world: SignedWorld, rdtype: str) -> None:
    """What was believed a moment ago is no reason to say that all is well.  TXT, the control, is no link."""
    world.publish("alice.example", [IPv4Address("192.0.2.1")], [PrivateKey.generate(KeyKind.ED25519).public])
    with spoiling(world, "alice.example", rdtype) as forward:
        result = run("check", "alice.example", "--anchor", world.anchor_path, "--forward", forward)
    if rdtype == "TXT":
        assert result.exit_code == 0, result.output
        return
    refused(result)
    assert "alice.example is bound" in result.output
    assert f"{rdtype} of alice.example: error (SERVFAIL" in result.stderr


def refused(result: Result) -> str:
    assert result.exit_code != 0
    assert isinstance(result.exception, SystemExit), "an exception escaped"
    return result.stderr.splitlines()[-1]


@pytest.mark.parametrize("kind", TYPES)
def test_both_forms_are_one_record(kind: str, keys: dict[str, Path]) -> None:
    result = run("show", "Alice.Example.", "--key", keys[kind], "--ttl", "300")
    assert result.exit_code == 0
    plain = dns.zonefile.read_rrsets(result.output, rdclass=None)
    generic = dns.zonefile.read_rrsets(result.output.splitlines()[2].removeprefix("; "), rdclass=None)
    assert plain == generic
    (rrset,) = plain
    assert (str(rrset.name), rrset.ttl, rrset.rdtype) == ("alice.example.", 300, dns.rdatatype.IPSECKEY)
    assert read_record(rrset[0].to_wire() or b"") == KeyRecord(10, None, read_public(keys[kind]))


def test_addresses_and_a_rollover(keys: dict[str, Path]) -> None:
    result = run(
        "show", "alice.example", "--key", keys["ed25519"], "--key", keys["ecdsa-p256"],
        "--address", "192.0.2.1", "--address", "2001:db8::1",
    )  # fmt: skip
    rrsets = {rrset.rdtype: rrset for rrset in dns.zonefile.read_rrsets(result.output, rdclass=None)}
    assert [rdata.precedence for rdata in rrsets[dns.rdatatype.IPSECKEY]] == [10, 20]
    assert rrsets[dns.rdatatype.A].to_text() == "alice.example. 3600 IN A 192.0.2.1"
    assert rrsets[dns.rdatatype.AAAA].to_text() == "alice.example. 3600 IN AAAA 2001:db8::1"


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (("alice..example",), "empty label"),
        (("b\xfccher.example",), "xn--"),
        (("alice.example", "--address", "127.0.0.1"), "loopback"),
        (("alice.example", "--address", "alice"), "no address"),
        (("alice.example", "--ttl", "-1"), "range"),
        (("alice.example", "--key", "/nonexistent"), "No such file"),
    ],
)
def test_show_refuses(arguments: tuple[str, ...], reason: str, keys: dict[str, Path]) -> None:
    assert reason in refused(run("show", *arguments, "--key", keys["ed25519"]))


def test_a_key_that_dns_cannot_say(tmp_path: Path) -> None:
    file = tmp_path / "p521"
    file.write_bytes(PrivateKey.generate(KeyKind.ECDSA_P521).write_pem().expose())
    file.chmod(0o600)
    assert "p521" in refused(run("show", "alice.example", "--key", file))


def test_a_key_that_others_can_read(keys: dict[str, Path], tmp_path: Path) -> None:
    file = tmp_path / "open.key"
    file.write_bytes(keys["ed25519"].read_bytes())
    file.chmod(0o644)
    assert "0644" in refused(run("show", "alice.example", "--key", file))


def test_what_show_says_is_published_and_check_finds_it(world: SignedWorld, keys: dict[str, Path]) -> None:
    """From key to binding, the way an administrator goes: each record line as shown, into the zone."""
    shown = run("show", "alice.example", "--key", keys["ed448"], "--address", "192.0.2.1").output
    records: dict[str, list[str]] = {}
    for line in shown.splitlines():
        if not line.startswith(";"):
            _, _, _, rdtype, rdata = line.split(" ", 4)
            records.setdefault(rdtype, []).append(rdata)
    world.set("alice.example", records)
    result = check(world, "alice.example")
    assert result.exit_code == 0, result.output
    assert [line.split()[:2] for line in result.output.splitlines()[:3]] == [
        ["A", "secure"], ["AAAA", "denied"], ["IPSECKEY", "secure"],
    ]  # fmt: skip
    assert read_public(keys["ed448"]).fingerprint.hex(" ", 2) in result.output
    assert "bound: 1 address, 1 key" in result.output


def test_next_steps_lead_on(keys: dict[str, Path]) -> None:
    assert "hushwire dns check alice.example" in run("show", "alice.example", "--key", keys["ed25519"]).output


def test_check_says_what_is_ignored(world: SignedWorld) -> None:
    public = PrivateKey.generate(KeyKind.ED25519).public
    elsewhere = KeyRecord(5, IPv4Address("198.51.100.66"), public)
    world.publish("two.bob.example", [IPv4Address("192.0.2.4"), IPv4Address("192.0.2.5")], [elsewhere, public])
    result = check(world, "two.bob.example")
    assert result.exit_code == 0, result.output
    assert "ignored: gateway 198.51.100.66 is no address of the name" in result.output
    assert "bound: 2 addresses, 1 key" in result.output


def test_check_says_each_outcome(world: SignedWorld) -> None:
    public = PrivateKey.generate(KeyKind.ED25519).public
    world.publish("clear.bob.example", [IPv4Address("192.0.2.2")])
    world.publish("rebind.bob.example", [IPv6Address("::1")], [public])
    world.publish("www.unsigned.example", [IPv4Address("192.0.2.3")], [public])
    for name, outcome, reason in (
        ("clear.bob.example", "denied", "no IPSECKEY"),
        ("rebind.bob.example", "secure", "loopback"),
        ("www.unsigned.example", "insecure", "not signed"),
        ("bogus.example", "error", "bogus.example"),
    ):
        result = check(world, name)
        assert result.output.splitlines()[2].split()[:2] == ["IPSECKEY", outcome]
        assert reason in refused(result)


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (("--anchor", "/nonexistent"), "No such file"),
        (("--forward", "nonsense"), "'nonsense' is no address"),
        (("--forward", "dns.google@853#dns.google"), "'dns.google' is no address"),
        (("--forward", "dns.google@853#"), "'dns.google' is no address"),
        (("--forward", "9.9.9.9@x#dns.example"), "'9.9.9.9@x' has no port after its @"),
        (("--forward", "9.9.9.9@853#"), "is not a text"),
        (("--forward", "9.9.9.9@853#b..c"), "empty label"),
        (("--timeout", "0"), "range"),
    ],
)
def test_check_refuses(arguments: tuple[str, ...], reason: str) -> None:
    assert reason in refused(run("check", "alice.example", *arguments))


@pytest.mark.parametrize(
    ("said", "meant"),
    [
        ("9.9.9.9", "9.9.9.9@53"),
        ("9.9.9.9@5353", "9.9.9.9@5353"),
        ("2620:fe::fe#DNS.Quad9.net", "2620:fe::fe@853#dns.quad9.net"),
        ("127.0.0.1@8853#dns.example", "127.0.0.1@8853#dns.example"),
    ],
)
def test_a_resolver_is_said_as_in_the_configuration(said: str, meant: str) -> None:
    assert forward(said) == meant


@pytest.mark.parametrize("command", [noun, key])
def test_every_command_that_asks_a_resolver_reads_it_so(command: click.Group) -> None:
    asking = [option for each in command.commands.values() for option in each.params if option.name == "forward"]
    assert asking
    for option in asking:
        with pytest.raises(click.BadParameter, match="no port"):
            option.type.convert("9.9.9.9@x#y", option, None)
