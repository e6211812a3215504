"""daemon.update and daemon.credential: a server that says whatever the test wants; BIND's nsupdate as second signer."""

import base64
import os
import re
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from ipaddress import IPv4Address, ip_address
from pathlib import Path

import dns.flags
import dns.message
import dns.name
import dns.rcode
import dns.rdatatype
import dns.rrset
import dns.tsig
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from hypothesis import given
from hypothesis import strategies as st

from hushwire.crypto.secret import Secret
from hushwire.daemon.credential import Sig0, Tsig, read_sig0, read_tsig
from hushwire.daemon.keyfile import KeyFileError
from hushwire.daemon.unbound import Configuration
from hushwire.daemon.update import Changed, Primary, Server, UpdateError, find_primary, read_sets, send, zone_of
from hushwire.lab.dns import SignedWorld
from hushwire.lab.namespaces import free_port
from hushwire.names.publish import Own, Plan, RecordSet, plan, records_of

NAME, ZONE = "alice.example", "example"
SECRET = b"thirty-two octets of a secret..."
TSIG = Tsig("alice-key.", "hmac-sha256", Secret(SECRET))
HIDDEN = (SECRET.decode(), base64.b64encode(SECRET).decode(), SECRET.hex())
Answer = Callable[[bytes], bytes | None]


@contextmanager
def server(answer: Answer) -> Iterator[Server]:
    """One that answers each message over TCP and UDP with what `answer` makes of it; None: it closes."""
    port = free_port()
    with socket.create_server(("127.0.0.1", port)) as tcp, socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp:
        udp.bind(("127.0.0.1", port))

        def serve_tcp() -> None:
            while True:
                try:
                    connection, _ = tcp.accept()
                except OSError:
                    return
                with connection:
                    octets = connection.recv(65537)
                    if (reply := answer(octets[2:])) is not None:
                        connection.sendall(len(reply).to_bytes(2, "big") + reply)

        def serve_udp() -> None:
            while True:
                octets, sender = udp.recvfrom(65535)
                if not octets:
                    return
                if (reply := answer(octets)) is not None:
                    udp.sendto(reply, sender)

        threads = [threading.Thread(target=serve) for serve in (serve_tcp, serve_udp)]
        for thread in threads:
            thread.start()
        try:
            yield Server(ip_address("127.0.0.1"), port)
        finally:
            tcp.shutdown(socket.SHUT_RDWR)
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as last:
                last.sendto(b"", ("127.0.0.1", port))
            for thread in threads:
                thread.join(5)


def a_plan() -> Plan:
    empty = [RecordSet(NAME, rdtype) for rdtype in (1, 28, 45)]
    return plan(ZONE, empty, records_of(NAME, (), [IPv4Address("192.0.2.1")]), Own())


def responds(rcode: int = 0, signed_with: bytes | None = SECRET, error: int = 0) -> Answer:
    """A response to an update, as a server makes it that knows our key by this secret; None: not signed."""

    def answer(octets: bytes) -> bytes:
        key = dns.tsig.Key("alice-key.", signed_with or SECRET)
        request = dns.message.from_wire(octets, keyring={key.name: key} if signed_with == SECRET else TRUSTING)
        response = dns.message.make_response(request)
        response.set_rcode(dns.rcode.Rcode(rcode))
        if signed_with is None:
            response.tsig = None
            return response.to_wire()
        response.use_tsig(key, tsig_error=error)
        return response.to_wire()

    return answer


class _Trusting(dict[dns.name.Name, dns.tsig.Key]):
    """A keyring for reading a request without verifying it: the request's own secret."""

    def get(self, key: object, default: object = None) -> dns.tsig.Key:  # type: ignore[override]
        return dns.tsig.Key("alice-key.", SECRET)


TRUSTING = _Trusting()


@pytest.mark.parametrize("udp", [False, True])
def test_a_signed_yes_is_a_yes(udp: bool) -> None:
    with server(responds()) as primary:
        send(primary, a_plan(), TSIG, 2, udp)


@pytest.mark.parametrize("udp", [False, True])
@pytest.mark.parametrize(
    ("signed_with", "reason"), [(None, "not signed"), (b"another secret, as long....", "not signed")]
)
def test_anybody_elses_yes_is_none(signed_with: bytes | None, reason: str, udp: bool) -> None:
    with server(responds(signed_with=signed_with)) as primary, pytest.raises(UpdateError, match=reason) as caught:
        send(primary, a_plan(), TSIG, 2, udp)
    assert "not known" in str(caught.value)


