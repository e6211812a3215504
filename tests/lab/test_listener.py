"""Programs on a host whose resolver is hushwire: real ones, and the resolvers that people have in front of it."""

import re
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from hushwire.crypto.keys import KeyKind, PrivateKey
from hushwire.daemon import ipsecmod
from hushwire.lab.dns import SignedWorld
from hushwire.lab.frame import Kind
from hushwire.lab.hushwire import Hushwire, named
from hushwire.lab.namespaces import Host, Topology
from hushwire.lab.peer import eventually
from hushwire.lab.relay import Relay
from hushwire.lab.story import Story
from hushwire.lab.unbound import Unbound

pytestmark = pytest.mark.lab

LISTEN = "127.0.0.153"


@dataclass
class Lab:
    relay: Relay
    world: SignedWorld
    host: Host
    """Where the programs are: alice."""
    bob: Host
    alice: Hushwire

    @contextmanager
    def resolver(self, address: str) -> Iterator[None]:
        """What /etc/resolv.conf says in alice meanwhile."""
        folder = Path("/etc/netns", self.host.namespace)
        folder.mkdir(parents=True)
        try:
            (folder / "resolv.conf").write_text(f"nameserver {address}\n")
            yield
        finally:
            shutil.rmtree(folder)

    def addresses(self, name: str) -> set[str]:
        """As getaddrinfo() finds them."""
        said = self.host.run("getent", "ahosts", name, check=False).stdout
        return {line.split()[0] for line in said.splitlines()}

    def dig(self, name: str, rdtype: str, at: str, *more: str) -> str:
        return self.host.run("kdig", f"@{at}", name, rdtype, "+timeout=9", "+retry=0", *more, check=False).stdout


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    """Rules about bob, who is there; carol, whose key nobody proves; and dave, who has none."""
    with Topology() as topology, Relay(topology) as relay:
        host, bob, dns = topology["alice"], topology["bob"], topology["dns"]
        with SignedWorld(str(dns.v4), 53, prefix=dns.prefix) as world:
            names = ["bob.example", "*.many.example", "dave.alice.example"]
            listen = f'listen = ["{LISTEN}"]'
            config = named("alice.example", names, world.forward, world.anchor_path, plane="userspace", more=listen)
            alice = Hushwire(host, config)
            other = Hushwire(
                bob, named("bob.example", ["alice.example"], world.forward, world.anchor_path, plane="userspace")
            )
            world.publish("alice.example", [host.v4, host.v6], [alice.key.public])
            world.publish("bob.example", [bob.v4, bob.v6], [other.key.public])
            world.publish("carol.many.example", [dns.v6], [PrivateKey.generate(KeyKind.ED25519).public])
            world.publish("dave.alice.example", [dns.v6])
            world.publish("plain.alice.example", [dns.v4])
            world.set("big.alice.example", {"TXT": [f'"{number:03d}{"x" * 200}"' for number in range(100)]})
            with other, alice:
                ready = eventually(lambda: len(alice.peer()["addresses"]) == 2, 20)
                assert ready, alice.log.read_text()
                yield Lab(relay, world, host, bob, alice)


def test_programs_find_the_name_and_what_they_say_is_protected(lab: Lab, tmp_path: Path) -> None:
    canary = lab.relay.canary()
    (tmp_path / "page").write_bytes(canary)
    lab.bob.start("python3", "-m", "http.server", "--directory", str(tmp_path), "8000", stderr=subprocess.DEVNULL)
    with lab.resolver(LISTEN):
        assert lab.addresses("bob.example") == {str(lab.bob.v4), str(lab.bob.v6)}, lab.alice.log.read_text()
        assert lab.addresses("plain.alice.example")
        url = "http://bob.example:8000/page"
        got = tmp_path / "got"
        lab.host.run("curl", "-s", "-o", str(got), "--retry", "9", "--retry-connrefused", "--retry-delay", "1", url)
        assert got.read_bytes() == canary
    report = lab.relay.report()
    assert report.seen(canary) == 0
    assert report.kinds["esp"]


def test_what_is_not_proved_is_not_told(lab: Lab) -> None:
    with lab.resolver(LISTEN):
        for name in ("carol.many.example", "dave.alice.example"):
            said = lab.dig(name, "AAAA", LISTEN, "+edns")
            assert "SERVFAIL" in said, lab.alice.log.read_text()
            assert re.search("(?i)ede|extended", said), said
            assert lab.addresses(name) == set()


def test_large_answers_by_udp_and_by_tcp(lab: Lab) -> None:
    """With the daemon's sandbox, in which a long answer has to come by TCP on both sides."""
    for more in (["+tcp"], []):
        assert lab.dig("big.alice.example", "TXT", LISTEN, *more).count('xxxx"') == 100


def test_the_hook_that_unbound_runs(lab: Lab, tmp_path: Path) -> None:
    """As its ipsecmod runs it.  Debian builds unbound without that module, so the words are ours."""
    text = Path(ipsecmod.__file__).read_text()
    assert text.count(f'"{ipsecmod.CONTROL}"') == 1

    def hook(control: Path, name: str) -> subprocess.CompletedProcess[str]:
        path = tmp_path / "hook"
        path.write_text(text.replace(ipsecmod.CONTROL, str(control)))
        path.chmod(0o755)
        return lab.host.run(str(path), f"{name}.", "60", str(lab.bob.v4), "10 1 4 192.0.2.2 AAAA", check=False)

    assert hook(lab.alice.control, "bob.example").returncode == 0
    assert hook(lab.alice.control, "plain.alice.example").returncode == 0
    refused = hook(lab.alice.control, "carol.many.example")
    assert refused.returncode == 1
    assert refused.stderr.startswith("hushwire: ")
    assert hook(tmp_path / "nobody", "bob.example").returncode == 3


