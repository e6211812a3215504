"""`hushwire why` at a Node: of synthetic addresses, what a packet would do is what it does."""

import json
from ipaddress import ip_address, ip_network
from typing import Any

import pytest

from hushwire.cli.why import lines
from hushwire.config import Addressing, Group, Rule
from hushwire.events import Answered, Lookup, Outcome, Verdict, Why
from hushwire.node.why import DS
from hushwire.policy.spd import Action

MANY = Rule("*.example", group=Group.PRIVATE, addressing=Addressing.SYNTHETIC)
REAL = Rule("*.example", group=Group.PRIVATE)
BOB = ip_address("192.0.2.2")
UNUSED = "198.18.0.99"
POOL_BLOCK = "no name's policy stands there, and the block of synthetic addresses is over every rule"


@pytest.fixture
def asking(make_net: Any) -> Any:
    """Alice with these rules, and Bob, who knows her by name.  No zone but the root is signed by its parent."""

    class Net(make_net):  # type: ignore[misc]
        def answer(self, question: Lookup) -> Answered:
            if question.rdtype == DS:
                return Answered(question.request, question.name, DS, Outcome.DENIED, ttl=self.ttl)
            answered: Answered = super().answer(question)
            return answered

    def make(*rules: Rule) -> Any:
        net = Net()
        net.host("alice", *rules)
        net.host("bob", Rule("alice.example"))
        net.start()
        return net

    return make


def why(net: Any, subject: str) -> tuple[dict[str, Any], list[str]]:
    """As JSON, and the lines that a person reads."""
    reply = net.ask(net.hosts["alice"], Why, subject)
    assert reply.ok, reply.text
    told: dict[str, Any] = json.loads(reply.body)
    return told, list(lines(told))


def test_a_synthetic_address_is_explained_by_its_name(asking: Any) -> None:
    net = asking(MANY)
    alice, key = net.hosts["alice"], net.hosts["bob"].key.public.fingerprint.hex()
    (made,) = net.told(alice, "bob.example").addresses
    told, text = why(net, str(made))
    assert told["packets"] == [
        {
            "to": str(made),
            "synthetic": {"name": "bob.example", "address": str(BOB)},
            "fate": "protected, named",
            "because": f"the policy of bob.example, and its SA with {BOB}:500",
        }
    ]
    assert told["subject"] == str(made)
    assert told["programs"] is None
    assert (told["rule"]["number"], told["rule"]["addressing"]) == (1, "synthetic")
    assert told["bound"]["addresses"] == [str(BOB)]
    assert {answer["name"] for answer in told["dns"]} == {"bob.example", "_500._udp.bob.example"}
    assert [link["zone"] for link in told["chain"]] == ["example", "bob.example"]
    assert told["peer"]["peer"] == "bob.example"
    assert text[0] == (
        f"A packet to {made} (synthetic: bob.example at {BOB}) is protected, named: "
        f"the policy of bob.example, and its SA with {BOB}:500."
    )
    assert "rule     1: named, else block, private; everything" in text
    assert f"key      ed25519 {key}, by DNSSEC for bob.example" in text
    assert any(line.startswith(f"sa       named with {BOB}:500, ") for line in text)
    # By name the same is said of it, and of the real address that it is none.
    of_name, _ = why(net, "bob.example")
    fates = {packet["to"]: packet for packet in of_name["packets"]}
    assert fates[str(made)] == told["packets"][0]
    assert fates[str(BOB)]["synthetic"] is None
    assert of_name["programs"] == str(made)


@pytest.mark.parametrize("wide", [(), (Rule(ip_network("0.0.0.0/0"), below=Action.CLEAR),)])
def test_one_that_nobody_has_is_dropped(asking: Any, wide: tuple[Rule, ...]) -> None:
    """Whatever a rule about all addresses says.  The control: where no rule is synthetic it is one like any other."""
    told, text = why(asking(MANY, *wide), UNUSED)
    assert told["packets"] == [{"to": UNUSED, "synthetic": None, "fate": "dropped", "because": POOL_BLOCK}]
    assert text[0] == f"A packet to {UNUSED} is dropped: {POOL_BLOCK}."
    assert why(asking(MANY, *wide), "198.51.100.99")[0]["packets"][0]["fate"] == "in clear"
    assert why(asking(REAL, *wide), UNUSED)[0]["packets"][0]["fate"] == "in clear"


def test_the_pool_of_ipv6(asking: Any) -> None:
    net = asking(MANY)
    assert why(net, "fd68:7773:6877:1::99")[0]["packets"][0]["fate"] == "dropped"
    assert why(net, "fd68:7773:6877:2::99")[0]["packets"][0]["fate"] == "in clear"


def test_one_whose_name_proved_nothing(asking: Any) -> None:
    """It was made, told to nobody, and no policy stands for it."""
    net = asking(MANY)
    alice = net.hosts["alice"]
    net.zone["mute.example"] = (ip_address("192.0.2.77"),), (net.hosts["bob"].key.public,)
    assert net.told(alice, "mute.example", patience=60).addresses == ()
    (made,) = alice.node.peers.by_name("mute.example").synthetic.values()
    (packet,) = why(net, str(made))[0]["packets"]
    assert packet["synthetic"] == {"name": "mute.example", "address": "192.0.2.77"}
    assert (packet["fate"], packet["because"]) == ("dropped", POOL_BLOCK)


def test_what_was_given_back_stands_for_nobody(asking: Any) -> None:
    net = asking(MANY)
    alice = net.hosts["alice"]
    (made,) = net.told(alice, "bob.example").addresses
    net.wait(2 * 3660)
    assert alice.node.peers.by_name("bob.example") is None
    told, _ = why(net, str(made))
    assert (told["packets"][0]["synthetic"], told["packets"][0]["fate"]) == (None, "dropped")


def test_that_of_an_aliass_target_has_the_aliass_rule(asking: Any) -> None:
    """No rule speaks of the target by itself."""
    net = asking(Rule("*.test", group=Group.PRIVATE, addressing=Addressing.SYNTHETIC))
    net.aliases["www.test"] = "bob.example"
    (made,) = net.told(net.hosts["alice"], "www.test").addresses
    told, text = why(net, str(made))
    assert told["packets"][0]["synthetic"] == {"name": "bob.example", "address": str(BOB)}
    assert told["rule"]["addressing"] == "synthetic"
    assert "rule     an alias's: named, else block, private; everything" in text


@pytest.mark.parametrize("ruled", [True, False])
def test_of_an_alias_the_host_that_it_leads_to_is_told(asking: Any, ruled: bool) -> None:
    net = asking(Rule("*.example"), *([Rule("*.test")] if ruled else []))
    alice = net.hosts["alice"]
    net.aliases["www.test"] = "bob.example"
    net.zone["www.test"] = net.zone["bob.example"]
    assert net.told(alice, "bob.example").verdict is Verdict.ONLY
    told, _ = why(net, "www.test")
    assert told["programs"] == "192.0.2.2"
    assert told["rule"]["number"] == (2 if ruled else 1)
    assert told["peer"]["peer"] == "bob.example"


def test_of_an_alias_that_leads_to_what_may_not_be_clear_the_refusal_is_told(asking: Any) -> None:
    net = asking(Rule("*.test", below=Action.CLEAR), Rule("*.example"))
    net.aliases["www.test"] = "bob.example"
    net.zone["www.test"] = net.zone["bob.example"] = ((BOB,), ())
    assert net.told(net.hosts["alice"], "www.test").verdict is Verdict.REFUSE
    told, _ = why(net, "www.test")
    assert told["programs"].startswith("SERVFAIL")