@pytest.mark.parametrize("signed_with", [SECRET, None])
@pytest.mark.parametrize(
    ("rcode", "reason"),
    [
        (dns.rcode.REFUSED, "REFUSED: TSIG key alice-key may not change.*grant"),
        (dns.rcode.NOTAUTH, "NOTAUTH: .*not the primary of example.*--server"),
        (dns.rcode.NOTZONE, "NOTZONE: .*--zone"),
        (dns.rcode.NOTIMP, "NOTIMP: .*takes no updates"),
        (dns.rcode.SERVFAIL, "SERVFAIL: .*log.*PowerDNS 4.7 .*RSA"),
        (dns.rcode.FORMERR, "FORMERR: "),
        (11, "DSOTYPENI: .*log"),
    ],
)
def test_each_no_is_said_in_plain_words(rcode: int, reason: str, signed_with: bytes | None) -> None:
    with server(responds(rcode, signed_with)) as primary, pytest.raises(UpdateError, match=reason) as caught:
        send(primary, a_plan(), TSIG, 2)
    assert "\n" not in str(caught.value)
    assert not any(secret in str(caught.value) for secret in HIDDEN)


@pytest.mark.parametrize(
    ("rcode", "reason"),
    [
        (dns.rcode.SERVFAIL, r"SERVFAIL: the zone may lack the KEY record of alice.example\.,"),
        (dns.rcode.REFUSED, r"REFUSED: SIG\(0\) key alice.example \d{5} may not change.*grant.*CVE-2024-1975"),
        (dns.rcode.NOTAUTH, r"NOTAUTH: .*does not know SIG\(0\) key alice.example"),
    ],
)
def test_a_no_to_sig0_speaks_of_its_key_record(rcode: int, reason: str) -> None:
    """BIND 9.20 answers an unknown key with SERVFAIL (docs/results/sig0.txt).  PowerDNS has no SIG(0)."""
    key = Sig0(f"{NAME}.", 15, ed25519.Ed25519PrivateKey.generate())
    with (
        server(lambda octets: octets[:2] + bytes((0xA8, rcode)) + bytes(8)) as primary,
        pytest.raises(UpdateError, match=reason) as caught,
    ):
        send(primary, a_plan(), key, 2)
    assert "PowerDNS" not in str(caught.value)


@pytest.mark.parametrize(
    ("error", "reason"),
    [(16, "BADSIG: its secret"), (17, "BADKEY: it does not know TSIG key alice-key"), (18, "BADTIME: its clock"),
     (22, "BADTRUNC")],
)  # fmt: skip
def test_why_a_signature_is_not_taken(error: int, reason: str) -> None:
    """RFC 8945 s5.3.2: such a response carries a TSIG with the error."""
    with server(responds(dns.rcode.NOTAUTH, error=error)) as primary, pytest.raises(UpdateError, match=reason):
        send(primary, a_plan(), TSIG, 2)


@pytest.mark.parametrize("rcode", [dns.rcode.NXRRSET, dns.rcode.YXRRSET, dns.rcode.NXDOMAIN, dns.rcode.YXDOMAIN])
def test_a_prerequisite_that_does_not_hold(rcode: int) -> None:
    with server(responds(rcode)) as primary, pytest.raises(Changed):
        send(primary, a_plan(), TSIG, 2)


@pytest.mark.parametrize(
    "answer",
    [
        lambda octets: b"",
        lambda octets: octets[:11],
        lambda octets: octets,
        lambda octets: bytes((octets[0] ^ 1,)) + responds()(octets)[1:],
        lambda octets: octets[:2] + b"\x80\0" + bytes(8),
        lambda octets: octets[:2] + b"\xa8\0" + b"\xff" * 8,
        lambda octets: None,
    ],
)
def test_no_answer_at_all(answer: Answer) -> None:
    with server(answer) as primary, pytest.raises(UpdateError):
        send(primary, a_plan(), TSIG, 2)


@given(st.binary(max_size=100))
def test_any_octets_are_no_yes(octets: bytes) -> None:
    message = a_plan().message()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("hushwire.daemon.update._exchange", lambda *rest: message.id.to_bytes(2, "big") + octets)
        patch.setattr(Plan, "message", lambda plan: message)
        with pytest.raises(UpdateError):
            send(Server(ip_address("127.0.0.1"), 1), a_plan(), TSIG)


