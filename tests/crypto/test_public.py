"""Public keys as people send them: made by ssh-keygen and openssl, read as the keys that they are."""

import hashlib
import subprocess
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ed25519, rsa, x25519
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from hypothesis import given
from hypothesis import strategies as st

from hushwire.crypto.keys import BadKey, KeyKind, PrivateKey
from hushwire.crypto.public import Sent, read_public_keys

BOB = PrivateKey.generate(KeyKind.ED25519).public
LINE = BOB.key.public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH).decode()
PEM = BOB.key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()


def tool(*command: str | Path) -> bytes:
    return subprocess.run(command, check=True, capture_output=True, timeout=60).stdout


def fault(text: str) -> str:
    with pytest.raises(BadKey) as caught:
        read_public_keys(text)
    (line,) = str(caught.value).splitlines()
    assert line.isprintable()
    return line


def beginning(text: str) -> str:
    """Without the key itself, which is another in each process of a test run."""
    return text[:24]


@pytest.mark.parametrize(
    ("arguments", "kind"),
    [
        (["-t", "ed25519"], KeyKind.ED25519),
        (["-t", "rsa", "-b", "2048"], KeyKind.RSA),
        (["-t", "ecdsa", "-b", "256"], KeyKind.ECDSA_P256),
        (["-t", "ecdsa", "-b", "384"], KeyKind.ECDSA_P384),
        (["-t", "ecdsa", "-b", "521"], KeyKind.ECDSA_P521),
    ],
    ids=str,
)
def test_keys_of_openssh(arguments: list[str], kind: KeyKind, tmp_path: Path) -> None:
    """The fingerprint is of what openssl makes of the same key: all programs mean the same."""
    file = tmp_path / "key"
    tool("ssh-keygen", "-q", "-N", "", "-C", "bob@example net", "-f", file, *arguments)
    (sent,) = read_public_keys(file.with_suffix(".pub").read_text())
    assert (sent.key.kind, sent.comment) == (kind, "bob@example net")
    if kind is KeyKind.ED25519:
        # ssh-keygen writes no SubjectPublicKeyInfo of these (RFC 8410 s4): the point stands behind 12 octets.
        spki = bytes.fromhex("302a300506032b6570032100") + sent.key.key.public_bytes(Encoding.Raw, PublicFormat.Raw)
    else:
        pem = tool("ssh-keygen", "-e", "-m", "PKCS8", "-f", file)
        (tmp_path / "pem").write_bytes(pem)
        spki = tool("openssl", "pkey", "-pubin", "-in", tmp_path / "pem", "-outform", "DER")
        assert [other.key for other in read_public_keys(pem.decode())] == [sent.key]
    assert sent.key.fingerprint == hashlib.sha256(spki).digest()


