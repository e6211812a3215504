"""What becomes of packets, for all that the DNS may say, by all the classical groups, at both ends: docs/matrix.md.

Each cell is what real Nodes did.  After a change that is meant, write the document anew:

    HUSHWIRE_WRITE=1 .venv/bin/pytest tests/node/test_matrix.py
"""

import os
from collections.abc import Callable
from functools import cache
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import pytest

from hushwire.config import Group, Rule, parse
from hushwire.crypto.keys import PrivateKey
from hushwire.crypto.secret import Secret
from hushwire.events import Outcome, Verdict
from hushwire.names import binding, reverse
from hushwire.names.ipseckey import IPSECKEY
from hushwire.names.tlsa import TLSA
from hushwire.node.base import base_policies
from hushwire.node.peer import Peer
from hushwire.policy.spd import Action

DOCUMENT = Path(__file__).parents[2] / "docs" / "matrix.md"
ALICE, BOB = map(ip_address, ("192.0.2.1", "192.0.2.2"))
KEY = {name: PrivateKey.from_seed(Secret(name.encode().ljust(32))) for name in ("alice", "bob", "other")}

GROUPS = tuple(group.value for group in (
    Group.PRIVATE, Group.PRIVATE_OR_CLEAR, Group.CLEAR_OR_PRIVATE, Group.CLEAR, Group.BLOCK
))  # fmt: skip
UNPROVED = "a secure key, and nobody proves it"
ROWS = {
    "a secure key, proved": Outcome.SECURE,
    UNPROVED: Outcome.SECURE,
    "securely none": Outcome.DENIED,
    "insecure": Outcome.INSECURE,
    "bogus": Outcome.ERROR,
    "a time-out": None,
}
"""What the DNS says of the peer's key."""

PREFACE = """# What becomes of packets

For everything that the DNS may say of a peer's key, and each of the classical groups that a rule may name. Written by
`tests/node/test_matrix.py`, which lets two Nodes talk and looks; a change of the code that changes a cell fails there.

| word | means |
| --- | --- |
| protected | packets go in ESP, to somebody who proved the peer's key; nothing goes before that |
| clear | packets go as they would without hushwire |
| SERVFAIL | the program that asks for the name is told of no address, so it sends nothing |
| dropped | packets are held for some seconds, and never sent |
| refused | the peer that claims to be somebody gets AUTHENTICATION_FAILED, and no SA |
| no answer | it gets no SA, and no word either: by the time that we give up on the DNS, its attempt is over for us |

Where a peer claims to be somebody and fails, what follows is what becomes of our own packets to the address that it
spoke from: who is refused is a stranger there, and only a rule about that address, or about a name that is known to
have it, closes it.

What the DNS says: *a secure key* was validated, and the peer that is there proves it, or nobody does. *Securely none*:
it is signed that there is no key. *Insecure*: it is signed that the zone is not. *Bogus*: what came does not validate.
*A time-out*: nothing came, not even an error. Except where nobody proves it, the holder of the key is there in every
row. A level that was reached once is remembered: where a cell says "clear", it is then "SERVFAIL", or for an address in
use "dropped". With clear-or-private we do not begin, so a program's question asks for no key.
"""


# --- how a cell is found out ---


def rule(peer: str, group: str) -> Rule:
    """As a configuration file has it."""
    return parse(f'[host]\nname = "x.example"\n[[rule]]\npeer = "{peer}"\ngroup = "{group}"\n', "matrix").rules[0]


def arrange(net: Any, name: str, row: str) -> None:
    """Have the DNS say of a name what the row says."""
    outcome = ROWS[row]
    if outcome is None:
        net.silent.add(name)
    elif outcome is not Outcome.SECURE:
        net.of_type |= {(name, rdtype): outcome for rdtype in (IPSECKEY, TLSA)}


def stage(make_net: Any, group: str, row: str, about: str, name: str, peer: str = "alice.example") -> Any:
    """Alice with a rule; and Bob, whose own is about her.  Where nobody proves the key, he holds another."""
    net = make_net()
    net.zone["bob.example"] = ((BOB,), (KEY["bob"].public,))
    net.zone[BOB.reverse_pointer] = ((), (KEY["bob"].public,))
    net.zone[ALICE.reverse_pointer] = ((), (KEY["alice"].public,))
    arrange(net, name, row)
    alice = net.host("alice", rule(about, group), ask=("*.example",) if about.startswith("*") else ())
    net.host("bob", rule(peer, "private"), key="other" if row == UNPROVED else "bob")
    # What the parent has installed before the Node begins.
    alice.spd |= {(p.selector, p.direction): p for p in base_policies(alice.node._config)}
    net.start()
    return net


def fate(net: Any, host: Any, remote: Any) -> str:
    return {Action.PROTECT: "protected", Action.CLEAR: "clear", Action.BLOCK: "dropped"}[net.fate(host, remote, 40)]


def program_asks(about: str, make_net: Any, group: str, row: str) -> str:
    net = stage(make_net, group, row, about, "bob.example")
    alice = net.hosts["alice"]
    release = net.told(alice, "bob.example")
    if release.verdict is Verdict.REFUSE:
        return "SERVFAIL"
    return fate(net, alice, BOB)