@pytest.mark.parametrize("udp", [False, True])
def test_silence_is_waited_for_so_long_and_no_longer(udp: bool) -> None:
    def late(octets: bytes) -> None:
        time.sleep(0.5)

    began = time.monotonic()
    with server(late) as primary, pytest.raises(UpdateError, match=r"no answer within 0.3 s"):
        send(primary, a_plan(), TSIG, 0.3, udp)
    assert time.monotonic() - began < 2


def test_nobody_listens() -> None:
    with pytest.raises(UpdateError, match="refused"):
        send(Server(ip_address("127.0.0.1"), free_port()), a_plan(), TSIG, 1)


def test_without_a_credential_nothing_is_sent() -> None:
    nobody = Primary(Server(ip_address("127.0.0.1"), 1), None, Configuration())
    with pytest.raises(UpdateError, match="--tsig"):
        nobody.publish(a_plan())


def answers(*lines: str, flags: int = dns.flags.QR | dns.flags.AA, authority: str = "") -> Answer:
    """A response to a question, with these records."""

    def answer(octets: bytes) -> bytes:
        response = dns.message.make_response(dns.message.from_wire(octets))
        response.flags = dns.flags.Flag(flags)
        for section, texts in ((response.answer, lines), (response.authority, (authority,) if authority else ())):
            for text in texts:
                owner, ttl, rdtype, rdata = text.split(" ", 3)
                section.append(dns.rrset.from_text(owner, int(ttl), "IN", rdtype, rdata))
        return response.to_wire()

    return answer


SOA = "example. 5 SOA ns.example. host.example. 1 2 3 4 5"


def test_the_zone_is_whose_soa_speaks() -> None:
    for answer in (answers(SOA), answers(authority=SOA)):
        with server(answer) as primary:
            assert zone_of(primary, NAME, 2) == ZONE


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (answers(authority=SOA.replace("example. 5", "other. 5", 1)), "which zone"),
        (answers(), "which zone"),
        (answers(SOA, flags=dns.flags.QR), "no authority"),
        (answers(SOA, flags=dns.flags.QR | dns.flags.AA | dns.rcode.REFUSED), "REFUSED"),
        (lambda octets: octets, "another question"),
        (lambda octets: b"\0" * 12, "another question"),
        (lambda octets: b"\0" * 5, "cannot be read"),
    ],
)
def test_who_does_not_know_the_zone(answer: Answer, reason: str) -> None:
    with server(answer) as primary, pytest.raises(UpdateError, match=reason):
        zone_of(primary, NAME, 2)


RRSIG = "alice.example. 5 RRSIG A 15 {labels} 5 20300101000000 20200101000000 1 example. AAAA"


def test_what_is_there() -> None:
    with server(answers("alice.example. 5 A 192.0.2.7", RRSIG.format(labels=2))) as primary:
        assert read_sets(primary, NAME, 2)[0] == RecordSet(NAME, 1, 5, frozenset({bytes((192, 0, 2, 7))}))


def test_a_wildcard_is_not_what_is_there() -> None:
    """RFC 4034 s3.1.3.  A server compares prerequisites with what is at the name, and there is nothing."""
    with server(answers("alice.example. 5 A 192.0.2.7", RRSIG.format(labels=1))) as primary:
        assert read_sets(primary, NAME, 2)[0] == RecordSet(NAME, 1)


def test_an_alias_is_not_published_under() -> None:
    with server(answers("alice.example. 5 CNAME bob.example.")) as primary, pytest.raises(UpdateError, match="alias"):
        read_sets(primary, NAME, 2)


@pytest.mark.parametrize(
    ("text", "expected"),
    [("192.0.2.1", Server(ip_address("192.0.2.1"))), ("2001:db8::1@5353", Server(ip_address("2001:db8::1"), 5353))],
)
def test_a_server_as_it_is_written(text: str, expected: Server) -> None:
    assert Server.read(text) == expected
    assert Server.read(str(expected)) == expected


@pytest.mark.parametrize("text", ["", "ns.example", "192.0.2.1@", "192.0.2.1@x", "192.0.2.1@0", "192.0.2.1@65536"])
def test_what_is_no_server(text: str) -> None:
    with pytest.raises(ValueError, match=r"no port|not appear"):
        Server.read(text)


def test_the_primary_is_whom_the_soa_names() -> None:
    with SignedWorld() as world:
        configuration = Configuration(str(world.anchor_path), forward=(world.forward,), timeout=3)
        for name in ("alice.example", "a.b.alice.example"):
            assert find_primary(name, configuration) == Server(ip_address("192.0.2.53"))
        with pytest.raises(UpdateError, match="--server"):
            find_primary("www.unsigned.example", configuration)
        with pytest.raises(UpdateError, match="--server"):
            find_primary("www.bogus.example", configuration)


