"""strongSwan against itself with ESP in userspace, and tshark as the witness: the peer works before we do."""

import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace

import pytest

from hushwire.crypto.keys import KeyKind
from hushwire.crypto.secret import Secret
from hushwire.lab.capture import dissect
from hushwire.lab.frame import Kind
from hushwire.lab.medium import Rule
from hushwire.lab.namespaces import Topology, unprivileged
from hushwire.lab.peer import Mode, Proposal, eventually, introduced
from hushwire.lab.relay import Relay
from hushwire.lab.strongswan import Esp, StrongSwan, read_events
from hushwire.wire.registry import ExchangeType, PayloadType

AES_256_GCM = Proposal()


@contextmanager
def pair(
    kind: KeyKind | None = KeyKind.ED25519,
    *,
    version: int = 4,
    log_level: int = 1,
    proposal: Proposal = AES_256_GCM,
) -> Iterator[tuple[Topology, Relay, StrongSwan, StrongSwan]]:
    """alice and bob, each with a strongSwan."""
    with ExitStack() as stack:
        topology = stack.enter_context(Topology(("alice", "bob")))
        relay = stack.enter_context(Relay(topology))
        ends = introduced(
            topology["alice"], topology["bob"], kind, version=version, mode=Mode.TUNNEL, ike=proposal, esp=proposal
        )
        alice, bob = (
            stack.enter_context(StrongSwan(host, end, esp=Esp.USERSPACE, log_level=log_level))
            for host, end in zip(topology.hosts.values(), ends, strict=True)
        )
        yield topology, relay, alice, bob


def test_what_swanctl_prints_is_read() -> None:
    raw = "list-sa event {ike0 {a=1 empty= c {d {e=x.y}} list=[1/32 2/32] none=[] f=last}}\nlist-sas reply {}\n"
    assert read_events(raw) == [
        {"ike0": {"a": "1", "empty": "", "c": {"d": {"e": "x.y"}}, "list": ["1/32", "2/32"], "none": [], "f": "last"}}
    ]
    assert read_events("list-sas reply {}") == []


@pytest.mark.lab
@pytest.mark.parametrize("kind", [KeyKind.ED25519, KeyKind.ECDSA_P256, KeyKind.RSA, None], ids=str)
def test_traffic_is_encrypted_by_every_kind_of_key(kind: KeyKind | None) -> None:
    with pair(kind) as (topology, relay, alice, bob):
        before = relay.canary()
        assert topology["alice"].ping(topology["bob"], pattern=before)
        assert relay.report().seen(before) == 2
        in_clear = relay.report().count(Kind.CLEAR)

        alice.initiate()
        after = relay.canary()
        assert topology["alice"].ping(topology["bob"], pattern=after, count=3)
        report = relay.report()
        assert (report.seen(after), report.count(Kind.CLEAR)) == (0, in_clear)
        assert report.count(Kind.ESP, "alice") == report.count(Kind.ESP, "bob") == 3

        [ours], [theirs] = alice.sas(), bob.sas()
        assert (ours.state, ours.initiator, ours.remote_id) == ("ESTABLISHED", True, "bob.example")
        assert (theirs.initiator, theirs.remote_id) == (False, "alice.example")
        assert (ours.spi_i, ours.spi_r) == (theirs.spi_i, theirs.spi_r)
        [child], [other] = ours.children, theirs.children
        assert (child.spi_in, child.spi_out) == (other.spi_out, other.spi_in)
        assert (child.mode, child.packets_in, child.packets_out) == (Mode.TUNNEL, 3, 3)


