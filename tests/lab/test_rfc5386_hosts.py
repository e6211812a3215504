"""The example network of RFC 5386 section 3: who speaks with whom, as whom, and who is rejected.

Rules stand for the figures' PAD and SPD as far as they can (docs/strangers.md); [A] and [B] are addresses of their
gateways.
"""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from hushwire.daemon.control import ask
from hushwire.lab import uml
from hushwire.lab.hushwire import START
from hushwire.lab.peer import eventually
from hushwire.lab.stage import CURL
from hushwire.lab.story import Story

PLANE = os.environ.get("HUSHWIRE_PLANE", "userspace")
A, A_NET = "198.51.100.1", "198.51.100.0/24"
B, OTHER_B, B_NET = "203.0.113.1", "203.0.113.2", "203.0.113.0/24"
NFS = 2049
HOSTS = ("sg-a", "sg-b", "q", "r", "btns-c", "btns-d", "mallory")


def clear(*addresses: str) -> str:
    """BYPASS."""
    return "".join(f'[[rule]]\npeer = "{address}"\ngroup = "clear"\n' for address in addresses)


def tunnel(name: str, local: str, remote: str) -> str:
    """A non-BTNS entry of the PAD, by the name's key in the DNS, and PROTECT in a tunnel."""
    networks = f'local-networks = ["{local}"]\nremote-networks = ["{remote}"]\n'
    return f'[[rule]]\npeer = "{name}.example"\nmode = "tunnel"\n{networks}'


def wildcard(more: str = "") -> str:
    """PUBLICKEY:any, and PROTECT with BTNS_OK in transport mode."""
    return f'[[rule]]\npeer = "0.0.0.0/0"\nrequire = "encrypted"\n{more}'


