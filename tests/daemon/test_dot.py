"""Upstreams by TLS: a server with a certificate of the lab's own, in front of a real knotd."""

import errno
import os
import signal
import socket
import ssl
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from select import select

import dns.message
import dns.query
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from hushwire.daemon import dot
from hushwire.daemon.unbound import Configuration, UnboundError, Validator
from hushwire.events import Answered, Lookup, Outcome
from hushwire.lab.dns import SignedWorld
from hushwire.lab.namespaces import free_port
from hushwire.linux import sandbox

A, TXT = 1, 16
NAME = "dns.example"


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A key and a certificate that vouches for itself."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "the lab")])
    now = datetime.now(UTC)
    signed = (
        x509.CertificateBuilder(name, name, key.public_key(), 1, now - timedelta(1), now + timedelta(1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(NAME)]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(key, hashes.SHA256())
    )
    path = tmp_path_factory.mktemp("tls") / "certificate"
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    path.write_bytes(signed.public_bytes(serialization.Encoding.PEM) + private)
    return path


@contextmanager
def tls_server(certificate: Path, world: SignedWorld, port: int = 0) -> Iterator[int]:
    """A process that answers by TLS what the world answers; it tells how many connections it took at its end."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    with socket.create_server(("127.0.0.1", port)) as listener:
        port = listener.getsockname()[1]
        pid = os.fork()
        if pid == 0:
            signal.alarm(60)
            while True:
                connection, _ = listener.accept()
                threading.Thread(target=converse, args=(context, connection, world), daemon=True).start()
    try:
        yield port
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)


def converse(context: ssl.SSLContext, connection: socket.socket, world: SignedWorld) -> None:
    try:
        with context.wrap_socket(connection, server_side=True) as tls, tls.makefile("rb") as stream:
            while length := stream.read(2):
                question = dns.message.from_wire(stream.read(int.from_bytes(length, "big")))
                octets = dns.query.tcp(question, world.address, port=world.port, timeout=5).to_wire()
                tls.sendall(len(octets).to_bytes(2, "big") + octets)
    except OSError:
        pass


def ask(validator: Validator, *questions: Lookup, seconds: float = 15) -> list[Answered]:
    answers: dict[int, Answered] = {}
    end = time.monotonic() + seconds
    for question in questions:
        validator.ask(question, time.monotonic())
    while len(answers) < len(questions):
        assert time.monotonic() < end
        deadline = validator.deadline()
        assert deadline is not None
        select([validator], [], [], max(0.0, min(deadline, end) - time.monotonic()))
        answers |= {answer.request: answer for answer in validator.answered(time.monotonic())}
    return [answers[question.request] for question in questions]


def configured(world: SignedWorld, port: int, bundle: Path, name: str = NAME, timeout: float = 5.0) -> Configuration:
    return Configuration(
        str(world.anchor_path), forward=(f"127.0.0.1@{port}#{name}",), bundle=str(bundle), timeout=timeout
    )


def test_questions_go_by_tls(signed: SignedWorld, certificate: Path) -> None:
    with (
        tls_server(certificate, signed) as port,
        closing(Validator(configured(signed, port, certificate))) as validator,
    ):
        names = ["plain.bob.example", "mail.bob.example", "types.bob.example", "nowhere.bob.example"]
        answers = ask(validator, *(Lookup(number, name, A) for number, name in enumerate(names)))
        assert [answer.outcome for answer in answers] == [Outcome.SECURE] * 3 + [Outcome.DENIED]
        # More than a datagram holds elsewhere.
        (big,) = ask(validator, Lookup(9, "big.bob.example", TXT))
        assert len(big.rdata) == 100


def test_another_name_is_not_believed(signed: SignedWorld, certificate: Path) -> None:
    with (
        tls_server(certificate, signed) as port,
        closing(Validator(configured(signed, port, certificate, "evil.example", 2.0))) as validator,
    ):
        for _ in range(2):
            (answer,) = ask(validator, Lookup(1, "plain.bob.example", A))
            assert answer.outcome is Outcome.ERROR
        assert "Hostname mismatch" in validator._upstreams[0].failure


def test_another_authority_is_not_believed(signed: SignedWorld, certificate: Path) -> None:
    system = Path("/etc/ssl/certs/ca-certificates.crt")
    with (
        tls_server(certificate, signed) as port,
        closing(Validator(configured(signed, port, system, timeout=2.0))) as validator,
    ):
        assert ask(validator, Lookup(1, "plain.bob.example", A))[0].outcome is Outcome.ERROR
        assert "certificate" in validator._upstreams[0].failure


def test_a_server_that_goes_and_comes_back(signed: SignedWorld, certificate: Path) -> None:
    port = free_port()
    with closing(Validator(configured(signed, port, certificate, timeout=1.0))) as validator:
        with tls_server(certificate, signed, port):
            assert ask(validator, Lookup(1, "plain.bob.example", A))[0].outcome is Outcome.SECURE
        assert ask(validator, Lookup(2, "mail.bob.example", A))[0].outcome is Outcome.ERROR
        with tls_server(certificate, signed, port):
            end = time.monotonic() + 25
            while ask(validator, Lookup(3, "mail.bob.example", A))[0].outcome is not Outcome.SECURE:
                assert time.monotonic() < end, "it never recovered"
                time.sleep(0.2)


@pytest.mark.parametrize("ipv6", [False, True])
def test_a_host_without_ipv6(signed: SignedWorld, monkeypatch: pytest.MonkeyPatch, ipv6: bool) -> None:
    """It has no answer, and goes on.  Control: with IPv6 nobody is there."""
    ask_for = socket.socket

    def refuse(family: int, kind: int) -> socket.socket:
        if family == socket.AF_INET6:
            raise OSError(errno.EAFNOSUPPORT, os.strerror(errno.EAFNOSUPPORT))
        return ask_for(family, kind)

    if not ipv6:
        monkeypatch.setattr(dot.socket, "socket", refuse)
    forward = (f"::1@{free_port()}#{NAME}",)
    with closing(Validator(Configuration(str(signed.anchor_path), forward=forward, timeout=1.5))) as validator:
        for number in range(2):
            assert ask(validator, Lookup(number, "plain.bob.example", A))[0].outcome is Outcome.ERROR
        failure = validator._upstreams[0].failure
        assert failure == ("Connection refused" if ipv6 else "Address family not supported by protocol")


@pytest.mark.parametrize(
    ("forward", "bundle", "reason"),
    [
        (("127.0.0.1@853#dns.example", "127.0.0.2"), "/etc/ssl/certs/ca-certificates.crt", "in clear"),
        (("127.0.0.1@853#dns.example",), "/nonexistent/bundle", "/nonexistent/bundle: No such file"),
    ],
)
def test_configurations_refused(forward: tuple[str, ...], bundle: str, reason: str) -> None:
    with pytest.raises(UnboundError, match=reason):
        Validator(Configuration(forward=forward, bundle=bundle))


@pytest.mark.lab
def test_in_the_sandbox(signed: SignedWorld, certificate: Path) -> None:
    """As the resolver's process is confined: by TLS, and by TCP where an answer is too long for a datagram."""
    with tls_server(certificate, signed) as port:
        plain = Configuration(str(signed.anchor_path), forward=(signed.forward,))
        for configuration in (configured(signed, port, certificate), plain):
            pid = os.fork()
            if pid == 0:
                status = 1
                try:
                    signal.alarm(30)
                    with closing(Validator(configuration)) as validator:
                        assert sandbox.confine(uid=65534, gid=65534, network=True).missing == ()
                        answers = ask(validator, Lookup(1, "plain.bob.example", A), Lookup(2, "big.bob.example", TXT))
                    status = [answer.outcome for answer in answers] != [Outcome.SECURE] * 2
                finally:
                    os._exit(status)
            assert os.waitpid(pid, 0)[1] == 0