@contextmanager
def resolved(lab: Lab, folder: Path, address: str) -> Iterator[None]:
    """systemd-resolved as the stub in front of us, with a mount namespace of its own and without a system bus."""
    (folder / "resolved.conf").write_text(RESOLVED.format(listen=LISTEN, address=address))
    script = (
        f"mount -t tmpfs none /run && mkdir -p /run/systemd && "
        f"mount --bind {folder}/resolved.conf /etc/systemd/resolved.conf && exec /lib/systemd/systemd-resolved"
    )
    log = (folder / "log").open("w")
    process = lab.host.start("sh", "-c", script, stdout=log, stderr=log)
    try:
        ready = eventually(lambda: "NOERROR" in lab.dig("plain.alice.example", "A", address), 10)
        assert ready, (folder / "log").read_text()
        yield
    finally:
        process.terminate()
        process.wait(5)
        log.close()


RESOLVED = """[Resolve]
DNS={listen}
FallbackDNS=
Domains=~.
DNSSEC={{dnssec}}
Cache=no
LLMNR=no
MulticastDNS=no
DNSStubListener=no
DNSStubListenerExtra={address}
""".replace("{{dnssec}}", "no")


def test_systemd_resolved_in_front(lab: Lab, tmp_path: Path) -> None:
    address = "127.0.0.55"
    with resolved(lab, tmp_path, address), lab.resolver(address):
        assert lab.addresses("bob.example") == {str(lab.bob.v4), str(lab.bob.v6)}
        assert lab.addresses("carol.many.example") == set()
        assert lab.dig("big.alice.example", "TXT", address, "+tcp").count('xxxx"') == 100


def make_certificate(folder: Path) -> Path:
    """A key and a certificate for dns.example that vouches for itself, as one file."""
    key = ec.generate_private_key(ec.SECP256R1())
    name, now = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "the lab")]), datetime.now(UTC)
    signed = (
        x509.CertificateBuilder(name, name, key.public_key(), 1, now - timedelta(1), now + timedelta(1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("dns.example")]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(key, hashes.SHA256())
    )
    path = folder / "certificate"
    private = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    path.write_bytes(signed.public_bytes(Encoding.PEM) + private)
    return path


@contextmanager
def trusted(host: Host, certificate: Path) -> Iterator[None]:
    """It is the one that the host trusts meanwhile."""
    bundle = Path("/etc/netns", host.namespace, "ssl/certs/ca-certificates.crt")
    bundle.parent.mkdir(parents=True)
    try:
        bundle.write_bytes(certificate.read_bytes())
        yield
    finally:
        shutil.rmtree(bundle.parents[2])


BY_TLS = """
    access-control: 0.0.0.0/0 allow
    interface: {address}@853
    tls-port: 853
    tls-service-key: "{certificate}"
    tls-service-pem: "{certificate}"
"""


@pytest.mark.parametrize("name", ["dns.example", "other.example"])
def test_an_upstream_by_tls(tmp_path: Path, name: str) -> None:
    """What is asked, and what is told, is not seen on the way.  With a certificate for another name nobody is asked."""
    certificate = make_certificate(tmp_path)
    with Story("alice", "bob", plane="userspace") as story, trusted(story["alice"], certificate):
        alice, bob, dns = story["alice"], story["bob"], story["dns"]
        config = story.config("alice", '[[rule]]\npeer = "*.example"\n', f'listen = ["{LISTEN}"]')
        daemon = Hushwire(alice, config.replace(story.world.forward, f"{dns.v4}@853#{name}"))
        story.world.publish("alice.example", [alice.v4, alice.v6], [daemon.key.public])
        story.hire("bob", '[[rule]]\npeer = "alice.example"\n')
        secret, told = story.canary(), story.canary()
        story.world.set(f"{secret}.bob.example", {"TXT": [told]})
        tls = BY_TLS.format(address=dns.v4, certificate=certificate)
        with Unbound(story.world, str(dns.v4), 5353, dns.prefix, more=tls), daemon:
            said = story.program(alice, "kdig", "+timeout=9", f"{secret}.bob.example", "TXT").stdout
            believed = name == "dns.example"
            assert (told in said) is believed, said + daemon.log.read_text()
            assert ("status: SERVFAIL" in said) is not believed
            canaries = [secret, told]
            if believed:
                fetched, more = story.curl(alice, "bob.example", story.serve_web(bob))
                assert fetched, story.log() + daemon.log.read_text()
                canaries += more
            assert story.relay.report().count(Kind.DNS, "alice") == 0
            assert story.seen(canaries) == 0
        # The relay's eyes are good.
        assert told in story.program(alice, "kdig", f"{secret}.bob.example", "TXT", server=str(dns.v4)).stdout
        assert story.seen([secret]) > 0
        assert story.seen([told]) > 0