class Network(Story):
    """Figure 1 and a rogue, mallory; and what they say to each other.

    Of strangers in one /24 a host takes three new ones a minute (`names.allow`), and there are no more here.
    """

    def __init__(self) -> None:
        super().__init__(*HOSTS, plane=PLANE)

    def at(self, name: str) -> str:
        return str(self[name].v4)

    def rules(self, name: str, btns: bool = True) -> str:
        """Figures 2 to 7; without `btns`, as section 3.4 has them."""
        served, used = f'protocol = "tcp"\nlocal-port = {NFS}\n', f'protocol = "tcp"\nremote-port = {NFS}\n'
        q, r = self.at("q"), self.at("r")
        own = {
            "sg-a": clear(r) + tunnel("sg-b", A, B_NET) + tunnel("q", A, q),
            "q": tunnel("sg-a", q, A),
            "sg-b": tunnel("sg-a", B_NET, A),
        }
        said = 'own-identity = "whoever.example"\n' if name == "q" else ""
        strangers = {"sg-a": "", "q": served + said, "btns-d": ""}.get(name, used)
        return clear(self.at("dns")) + own.get(name, "") + (wildcard(strangers) if btns else "")

    def populate(self) -> None:
        for name in HOSTS:
            for gateway, network, addresses in (("sg-a", A_NET, [A]), ("sg-b", B_NET, [B, OTHER_B])):
                if name == gateway:
                    for address in addresses:
                        self[name].run("ip", "address", "add", f"{address}/32", "dev", "lo")
                else:
                    self[name].run("ip", "route", "add", network, "via", self.at(gateway))
        for name in ("sg-a", "sg-b", "q", "btns-c", "btns-d"):
            daemon = self.hire(name, self.rules(name), publish=False, start=False)
            if "btns" not in name:
                self.world.publish(f"{name}.example", [self[name].v4], [daemon.key.public])
        for name in self.daemons:
            self.start(name)
        self.hire("mallory", clear(self.at("dns")), publish=False)
        for name in ("sg-a", "q", "r"):
            for port in (80, NFS):
                command = (
                    sys.executable,
                    "-m",
                    "http.server",
                    "--bind",
                    "0.0.0.0",
                    "--directory",
                    str(self.world.folder),
                )
                self[name].start(*command, str(port), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    def hears(self, name: str, target: str, port: int = NFS, source: str = "", limit: float = 10) -> tuple[bool, bool]:
        """Whether a program on a host gets an answer, and whether others saw what it said."""
        canary = self.canary()
        bound = ("--interface", source) if source else ()
        words = ("--max-time", str(limit), *bound, "-H", f"Cookie: {canary}", "-o", "/dev/null")
        done = self[name].run(*CURL, *words, f"http://{target}:{port}/", check=False)
        return done.returncode == 0, self.seen([canary]) > 0

    def pings(self, name: str, target: str, source: str = "", limit: int = 10) -> tuple[bool, bool]:
        """The same of a ping."""
        canary = self.relay.canary()
        bound = ("-I", source) if source else ()
        words = ("-c", "1", "-W", str(limit), "-p", canary.hex(), *bound)
        done = self[name].run("ping", "-n", *words, target, check=False)
        return done.returncode == 0, self.relay.report().seen(canary) > 0

    def children(self, at: str, name: str) -> set[tuple[str, str]]:
        """Mode and selector of what stands with a peer."""
        sas: Any = self.peer(at, name).get("ike", [])
        return {(child["mode"], child["selector"]) for sa in sas for child in sa["children"]}

    def key(self, at: str, name: str) -> str | None:
        """The fingerprint of the key that a peer has proved, as the other's own host tells it."""
        sas: Any = self.peer(at, name).get("ike", [])
        keys = {daemon.key.public.fingerprint.hex(): name for name, daemon in self.daemons.items()}
        return keys.get(sas[0]["key"]) if sas else None

    @contextmanager
    def rogue(self, rules: str, asserts: str = "", at: str = "") -> Iterator[None]:
        """Mallory with these rules; with an address that `at` sends to him from now on: he is on the path."""
        mallory = self["mallory"]
        address = asserts or self.at("mallory")
        config = f'[host]\nname = "rogue.example"\naddresses = ["{address}"]\n\n[dns]\n\n{clear(self.at("dns"))}{rules}'
        if asserts:
            mallory.run("ip", "address", "add", f"{asserts}/32", "dev", "lo")
            self[at].run("ip", "route", "add", f"{asserts}/32", "via", self.at("mallory"), "dev", "eth0")
        try:
            self.daemons["mallory"].restart(config=self.settle(config))
            yield
        finally:
            if asserts:
                self[at].run("ip", "route", "delete", f"{asserts}/32", "via", self.at("mallory"), "dev", "eth0")
                mallory.run("ip", "address", "delete", f"{asserts}/32", "dev", "lo")

    def connects(self, target: str) -> str:
        """What `hushwire connect` tells mallory."""
        answer = ask(self.daemons["mallory"].control, {"command": "connect", "name": target}, START)
        return str(answer["text"])

    def rejects(self, name: str, target: str, why: str) -> bool:
        """Whether a host refuses what mallory asks of it with these words."""
        since = len(self.told(name))

        def refused() -> bool:
            return why.partition(":")[0] in self.connects(target) and why in self.told(name, since)

        return eventually(refused, 30, 1.0)

    def told(self, name: str, since: int = 0) -> str:
        return self.daemons[name].log.read_text()[since:]


CLEAR, SEALED, NOTHING = (True, True), (True, False), (False, False)


@pytest.fixture(scope="module")
def net() -> Iterator[Network]:
    with Network() as net:
        net.populate()
        yield net


# --- 3.1, a security gateway: what [SG-A] makes of the others ---


@pytest.mark.lab
def test_s3_1_q_matches_its_own_entry(net: Network) -> None:
    """PAD 2 and SPD 2: a tunnel between [A] and [Q], whoever begins."""
    assert eventually(lambda: net.pings("q", A) == SEALED, 20), net.log()
    assert net.pings("sg-a", net.at("q"), A) == SEALED
    assert net.peer("sg-a", "q.example")["level"] == "named"
    assert net.children("sg-a", "q.example") == {("tunnel", f"{A} <-> {net.at('q')}")}


@pytest.mark.lab
def test_s3_1_sg_b_matches_its_own_entry(net: Network) -> None:
    """PAD 1 and SPD 3: a tunnel between [A] and any address of B's network."""
    assert eventually(lambda: net.pings("sg-b", A, B) == SEALED, 20), net.log()
    for address in (B, OTHER_B):
        assert net.pings("sg-b", A, address) == net.pings("sg-a", address, A) == SEALED
    assert net.peer("sg-a", "sg-b.example")["level"] == "named"
    assert net.children("sg-a", "sg-b.example") == {("tunnel", f"{A} <-> {B_NET}")}


@pytest.mark.lab
def test_s3_1_r_is_bypassed(net: Network) -> None:
    """SPD 1: its traffic with [A] is in clear, and no IKE is spoken about it."""
    assert net.pings("r", A) == net.hears("r", A) == CLEAR
    assert net.pings("sg-a", net.at("r"), A) == CLEAR
    assert net.peer("sg-a", net.at("r")) == {}


@pytest.mark.lab
def test_s3_1_c_matches_the_wildcard(net: Network) -> None:
    """PAD 3 and SPD 4: transport mode between the two addresses."""
    assert net.hears("btns-c", A) == SEALED, net.log()
    assert net.peer("sg-a", net.at("btns-c"))["level"] == "encrypted"
    assert net.key("sg-a", net.at("btns-c")) == "btns-c"
    assert net.children("sg-a", net.at("btns-c")) == {
        ("transport", f"{A} port {NFS} <-> {net.at('btns-c')} protocol 6")
    }


@pytest.mark.lab
@pytest.mark.parametrize("where", ["his own", "q"])
def test_s3_1_a_rogue_who_says_he_is_q(net: Network, where: str) -> None:
    """He matches the PAD entry for [Q], fails to authenticate as [Q], and is rejected: the wildcard is not asked."""
    asserts, why = {
        "his own": ("", f"nothing is known that would prove q.example at {net.at('mallory')}"),
        "q": (net.at("q"), "the peer's key is none of those known for it"),
    }[where]
    with net.rogue(wildcard('own-identity = "q.example"\n'), asserts, "sg-a"):
        assert net.rejects("sg-a", A, f"AUTHENTICATION_FAILED: {why}"), net.log()
        assert net.pings("mallory", A, limit=1) == NOTHING
    assert net.key("sg-a", "q.example") == "q"


@pytest.mark.lab
@pytest.mark.parametrize("whose", ["q", "b"])
def test_s3_1_a_rogue_who_has_an_address_of_q_or_b(net: Network, whose: str) -> None:
    """He matches the wildcard, and gets no Child SA for an address that is in another entry."""
    asserts, owner = {"q": (net.at("q"), "q.example"), "b": ("203.0.113.66", "sg-b.example")}[whose]
    with net.rogue(wildcard(), asserts, "sg-a"):
        assert net.rejects("sg-a", A, f"AUTHENTICATION_FAILED: {asserts} is {owner}'s"), net.log()
        assert net.pings("mallory", A, asserts, limit=1) == NOTHING


@pytest.mark.lab
def test_s3_1_a_rogue_who_asks_for_bs_network(net: Network) -> None:
    """From an address of his own he matches the wildcard; but in a tunnel a stranger speaks for nobody."""
    with net.rogue(tunnel("sg-a", B_NET, A)):
        assert net.rejects("sg-a", "sg-a.example", "NO_PROPOSAL_CHOSEN: tunnel mode, not transport"), net.log()
        assert net.children("sg-a", net.at("mallory")) == set()


# --- 3.2, a mixed end-system: [Q] serves NFS ---


@pytest.mark.lab
def test_s3_2_any_btns_node_may_use_nfs(net: Network) -> None:
    """SPD 2 of [Q]: a Child SA for port 2049 and no other."""
    for name in ("btns-c", "btns-d"):
        assert net.hears(name, net.at("q")) == SEALED, net.log()
        assert net.key("q", net.at(name)) == name
        assert net.children("q", net.at(name)) == {
            ("transport", f"{net.at('q')} port {NFS} <-> {net.at(name)} protocol 6")
        }


@pytest.mark.lab
def test_s3_2_sg_b_is_a_btns_peer(net: Network) -> None:
    """It is not known to [Q], and speaks for [B] none the less: [B]'s address is its own here."""
    for address in (B, OTHER_B):
        assert net.hears("sg-b", net.at("q"), source=address) == SEALED, net.log()
        assert net.peer("q", address)["level"] == "encrypted"
        assert net.key("q", address) == "sg-b"


@pytest.mark.lab
def test_s3_2_a_rogue_can_impersonate_b(net: Network) -> None:
    """[Q] knows no [SG-B]: whoever has [B]'s address is [B]."""
    address = "203.0.113.66"
    with net.rogue(wildcard(), address, "q"):
        assert net.hears("mallory", net.at("q"), source=address) == SEALED, net.log()
        assert net.key("q", address) == "mallory"


@pytest.mark.lab
def test_s3_2_a_rogue_is_not_a(net: Network) -> None:
    """As in section 3.1: [A]'s address is in PAD 1 and SPD 1 of [Q]."""
    for name, why in (
        ("sg-a.example", f"nothing is known that would prove sg-a.example at {A}"),
        ("rogue.example", f"{A} is sg-a.example's"),
    ):
        with net.rogue(wildcard(f'own-identity = "{name}"\n'), A, "q"):
            assert net.rejects("q", net.at("q"), f"AUTHENTICATION_FAILED: {why}"), net.log()
            assert net.hears("mallory", net.at("q"), source=A, limit=1) == NOTHING


# --- 3.3, a BTNS-only system: [C] uses NFS ---


@pytest.mark.lab
def test_s3_3_c_does_not_care_what_q_says_it_is(net: Network) -> None:
    """[Q] says that it is whoever.example; to [C] it is whoever has that key."""
    assert net.hears("btns-c", net.at("q")) == SEALED, net.log()
    assert net.key("btns-c", net.at("q")) == "q"
    assert "whoever.example" not in net.told("btns-c")


@pytest.mark.lab
def test_s3_3_all_else_is_in_clear(net: Network) -> None:
    """SPD 2 of [C], for [R] and [Q].  With [A] as well, on its side; but [SG-A] has SPD 4, and takes it for forged."""
    assert net.hears("btns-c", net.at("r"), 80) == net.hears("btns-c", net.at("q"), 80) == CLEAR
    assert net.hears("btns-c", A, 80, limit=2) == (False, False)
    assert net.pings("btns-c", A, limit=2) == (False, True)


@pytest.mark.lab
def test_s3_3_what_is_protected_is_not_in_clear(net: Network) -> None:
    """SPD 1 of [C]: [R] has no IPsec, so nothing is said to its port 2049."""
    assert net.hears("btns-c", net.at("r"), limit=3) == NOTHING


@pytest.mark.lab
def test_s3_3_a_rogue_gets_port_2049_only(net: Network) -> None:
    with net.rogue(wildcard()):
        assert "is encrypted" in net.connects(net.at("btns-c"))
        assert net.children("btns-c", net.at("mallory")) == {
            ("transport", f"{net.at('btns-c')} <-> {net.at('mallory')} port {NFS} protocol 6")
        }


# --- 3.1, the last; and 3.4 ---


@pytest.mark.lab
def test_s3_1_a_rogue_who_has_cs_address(net: Network) -> None:
    """He succeeds: the wildcard binds no address to a key.  What does so here is the memory, and it is told."""
    address = net.at("btns-c")
    assert net.hears("btns-c", A) == SEALED
    before = len(net.told("sg-a"))
    with net.rogue(wildcard(), address, "sg-a"):
        # While [C] is there, he is not in its place.
        assert net.rejects("sg-a", A, f"AUTHENTICATION_FAILED: there is somebody at {address} already"), net.log()
    net.daemons["btns-c"].restart()
    with net.rogue(wildcard(), address, "sg-a"):
        assert eventually(lambda: "is encrypted" in net.connects(A), 30, 1.0), net.log()
        assert net.key("sg-a", address) == "mallory"
    assert f"known.changed subject={address}" in net.told("sg-a", before)


@pytest.mark.lab
@pytest.mark.parametrize("name", ["sg-a", "q"])
def test_s3_4_without_btns_c_is_rejected(net: Network, name: str) -> None:
    """Without the last entries of PAD and SPD; and those with names go on."""
    net.instruct(name, net.rules(name, btns=False))
    net.instruct("btns-c", net.rules("btns-c"))
    target = A if name == "sg-a" else net.at("q")
    assert net.hears("btns-c", target, limit=4) == NOTHING
    assert "AUTHENTICATION_FAILED" in str(net.peer("btns-c", target)["last_failure"])
    assert eventually(lambda: net.pings("q", A) == SEALED, 20), net.log()


@pytest.mark.uml
def test_with_the_kernel_plane() -> None:
    # Whom an end takes is the Node's to say, whatever the plane; what becomes of the packets is not.
    assert uml.lab_tests(__file__, "wildcard or nfs").returncode == 0
