"""Keys too big for the DNS: it has their SHA-256 alone (TLSA 3 1 1), and the hosts send each other the keys in IKE."""

from collections.abc import Iterator

import pytest
from cryptography.hazmat.primitives.asymmetric.rsa import generate_private_key

from hushwire.crypto.keys import KeyKind, PrivateKey, PublicKey
from hushwire.lab.story import Story

PEERS = {"alice": "bob", "bob": "alice"}


@pytest.fixture(scope="module")
def keys() -> dict[str, PrivateKey]:
    return {"alice": PrivateKey(generate_private_key(65537, 4096)), "bob": PrivateKey.generate(KeyKind.ECDSA_P521)}


@pytest.fixture
def story(keys: dict[str, PrivateKey]) -> Iterator[Story]:
    """Bob may ask for whoever says that she is alice; neither knows more of the other than a name."""
    with Story("alice", "bob") as story:
        for name, key in keys.items():
            rules = f'[[rule]]\npeer = "{PEERS[name]}.example"\ngroup = "private"\n'
            story.hire(name, rules, publish=False, start=False, key=key)
            story.world.publish(f"{name}.example", [story[name].v4, story[name].v6])
            publish_digest(story, name, key.public)
        yield story


@pytest.mark.lab
def test_keys_that_only_their_digests_are_published_of(story: Story) -> None:
    start(story)
    pages = story.serve_web(story["bob"])
    for version in (4, 6):
        fetched, canaries = story.curl(story["alice"], "bob.example", pages, version=version, server=dns(story))
        assert fetched, story.log()
        assert story.seen(canaries) == 0
    for name, peer in PEERS.items():
        assert story.peer(name, f"{peer}.example")["level"] == "named"
        assert (
            story.program(story["dns"], "kdig", "+short", f"{name}.example", "IPSECKEY", server=dns(story)).stdout == ""
        )


@pytest.mark.lab
@pytest.mark.parametrize("whose", PEERS)
def test_another_keys_digest(story: Story, whose: str) -> None:
    """The control: whoever has the right key of the wrong name, or the wrong key of the right name, is nobody."""
    publish_digest(story, whose, PrivateKey.generate(KeyKind.ECDSA_P521).public)
    start(story)
    pages = story.serve_web(story["bob"])
    for version in (4, 6):
        fetched, canaries = story.curl(
            story["alice"], "bob.example", pages, version=version, server=dns(story), limit=3
        )
        assert not fetched
        assert story.seen(canaries) == 0
    assert "AUTHENTICATION_FAILED" in story.log()


def publish_digest(story: Story, name: str, key: PublicKey) -> None:
    story.world.set(f"_500._udp.{name}.example", {"TLSA": [f"3 1 1 {key.fingerprint.hex()}"]})


def start(story: Story) -> None:
    for name in PEERS:
        story.start(name)


def dns(story: Story) -> str:
    return str(story["dns"].v4)