def written(folder: Path, text: str, name: str = "file", mode: int = 0o600) -> Path:
    path = folder / name
    path.write_text(text)
    path.chmod(mode)
    return path


B64 = base64.b64encode(SECRET).decode()
FORMS = {
    "bind": f'key "alice-key" {{\n\talgorithm hmac-sha256;\n\tsecret "{B64}";\n}};\n',
    "bind, bare": f"key alice-key. {{ secret {B64}; algorithm HMAC-SHA256.; }};",
    "comments": f'# key "x" {{}}\n// y\n/* key\n"y" {{}} */key alice-key {{ algorithm hmac-sha256; secret {B64}; }};',
    "one line": f"hmac-sha256:alice-key:{B64}\n",
    "keymgr": f"# hmac-sha256:alice-key:{B64}\nkey:\n  - id: alice-key\n    secret: {B64}\n",
}


@pytest.mark.parametrize("text", FORMS.values(), ids=FORMS)
def test_tsig_keys(text: str, tmp_path: Path) -> None:
    tsig = read_tsig(written(tmp_path, text))
    assert tsig == TSIG
    assert not any(secret in shown for secret in HIDDEN for shown in (repr(tsig), str(tsig)))


COMMENTED = (
    '/* key "x" { */ # it isn\'t "this\n// nor "this\nkey "alice-key"/* a */{ algorithm/**/hmac-sha256 /* " */; // "\n'
    'secret # "\n"SECRET" /* "\n */; }; # "};\n'
)


@pytest.mark.parametrize("form", [FORMS["bind"].replace(B64, "SECRET"), COMMENTED, "hmac-sha256:alice-key:SECRET"])
@pytest.mark.parametrize("secret", ["//", "AA//", "//" * 12, "A/" * 12, "/", "AAA/" * 6, "+/" * 12])
def test_a_secret_may_look_like_a_comment(form: str, secret: str, tmp_path: Path) -> None:
    """Of the secrets that servers' tools make, one in a hundred has "//" in it."""
    text = (secret + B64)[:40]
    tsig = read_tsig(written(tmp_path, form.replace("SECRET", text)))
    assert base64.b64encode(tsig.secret.expose()).decode() == text


@pytest.mark.parametrize("opening", ["/*", "#", "//", "*/"])
def test_nothing_quoted_is_a_comment(opening: str, tmp_path: Path) -> None:
    """What is no base64 is refused as that, and not read without its end."""
    text = FORMS["bind"].replace(B64, B64 + opening)
    with pytest.raises(KeyFileError, match="no base64"):
        read_tsig(written(tmp_path, text))
    key = f"{opening}key"
    assert read_tsig(written(tmp_path, FORMS["bind"].replace("alice-key", key))).name == f"{key}."


@pytest.mark.parametrize(
    ("text", "mode", "reason"),
    [
        (FORMS["bind"], 0o640, "mode 0640"),
        (FORMS["bind"], 0o604, "mode 0604"),
        (FORMS["bind"].replace("sha256", "md5"), 0o600, "must be one of"),
        (FORMS["one line"].replace("sha256", "sha1"), 0o600, "must be one of"),
        (FORMS["bind"].replace(B64, B64[:-4] + "!!!!"), 0o600, "no base64"),
        (FORMS["bind"].replace(B64, "c2hvcnQ="), 0o600, "5 octets"),
        (FORMS["bind"].replace("secret", "sekret"), 0o600, "0 octets"),
        (FORMS["bind"].replace("alice-key", "a" * 64), 0o600, "no name of a key"),
        (f"this is no key but has the secret {B64}", 0o600, "no TSIG key"),
    ],
)
def test_what_is_no_tsig_key(text: str, mode: int, reason: str, tmp_path: Path) -> None:
    with pytest.raises(KeyFileError, match=reason) as caught:
        read_tsig(written(tmp_path, text, mode=mode))
    assert not any(secret in str(caught.value) for secret in (*HIDDEN, B64[:8]))
    assert caught.value.__cause__ is None


def test_somebody_elses_key_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = written(tmp_path, FORMS["bind"])
    if os.geteuid() == 0:
        os.chown(file, 65534, 65534)
    else:
        monkeypatch.setattr("os.geteuid", lambda: os.getuid() + 1)
    with pytest.raises(KeyFileError, match="belongs to user"):
        read_tsig(file)


SIG0_ALGORITHMS = ["ED25519", "ED448", "RSASHA256", "RSASHA512", "ECDSAP256SHA256", "ECDSAP384SHA384"]


