"""`hushwire why` on hosts of the lab: for every way that a name or an address can be, in JSON and as people read it."""

import json
import os
import sys
from collections.abc import Iterator
from subprocess import CompletedProcess
from typing import Any

import pytest
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from hushwire.crypto.keys import KeyKind, PrivateKey
from hushwire.lab.peer import eventually
from hushwire.lab.story import Story

pytestmark = pytest.mark.lab

EVIL = PrivateKey.generate(KeyKind.ED25519)
ALICE = "".join(
    f'[[rule]]\npeer = "{peer}"\ngroup = "{group}"\n'
    for peer, group in (
        ("*.example", "private-or-clear"), ("bob.example", "private"), ("secret.example", "private"),
        ("blocked.example", "block"), ("198.51.100.0/24", "private"),
        ("198.51.100.9/32", "clear"), ("198.51.100.10/32", "block"), ("203.0.113.0/24", "private-or-clear"),
    )
)  # fmt: skip
PINNED = """
[[rule]]
peer = "carol.example"
address = "192.0.2.3"
key = "{folder}/carol.pem"
[[rule]]
peer = "dave.example"
address = "192.0.2.4"
psk = "{folder}/dave.psk"
"""


@pytest.fixture(scope="module")
def story() -> Iterator[Story]:
    """Bob is reached; evil.example has his address and a key of its own, and was refused."""
    with Story("alice", "bob", plane="userspace") as story:
        bob = story["bob"]
        daemon = story.hire("alice", ALICE + PINNED, dns='listen = ["127.0.0.153"]', start=False)
        pem = EVIL.public.key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
        (daemon.folder / "carol.pem").write_bytes(pem)
        (daemon.folder / "dave.psk").touch(0o600)
        (daemon.folder / "dave.psk").write_bytes(os.urandom(32))
        story.hire("bob", '[[rule]]\npeer = "alice.example"\ngroup = "private"\n')
        story.world.publish("evil.example", [bob.v4], [EVIL.public])
        story.world.publish("www.unsigned.example", [bob.v4], [EVIL.public])
        for name in ("plain.example", "secret.example"):
            story.world.publish(name, [bob.v4])
        story.start("alice")
        for version in (4, 6):
            assert eventually(lambda v=version: story["alice"].ping(bob, version=v), 40), story.log()
        assert "SERVFAIL" in story.program(story["alice"], "kdig", "+timeout=9", "evil.example", "A").stdout
        yield story


def command(story: Story, *words: str) -> CompletedProcess[str]:
    control = str(story.daemons["alice"].control)
    return story["alice"].run(sys.executable, "-m", "hushwire", "why", "--control", control, *words, check=False)


def why(story: Story, subject: str) -> tuple[dict[str, Any], str]:
    """As JSON, and as text."""
    machine, person = command(story, subject, "--json"), command(story, subject)
    assert machine.returncode == person.returncode == 0, machine.stderr + person.stderr
    told: dict[str, Any] = json.loads(machine.stdout)
    return told, person.stdout


def outcomes(told: dict[str, Any]) -> dict[str, str]:
    """Of every answer, by type."""
    return {answer["type"]: answer["outcome"] for answer in told["dns"]}


def chain(told: dict[str, Any]) -> list[tuple[str, str]]:
    return [(link["zone"], link["outcome"]) for link in told["chain"] if link["decides"]]


def test_named_and_protected(story: Story) -> None:
    bob, key = story["bob"], story.daemons["bob"].key.public.fingerprint.hex()
    told, text = why(story, "bob.example")
    assert (told["rule"]["number"], told["rule"]["require"], told["rule"]["below"]) == (2, "named", "block")
    assert [each["fingerprint"] for each in told["bound"]["keys"]] == [key]
    assert outcomes(told) == {"A": "secure", "AAAA": "secure", "IPSECKEY": "secure", "TLSA": "denied"}
    assert chain(told) == [("example", "secure"), ("bob.example", "secure")]
    assert {packet["to"]: packet["fate"] for packet in told["packets"]} == {
        str(bob.v4): "protected, named", str(bob.v6): "protected, named",
    }  # fmt: skip
    assert told["programs"] == f"{bob.v6}, {bob.v4}"
    assert {sa["key"] for sa in told["peer"]["ike"]} == {key}
    assert f"A packet to {bob.v4} is protected, named: the policy of bob.example, and its SA with {bob.v4}:" in text
    assert f"A packet to {bob.v6} is protected, named: the policy of bob.example, and its SA with [{bob.v6}]:" in text
    assert f"key      ed25519 {key}, by DNSSEC for bob.example\n" in text
    assert f"sa       named with {bob.v4}:" in text
    assert "chain    bob.example: secure, its parent vouches for its key\n" in text


@pytest.mark.parametrize("spelling", ["bob.example.", "BOB.Example"])
def test_a_name_in_another_spelling(story: Story, spelling: str) -> None:
    told, _ = why(story, spelling)
    assert told["subject"] == "bob.example"
    assert told["peer"]["level"] == "named"


