"""What comes out of an SA meets the host's own packet filter, as if it had come plainly (ATTACKS row 56, RFC 7619 s3).

The filter is nftables' or, in a kernel without that, iptables'.  It belongs to the administrator: hushwire has never
heard of it.
"""

import os
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from hushwire.lab import uml
from hushwire.lab.namespaces import Host
from hushwire.lab.peer import eventually
from hushwire.lab.story import Story

PLANE = os.environ.get("HUSHWIRE_PLANE", "userspace")
WITHIN = "hushwire0" if PLANE == "userspace" else "eth0"
"""The interface that packets come from when they have been opened."""


@dataclass(frozen=True, slots=True)
class Rule:
    """Of the input: what is said about packets of a protocol, to or from a port, of an interface."""

    verdict: str
    protocol: str
    to: int = 0
    of: int = 0
    interface: str = ""

    def nft(self) -> str:
        ports = [f"{self.protocol} {end} {port}" for end, port in (("dport", self.to), ("sport", self.of)) if port]
        interface = f'iifname "{self.interface}"' if self.interface else ""
        return " ".join([interface, *(ports or [f"ip protocol {self.protocol}"]), self.verdict])

    def iptables(self) -> list[str]:
        words = ["-p", self.protocol]
        for option, value in (("--dport", self.to), ("--sport", self.of), ("-i", self.interface)):
            words += [option, str(value)] if value else []
        return [*words, "-j", self.verdict.upper()]


OUTSIDE = (
    Rule("accept", "udp", to=500), Rule("accept", "udp", to=4500), Rule("accept", "udp", of=53),
    *([Rule("accept", "esp")] if PLANE == "kernel" else []),
)  # fmt: skip
"""What hushwire needs of the input: IKE, ESP, and the answers of the DNS."""
LOOPBACK = (Rule("accept", "tcp", interface="lo"), Rule("accept", "udp", interface="lo"))
WEB = Rule("accept", "tcp", to=80)


def filter_input(host: Host, *rules: Rule, default: str = "accept") -> None:
    """These rules, in place of those before."""
    if PLANE == "kernel":
        host.run("iptables-legacy", "-F", "INPUT")
        host.run("iptables-legacy", "-P", "INPUT", default.upper())
        for rule in rules:
            host.run("iptables-legacy", "-A", "INPUT", *rule.iptables())
        return
    chain = f"add chain ip office input {{ type filter hook input priority 0; policy {default}; }}"
    added = [f"add rule ip office input {rule.nft()}" for rule in rules]
    host.run("nft", "; ".join(["add table ip office", chain, "flush chain ip office input", *added]))


@pytest.fixture
def story() -> Iterator[Story]:
    with Story("alice", "bob", plane=PLANE) as story:
        yield story


@pytest.mark.lab
def test_row_56_the_packet_filter_counts(story: Story) -> None:
    """For strangers; the filter lets in what hushwire needs, and of what that opens nothing but the web."""
    alice, bob = story["alice"], story["bob"]
    rules = (
        f'[[rule]]\npeer = "{story["dns"].v4}"\ngroup = "clear"\n'
        '[[rule]]\npeer = "192.0.2.0/24"\nrequire = "encrypted"\nbelow = "block"\n'
    )
    for name in ("alice", "bob"):
        story.hire(name, rules, publish=False)
    pages = story.serve_web(bob)
    canaries: list[str] = []

    def gets(limit: float) -> bool:
        fetched, carried = story.curl(alice, str(bob.v4), pages, limit=limit)
        canaries.extend(carried)
        return fetched

    filter_input(bob, *OUTSIDE, *LOOPBACK, default="drop")
    assert not gets(3), story.log()
    # What was dropped was opened: they have met, and are protected.
    assert eventually(lambda: story.peer("bob", str(alice.v4))["level"] == "encrypted"), story.log()
    assert not alice.ping(bob, timeout=1)
    # The control: what is let in arrives.
    filter_input(bob, *OUTSIDE, *LOOPBACK, WEB, default="drop")
    assert gets(15), story.log()

    filter_input(bob, Rule("drop", "tcp", to=80, interface=WITHIN))
    assert not gets(2), story.log()
    assert alice.ping(bob)
    if PLANE == "userspace":
        # What is said of eth0 is said of the ESP alone.
        filter_input(bob, Rule("drop", "tcp", to=80, interface="eth0"))
        assert gets(15), story.log()
    assert story.seen(canaries) == 0


@pytest.mark.uml
def test_with_the_kernel_plane() -> None:
    assert uml.lab_tests(__file__).returncode == 0