@pytest.mark.lab
def test_all_of_it_without_privilege() -> None:
    nobody = ("setpriv", "--reuid=65534", "--regid=65534", "--clear-groups")
    inner = f"{__file__}::test_traffic_is_encrypted_by_every_kind_of_key[ed25519]"
    pytest_words = (sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", inner)
    done = subprocess.run([*nobody, *unprivileged(pytest_words)], capture_output=True, text=True, timeout=60)
    assert "1 passed" in done.stdout, done.stdout + done.stderr


@pytest.mark.lab
def test_ipv6() -> None:
    with pair(version=6) as (topology, relay, alice, _):
        alice.initiate()
        canary = relay.canary()
        assert topology["alice"].ping(topology["bob"], version=6, pattern=canary)
        report = relay.report()
        assert (report.seen(canary), report.count(Kind.CLEAR), report.count(Kind.ESP)) == (0, 0, 2)


@pytest.mark.lab
def test_rekeying_and_deletion() -> None:
    with pair() as (topology, relay, alice, bob):
        alice.initiate()
        [first] = alice.sas()
        alice.rekey_child()
        assert eventually(lambda: {child.spi_in for child in alice.sas()[0].children}.isdisjoint(
            child.spi_in for child in first.children
        ))  # fmt: skip
        bob.rekey_ike()
        assert eventually(lambda: [sa.spi_i for sa in alice.sas() if sa.state == "ESTABLISHED"] != [first.spi_i])
        assert topology["bob"].ping(topology["alice"], count=3)
        report = relay.report()
        assert report.count(Kind.CLEAR) == 0
        alice.terminate()
        assert eventually(lambda: not alice.sas() and not bob.sas())


@pytest.mark.lab
def test_what_the_relay_drops_is_sent_again() -> None:
    with pair() as (topology, relay, alice, _):
        relay.add(Rule(exchange=ExchangeType.IKE_AUTH, response=True, times=1, drop=True))
        alice.initiate()
        report = relay.report()
        assert report.dropped == 1
        assert (report.count(Kind.IKE, "alice"), report.count(Kind.IKE, "bob")) == (3, 3)
        assert topology["alice"].ping(topology["bob"])


@pytest.mark.lab
def test_a_wrong_key_is_refused() -> None:
    with Topology(("alice", "bob")) as topology, Relay(topology):
        ours, theirs = introduced(topology["alice"], topology["bob"], mode=Mode.TUNNEL)
        _, stranger = introduced(topology["alice"], topology["bob"], mode=Mode.TUNNEL)
        assert stranger.remote_key != theirs.remote_key
        with (
            StrongSwan(topology["alice"], ours, esp=Esp.USERSPACE) as alice,
            StrongSwan(topology["bob"], stranger, esp=Esp.USERSPACE) as bob,
        ):
            with pytest.raises(RuntimeError, match="AUTH_FAILED"):
                alice.initiate()
            assert alice.sas() == bob.sas() == []


@pytest.mark.lab
@pytest.mark.parametrize(
    "proposal",
    [
        Proposal("aes256gcm16"),
        Proposal("aes128gcm16", ke="ecp256"),
        Proposal("aes256", "sha256"),
        Proposal("aes128", "sha384"),
        Proposal("aes128", "sha512"),
    ],
    ids=lambda proposal: f"{proposal.encr}-{proposal.integ}",
)
def test_tshark_reads_what_it_has_the_keys_of_and_nothing_else(proposal: Proposal) -> None:
    with pair(log_level=4, proposal=proposal) as (topology, relay, alice, _):
        alice.initiate()
        assert topology["alice"].ping(topology["bob"], count=2)
        ike, esp = alice.decryption()
        relay.report()
        auth = f"isakmp.exchangetype == {ExchangeType.IKE_AUTH:d}"
        for row in dissect(relay.pcap, "isakmp.typepayload", show=auth, ike=ike):
            assert {f"{PayloadType.AUTH:d}", f"{PayloadType.SA:d}"} <= {*row["isakmp.typepayload"]}
        echoes = dissect(relay.pcap, "icmp.type", "esp.spi", show="icmp", esp=esp)
        assert [row["icmp.type"] for row in echoes] == [("8",), ("0",)] * 2
        assert echoes[0]["esp.spi"] == (f"0x{alice.sas()[0].children[0].spi_out:08x}",)

        # Without the keys, and with others, it sees neither.
        zero = Secret(bytes(len(ike[0].ei)))
        others = replace(ike[0], ei=zero, er=zero)
        for tables in ((), (others,)):
            rows = dissect(relay.pcap, "isakmp.typepayload", show=auth, ike=tables)
            assert len(rows) == 2
            assert all(f"{PayloadType.SA:d}" not in row["isakmp.typepayload"] for row in rows)
        wrong = [replace(sa, key=zero) for sa in esp]
        assert dissect(relay.pcap, "icmp.type", show="icmp") == []
        # What a wrong key makes of a packet is noise, and one in 256 has ICMP's number as its Next Header.
        noise = dissect(relay.pcap, "icmp.type", show="icmp", esp=wrong)
        assert not {("8",), ("0",)} & {row["icmp.type"] for row in noise}