@pytest.mark.parametrize(
    ("arguments", "kind"),
    [
        (["-algorithm", "ed25519"], KeyKind.ED25519),
        (["-algorithm", "ed448"], KeyKind.ED448),
        (["-algorithm", "rsa", "-pkeyopt", "rsa_keygen_bits:2048"], KeyKind.RSA),
        (["-algorithm", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"], KeyKind.ECDSA_P256),
        (["-algorithm", "ec", "-pkeyopt", "ec_paramgen_curve:P-521"], KeyKind.ECDSA_P521),
    ],
    ids=str,
)
def test_keys_of_openssl(arguments: list[str], kind: KeyKind, tmp_path: Path) -> None:
    tool("openssl", "genpkey", *arguments, "-out", tmp_path / "key")
    pem = tool("openssl", "pkey", "-in", tmp_path / "key", "-pubout")
    spki = tool("openssl", "pkey", "-in", tmp_path / "key", "-pubout", "-outform", "DER")
    (sent,) = read_public_keys(pem.decode())
    assert (sent.key.kind, sent.comment) == (kind, "")
    assert sent.key.fingerprint == hashlib.sha256(spki).digest()


def test_the_host_keys_that_ssh_keygen_hashes(tmp_path: Path) -> None:
    file = tmp_path / "known_hosts"
    file.write_text(f"bob.example,192.0.2.2 {LINE}\n[bob.example]:2222 {LINE} by telephone\n")
    assert read_public_keys(file.read_text()) == [Sent(BOB, "bob.example,192.0.2.2"), Sent(BOB, "by telephone")]
    tool("ssh-keygen", "-q", "-H", "-f", file)
    assert file.read_text().startswith("|1|")
    # Each name has become a line.
    assert read_public_keys(file.read_text()) == [Sent(BOB), Sent(BOB), Sent(BOB, "by telephone")]


def test_many_keys_with_comments_and_blank_lines() -> None:
    others = [PrivateKey.generate(KeyKind.ED25519).public for _ in range(3)]
    lines = [key.key.public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH).decode() for key in others]
    text = "# all of us\n\n" + "\r\n".join(f"  {line} host{number}" for number, line in enumerate(lines))
    assert read_public_keys(text) == [Sent(key, f"host{number}") for number, key in enumerate(others)]


def test_pem_in_other_words() -> None:
    """RFC 7468 s2; as `hushwire key show` prints it.  A key a line between them is not passed over."""
    other = PrivateKey.generate(KeyKind.ECDSA_P256).public
    pem = other.key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()
    text = f"type: ed25519\nfingerprint: 0123\n{PEM}\n{LINE} bob\n{pem}Regards, Bob\n"
    assert read_public_keys(text) == [Sent(BOB), Sent(BOB, "bob"), Sent(other)]
    assert read_public_keys(PEM.replace("\n", "\r\n")) == [Sent(BOB)]


def test_rsa_public_key_in_pem() -> None:
    public = PrivateKey.generate(KeyKind.RSA).public
    pem = public.key.public_bytes(Encoding.PEM, PublicFormat.PKCS1).decode()
    assert read_public_keys(pem) == [Sent(public)]


def openssh(key: rsa.RSAPublicKey | ed25519.Ed25519PublicKey) -> str:
    return key.public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH).decode()


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("nonsense", "line 2: no public key; it would be PEM, or as in ssh-ed25519 AAAA... name"),
        ("ssh-ed25519", "line 2: no public key"),
        ("ssh-ed25519 AAAA", "line 2: no key of type ssh-ed25519 that the library reads"),
        ("ssh-ed25519 \u20ac", "line 2: no key of type ssh-ed25519"),
        (LINE.replace("ssh-ed25519", "ssh-rsa"), "line 2: no key of type ssh-rsa"),
        (LINE[:-2], "line 2: no key of type ssh-ed25519"),
        ("ssh-dss AAAA", "line 2: keys of type 'ssh-dss' are not used"),
        ("sk-ssh-ed25519@openssh.com AAAA", "'sk-ssh-ed25519@openssh.com' are not used"),
        ("ssh-ed25519-cert-v01@openssh.com AAAA", "'ssh-ed25519-cert-v01@openssh.com' are not used"),
        (f"@revoked bob.example {LINE}", "line 2: '@revoked' says what the key is for"),
        (f"@cert-authority *.example {LINE}", "'@cert-authority'"),
        (f"no-pty {LINE}", "'no-pty'"),
        (f"restrict,pty {LINE}", "'restrict,pty'"),
        (f"cert-authority {LINE}", "'cert-authority'"),
        (f'command="echo hello" {LINE}', "'command=\"echo'"),
        (f'from="192.0.2.2" {LINE}', "'from="),
        (f"a b {LINE}", "line 2: no public key"),
        (openssh(rsa.generate_private_key(65537, 1024).public_key()), "line 2: RSA modulus of 1024 bits, not 2048"),
        (openssh(rsa.generate_private_key(3, 2048).public_key()), "line 2: RSA exponent not between"),
        (openssh(ed25519.Ed25519PublicKey.from_public_bytes(bytes(32))), "line 2: EdDSA point of low order"),
    ],
    ids=beginning,
)  # fmt: skip
def test_a_line_that_is_not_taken(line: str, said: str) -> None:
    assert said in fault(f"{LINE} good\n{line}\n{LINE} good\n")


@pytest.mark.parametrize(
    "host", ["no-reply.example", "restrict.example", "pty2", "192.0.2.2", "2001:db8::1", "*.example"]
)
def test_a_host_that_is_no_option(host: str) -> None:
    assert read_public_keys(f"{host} {LINE}") == [Sent(BOB, host)]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "no public key in it"),
        ("# nothing\n\n", "no public key in it"),
        (PEM.replace("M", "!"), "line 1: no public key that the library reads"),
        (PEM.replace("PUBLIC KEY", "CERTIFICATE"), "line 1: a CERTIFICATE; give the bare PUBLIC KEY"),
        (PEM + PEM.replace("PUBLIC", "PRIVATE"), "line 4: a private key, which its host gives to nobody"),
        (PEM.splitlines()[0], "line 1: no public key; it would be PEM"),
        (
            "---- BEGIN SSH2 PUBLIC KEY ----\nAAAA\n---- END SSH2 PUBLIC KEY ----\n",
            "line 1: no public key; it would be",
        ),
    ],
    ids=beginning,
)
def test_a_text_that_is_not_taken(text: str, said: str) -> None:
    assert said in fault(text)


def test_private_keys_are_not_quoted() -> None:
    pem = PrivateKey.generate(KeyKind.ED25519).write_pem().expose().decode()
    secret = pem.splitlines()[1]
    for text in (pem, pem.replace("-----END", "-----DNE")):
        assert secret not in fault(text)


def test_a_key_that_signs_nothing() -> None:
    key = x25519.X25519PrivateKey.generate().public_key()
    pem = key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()
    assert "X25519PublicKey are not used" in fault(pem)


@given(st.text() | st.lists(st.sampled_from([LINE, PEM, "ssh-rsa ", "-----BEGIN ", "#", "\n", "@", "x "])).map("".join))
def test_any_text_is_keys_or_one_line(text: str) -> None:
    keys, mistake = list[Sent](), ""
    try:
        keys = read_public_keys(text)
    except BadKey as bad:
        mistake = str(bad)
    assert bool(keys) is not bool(mistake)
    assert "\n" not in mistake