def packet_leaves(make_net: Any, group: str, row: str) -> str:
    net = stage(make_net, group, row, "192.0.2.0/24", BOB.reverse_pointer, "192.0.2.0/24")
    return fate(net, net.hosts["alice"], BOB)


def peer_claims(about: str, make_net: Any, group: str, row: str) -> str:
    """What the claim comes to, and then what becomes of our own packets."""
    names = (BOB.reverse_pointer, "192.0.2.0/24") if about[0].isdigit() else ("bob.example", "alice.example")
    net = stage(make_net, group, row, about, *names)
    alice, bob = net.hosts["alice"], net.hosts["bob"]
    if net.fate(bob, ALICE, 3) is Action.PROTECT:
        return fate(net, alice, BOB)
    net.wait(25)
    assert not {**alice.sad, **bob.sad}
    (heard,) = {HEARD[failure["reason"].split()[0]] for failure in bob.about("peer.failed")}
    return f"{heard}, {fate(net, alice, BOB)}"


HEARD = {"AUTHENTICATION_FAILED:": "refused", "no": "no answer"}
"""What the peer heard of us, by the first word of why its attempt failed."""

TABLES: dict[str, tuple[str, Callable[..., str]]] = {
    "A program asks for a name": (
        'The rule is about many names (`peer = "*.example"`); the listener asks.',
        lambda *of: program_asks("*.example", *of),
    ),
    "A program asks for a name that a rule is about alone": (
        '`peer = "bob.example"`. Its policies stand as soon as its address is known, and not only when it has proved '
        "its key: so where nothing may be clear, a program gets the address, and its packets wait.",
        lambda *of: program_asks("bob.example", *of),
    ),
    "A packet leaves for an address": (
        'No name was asked for: the rule is about a prefix (`peer = "192.0.2.0/24"`), and the key is looked for in the '
        "address's reverse zone.",
        packet_leaves,
    ),
    "A peer claims a name": (
        "We are who is spoken to. The rule is about many names, and `dns.ask` allows to look them up.",
        lambda *of: peer_claims("*.example", *of),
    ),
    "A peer claims a name that a rule is about alone": (
        '`peer = "bob.example"`; `dns.ask` need not name it.',
        lambda *of: peer_claims("bob.example", *of),
    ),
    "A peer claims its address": (
        "The rule is about the prefix that it is in, and the key is looked for in the address's reverse zone.",
        lambda *of: peer_claims("192.0.2.0/24", *of),
    ),
}


@cache
def cells(make_net: Any, title: str) -> dict[tuple[str, str], str]:
    run = TABLES[title][1]
    return {(row, group): run(make_net, group, row) for row in ROWS for group in GROUPS}


def table(make_net: Any, title: str) -> str:
    found = cells(make_net, title)
    lines = [
        f"| the DNS says | {' | '.join(GROUPS)} |",
        "| --- |" + " --- |" * len(GROUPS),
        *(f"| {row} | {' | '.join(found[row, group] for group in GROUPS)} |" for row in ROWS),
    ]
    return "\n".join(lines)


def document(make_net: Any) -> str:
    parts = [f"## {title}\n\n{about}\n\n{table(make_net, title)}\n" for title, (about, _) in TABLES.items()]
    return "\n".join((PREFACE, *parts))


def test_the_document_is_what_nodes_do(make_net: Any) -> None:
    written = document(make_net)
    if os.environ.get("HUSHWIRE_WRITE"):
        DOCUMENT.write_text(written)
    assert DOCUMENT.read_text() == written


# --- controls: what cells would be without their guards ---


@pytest.mark.parametrize("title", TABLES)
@pytest.mark.parametrize("group", ["private", "private-or-clear"])
def test_control_of_insecure(make_net: Any, title: str, group: str, monkeypatch: Any) -> None:
    """The answer has the key, and its holder is there: only that it must be signed stands between them and us."""
    run = TABLES[title][1]
    guarded = run(make_net, group, "insecure")
    monkeypatch.setattr(binding, "_signed", lambda answer: answer.rdata if answer is not None else ())
    for module in (binding, reverse):
        monkeypatch.setattr(module, "require_known", lambda *_: None)
    assert guarded != "protected"
    assert run(make_net, group, "insecure") == "protected"


@pytest.mark.parametrize("title", TABLES)
def test_control_of_nobody_proves_it(make_net: Any, title: str, monkeypatch: Any) -> None:
    """He who is there holds another key: only that it must be the signed one stands between him and us."""
    run = TABLES[title][1]
    guarded = run(make_net, "private", UNPROVED)
    monkeypatch.setattr(Peer, "keys_at", lambda *_: tuple(key.public for key in KEY.values()))
    assert guarded != "protected"
    assert run(make_net, "private", UNPROVED) == "protected"


@pytest.mark.parametrize("row", ["bogus", "a time-out"])
def test_control_of_an_error(make_net: Any, row: str, monkeypatch: Any) -> None:
    """Where clear is permitted, only that an error is no denial stands between a packet and the wire."""
    monkeypatch.setattr(Peer, "known", property(lambda _: True))
    assert packet_leaves(make_net, "private-or-clear", row) == "clear"