@pytest.mark.parametrize("algorithm", SIG0_ALGORITHMS)
def test_sig0_is_as_nsupdate_signs(algorithm: str, tmp_path: Path) -> None:
    """BIND's own tool makes the key and signs an update; we sign the same octets for the same time."""
    size = ["-b", "2048"] if algorithm.startswith("RSA") else []
    keygen = ["dnssec-keygen", "-q", "-T", "KEY", "-n", "HOST", "-a", algorithm, *size, NAME]
    subprocess.run(keygen, cwd=tmp_path, check=True, capture_output=True)
    (private,) = tmp_path.glob("K*.private")
    key = read_sig0(private)
    (public,) = tmp_path.glob("K*.key")
    assert f" IN KEY 512 3 {key.algorithm} " in public.read_text()
    assert key.record.replace(" ", "") in public.read_text().replace(" ", "")
    assert f"+{key.tag:05}." in private.name

    taken: list[bytes] = []
    with server(lambda octets: taken.append(octets)) as primary:
        commands = f"server 127.0.0.1 {primary.port}\nzone {ZONE}\nupdate add {NAME} 5 A 192.0.2.1\nsend\n"
        nsupdate = ["nsupdate", "-v", "-t", "2", "-k", str(private)]
        subprocess.run(nsupdate, input=commands.encode(), check=False, capture_output=True, timeout=20)
    theirs = taken[0]
    start = theirs.rindex(b"\0\0\x18\0\xff\0\0\0\0")
    rdata = theirs[start + 11 :]
    assert theirs[10:12] == b"\0\1"
    expiration, inception = (int.from_bytes(rdata[at : at + 4], "big") for at in (8, 12))
    ours = key.sign_octets(theirs[:10] + b"\0\0" + theirs[12:start], inception, expiration)
    if algorithm.startswith("ECDSA"):
        # Its signatures are not deterministic: all but the signature is the same, and ours verifies.
        size_of = {"ECDSAP256SHA256": 64, "ECDSAP384SHA384": 96}[algorithm]
        assert ours[:-size_of] == theirs[:-size_of]
    else:
        assert ours == theirs


PEM = {
    "ed25519": (ed25519.Ed25519PrivateKey.generate(), 15),
    "ed448": (ed448.Ed448PrivateKey.generate(), 16),
    "p256": (ec.generate_private_key(ec.SECP256R1()), 13),
    "p384": (ec.generate_private_key(ec.SECP384R1()), 14),
    "rsa": (rsa.generate_private_key(65537, 2048), 8),
}


@pytest.mark.parametrize(("private", "algorithm"), PEM.values(), ids=PEM)
def test_sig0_from_pem(
    private: ed25519.Ed25519PrivateKey | ec.EllipticCurvePrivateKey, algorithm: int, tmp_path: Path
) -> None:
    pem = private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()
    file = written(tmp_path, pem, "alice.pem")
    key = read_sig0(file, "Alice.Example.")
    assert (key.name, key.algorithm) == ("alice.example.", algorithm)
    assert re.fullmatch(r"<Sig0 SIG\(0\) key alice.example \d{5}>", repr(key))
    with pytest.raises(KeyFileError, match="--sig0-name"):
        read_sig0(file)
    file.chmod(0o644)
    with pytest.raises(KeyFileError, match="mode 0644"):
        read_sig0(file, NAME)


@pytest.mark.parametrize(
    "text",
    [
        "Private-key-format: v1.3\nAlgorithm: 15 (ED25519)\nPrivateKey: c2VjcmV0IHNlY3JldCE=\n",
        "Private-key-format: v1.3\nAlgorithm: 99 (NONE)\nPrivateKey: c2VjcmV0IHNlY3JldCE=\n",
        "Private-key-format: v1.3\nAlgorithm: 13\nPrivateKey: secret secret secret!\n",
        "Private-key-format: v1.3\nAlgorithm: 8\nModulus: c2VjcmV0IHNlY3JldCE=\n",
        "secret secret secret secret",
        "-----BEGIN PRIVATE KEY-----\nc2VjcmV0\n-----END PRIVATE KEY-----\n",
    ],
)
def test_what_is_no_sig0_key(text: str, tmp_path: Path) -> None:
    with pytest.raises(KeyFileError, match="no private key") as caught:
        read_sig0(written(tmp_path, text, "Kalice.example.+015+12345.private"))
    assert "secret" not in str(caught.value)
    assert "c2VjcmV0" not in str(caught.value)