@pytest.mark.parametrize(
    ("name", "number", "programs"),
    [
        ("plain.example", 1, "whatever the DNS says"),
        ("secret.example", 3, "SERVFAIL: secret.example: no IPSECKEY record and no TLSA, and that is signed"),
    ],
)
def test_securely_none(story: Story, name: str, number: int, programs: str) -> None:
    told, text = why(story, name)
    assert told["rule"]["number"] == number
    assert told["bound"]["outcome"] == "denied"
    assert told["programs"] == programs
    assert outcomes(told) == {"A": "secure", "AAAA": "denied", "IPSECKEY": "denied", "TLSA": "denied"}
    assert "key      none to be had: denied, no IPSECKEY record and no TLSA, and that is signed\n" in text
    assert f"A program that asks for it gets {programs}.\n" in text


def test_bogus(story: Story) -> None:
    """Even where the rule permits clear."""
    told, text = why(story, "bogus.example")
    assert told["rule"]["below"] == "clear"
    assert told["bound"]["outcome"] == "error"
    assert set(outcomes(told).values()) == {"error"}
    assert told["programs"].startswith("SERVFAIL: bogus.example: A: no answer (validation failure")
    assert told["packets"] == []
    assert "No packet is known to go to bogus.example.\n" in text
    assert "signature verification failed" in text


def test_not_signed(story: Story) -> None:
    told, text = why(story, "www.unsigned.example")
    assert told["bound"] == {"outcome": "insecure", "reason": "A: not signed"}
    assert chain(told) == [("example", "secure"), ("unsigned.example", "denied")]
    assert told["programs"] == "whatever the DNS says"
    assert "chain    unsigned.example: denied, its parent says that it is not signed\n" in text


def test_a_second_name_at_an_address_that_is_anothers(story: Story) -> None:
    told, text = why(story, "evil.example")
    assert told["bound"]["keys"] == [{"kind": "ed25519", "fingerprint": EVIL.public.fingerprint.hex()}]
    (packet,) = told["packets"]
    assert packet["because"].startswith("the policy of bob.example")
    assert told["peer"]["ike"] == []
    assert told["rule"]["addressing"] == "real"
    why_not = "(the last time: AUTHENTICATION_FAILED: the peer is bob.example, not evil.example)"
    assert f"A program that asks for it gets its addresses if it proves its key {why_not}.\n" in text
    assert "the peer is bob.example, not evil.example" in told["peer"]["last_failure"]
    assert "failed   AUTHENTICATION_FAILED: the peer is bob.example, not evil.example\n" in text


def test_rules_that_block_and_no_rule(story: Story) -> None:
    told, text = why(story, "blocked.example")
    assert told["rule"]["number"] == 4
    assert told["programs"] == "SERVFAIL: a rule blocks it"
    assert "rule     4: named, else block, block; everything\n" in text
    told, text = why(story, "example")
    assert told["rule"] is None
    assert told["programs"] == "whatever the DNS says: no rule wants its packets protected"
    assert "rule     none speaks of it\n" in text
    # Of its own name a host asks nothing but the DNS.
    assert why(story, "alice.example")[0]["programs"] == told["programs"]


@pytest.mark.parametrize(
    ("name", "address", "pinned"),
    [
        ("carol.example", "192.0.2.3", f"ed25519 {EVIL.public.fingerprint.hex()}"),
        ("dave.example", "192.0.2.4", "a shared key"),
    ],
    ids=["pinned", "shared"],
)
def test_keys_that_the_configuration_gives(story: Story, name: str, address: str, pinned: str) -> None:
    told, text = why(story, name)
    assert told["pinned"] == pinned
    assert [packet["to"] for packet in told["packets"]] == [address]
    assert told["rule"]["require"] == "trusted"
    assert f"key      {pinned}, by the configuration, whatever the DNS says\n" in text
    assert f"A packet to {address} is held: the policy of {name}, until there is an SA: none was needed yet.\n" in text


def test_addresses(story: Story) -> None:
    bob = story["bob"]
    told, text = why(story, str(bob.v4))
    assert told["peer"]["peer"] == "bob.example"
    assert told["programs"] is None
    assert f"A packet to {bob.v4} is protected, named: the policy of bob.example, and its SA with {bob.v4}:" in text
    told, text = why(story, "198.51.100.7")
    (packet,) = told["packets"]
    assert packet["fate"] == "held"
    assert told["rule"]["number"] == 5
    assert "until there is an SA: 7.100.51.198.in-addr.arpa: no IPSECKEY record, and that is signed." in text
    for address, fate in (
        ("198.51.100.9", "in clear: a rule about its address permits that"),
        ("198.51.100.10", "dropped: a rule about its address blocks it"),
        ("203.0.113.9", "in clear: the policy of 203.0.113.0/24 permits that: 9.113.0.203.in-addr.arpa: no IPSECKEY"),
        ("192.0.2.77", "in clear: no policy of ours speaks of it"),
    ):
        assert f"A packet to {address} is {fate}" in why(story, address)[1]
    # Thirty-four names are above this one; those where no zone begins say nothing.
    assert len([line for line in why(story, "2001:db8::77")[1].splitlines() if line.startswith("chain")]) == 1


@pytest.mark.parametrize(
    "subject", ["not a name", "..", "192.0.2.0/24", "1.2.3", "fe80::1%eth0", "", "x" * 300, "a\nb"]
)
def test_what_is_neither_name_nor_address(story: Story, subject: str) -> None:
    done = command(story, "--", subject)
    assert done.returncode == 1
    assert done.stdout == ""
    (line,) = done.stderr.splitlines()
    assert "is no host name" in line
    assert line.endswith("; give a name or an address")
