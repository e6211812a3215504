"""Who may change the DNS: TSIG keys (RFC 8945) and SIG(0) keys (RFC 2931), from the files that servers' tools write.

Both sign a message in full.  A TSIG secret lies on the server too; of a SIG(0) key the server has the public half only,
in a KEY record, so whoever takes the server's files cannot sign.
"""

import base64
import binascii
import os
import re
import struct
import time
from dataclasses import dataclass
from pathlib import Path

import dns.dnssec
import dns.dnssecalgs
import dns.exception
import dns.message
import dns.name
import dns.rdatatype
import dns.tsig
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519, rsa
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from hushwire.crypto.secret import Secret
from hushwire.daemon.keyfile import KeyFileError, read_shared

ALGORITHMS = ("hmac-sha256", "hmac-sha384", "hmac-sha512", "hmac-sha224")
"""RFC 8945 s6: MD5 must not be used, and SHA-1 should not."""
SHORTEST = 16
"""Octets of a TSIG secret."""
VALIDITY = 300
"""Seconds before and after now that a signature is good for (RFC 2931 s3.2, and the fudge of RFC 8945 s10)."""


@dataclass(frozen=True, slots=True)
class Tsig:
    """A shared secret with a name, both known to the server."""

    name: str
    """In presentation form."""
    algorithm: str
    """One of ALGORITHMS."""
    secret: Secret

    def sign(self, message: dns.message.Message) -> bytes:
        """The message's octets with their TSIG record; `message` remembers what to verify the response with."""
        key = dns.tsig.Key(self.name, self.secret.expose(), f"{self.algorithm}.")
        message.use_tsig(key, fudge=VALIDITY)
        return message.to_wire()

    def __str__(self) -> str:
        return f"TSIG key {self.name.rstrip('.')}"


SigningKey = rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey | ed448.Ed448PrivateKey


@dataclass(frozen=True, slots=True, repr=False)
class Sig0:
    """A private key whose public half is a KEY record of `name`."""

    name: str
    """In presentation form."""
    algorithm: int
    """DNSSEC algorithm number (RFC 4034 A.1)."""
    key: SigningKey

    @property
    def tag(self) -> int:
        """RFC 2535 s4.1.6.  Of a KEY for a host as dnssec-keygen makes it: flags 512, protocol 3."""
        return dns.dnssec.key_id(dns.dnssec.make_dnskey(self.key.public_key(), self.algorithm, flags=512))

    @property
    def record(self) -> str:
        """The KEY record to put into the zone."""
        key = dns.dnssec.make_dnskey(self.key.public_key(), self.algorithm, flags=512)
        return f"{self.name} IN KEY {key.to_text()}"

    def sign(self, message: dns.message.Message) -> bytes:
        """The message's octets with their SIG(0) record."""
        now = int(time.time())
        return self.sign_octets(message.to_wire(), now - VALIDITY, now + VALIDITY)

    def sign_octets(self, octets: bytes, inception: int, expiration: int) -> bytes:
        """A whole message, its signature good between two wall times, in seconds."""
        # RFC 2931 s3: type covered, labels and original TTL are zero.
        fields = struct.pack(">HBBIIIH", 0, self.algorithm, 0, 0, expiration, inception, self.tag)
        rdata = fields + dns.name.from_text(self.name).canonicalize().to_digestable()
        # RFC 2931 s3.1: signed are the SIG RDATA without its signature, and the message as it was without the SIG RR.
        rdata += dns.dnssecalgs.get_algorithm_cls(self.algorithm)(key=self.key).sign(rdata + octets)
        # The owner is the root, the class ANY, the TTL zero (RFC 2931 s3), and it is the last additional record.
        record = b"\0" + struct.pack(">HHIH", dns.rdatatype.SIG, ANY, 0, len(rdata)) + rdata
        additional = int.from_bytes(octets[10:12], "big") + 1
        return octets[:10] + additional.to_bytes(2, "big") + octets[12:] + record

    def __str__(self) -> str:
        return f"SIG(0) key {self.name.rstrip('.')} {self.tag:05}"

    def __repr__(self) -> str:
        return f"<Sig0 {self}>"

    def __reduce__(self) -> tuple[object, ...]:
        raise TypeError("a Sig0 is not pickled")


Credential = Tsig | Sig0


def read_tsig(file: Path) -> Tsig:
    """BIND's `key "NAME" { algorithm A; secret "S"; };`, or one line `A:NAME:S`, which Knot's tools write."""
    text = _read(file)
    if found := BIND.search(COMMENTS.sub(r"\1 ", text)):
        name, body = found[1], found[2]
        fields = {field[1]: field[2] for field in FIELD.finditer(body)}
        algorithm, secret = fields.get("algorithm", ""), fields.get("secret", "")
    elif found := ONE_LINE.search(text):
        algorithm, name, secret = found.groups()
    else:
        raise KeyFileError(f'{file}: no TSIG key; it is key "NAME" {{ algorithm A; secret "S"; }}; or A:NAME:S')
    algorithm = algorithm.lower().removesuffix(".")
    if algorithm not in ALGORITHMS:
        raise KeyFileError(f"{file}: algorithm {algorithm[:32]!a}; it must be one of {', '.join(ALGORITHMS)}")
    try:
        octets = base64.b64decode(secret, validate=True)
    except (binascii.Error, ValueError):
        # The cause would carry the text.
        raise KeyFileError(f"{file}: the secret is no base64") from None
    if len(octets) < SHORTEST:
        raise KeyFileError(f"{file}: a secret of {len(octets)} octets; it must have {SHORTEST} or more")
    return Tsig(_name(file, name), algorithm, Secret(octets))


def read_sig0(file: Path, name: str | None = None) -> Sig0:
    """BIND's Kname.+alg+tag.private, or a key in PEM; its KEY record's name is `name`, or what the file's name says."""
    text = _read(file)
    if name is None:
        if not (named := PRIVATE_FILE.fullmatch(file.name)):
            raise KeyFileError(f"{file}: the file's name does not tell whose KEY record it is; say so with --sig0-name")
        name = named[1]
    try:
        key = _read_pem(text) if "PRIVATE KEY-----" in text else _read_bind(text)
        algorithm = _algorithm(key, text)
    except (ValueError, KeyError, TypeError, UnsupportedAlgorithm):
        raise KeyFileError(
            f"{file}: no private key of Ed25519, Ed448, ECDSA P-256 or P-384, or RSA, in BIND's form or PEM"
        ) from None
    return Sig0(_name(file, name), algorithm, key)


def _read(file: Path) -> str:
    """The text of a file that only its user can read, who is ourselves or root."""
    octets = read_shared(file).expose()
    try:
        if (user := file.stat().st_uid) not in (0, os.geteuid()):
            raise KeyFileError(f"{file}: belongs to user {user}; it must belong to you or to root")
    except OSError as error:
        raise KeyFileError(f"{file}: {error.strerror}") from None
    return octets.decode("latin-1")


def _name(file: Path, text: str) -> str:
    try:
        return dns.name.from_text(text).canonicalize().to_text()
    except (dns.exception.DNSException, UnicodeError):
        raise KeyFileError(f"{file}: {text[:64]!a} is no name of a key") from None


def _read_pem(text: str) -> SigningKey:
    key = load_pem_private_key(text.encode("latin-1"), None)
    if not isinstance(key, SigningKey):
        raise TypeError
    return key


def _read_bind(text: str) -> SigningKey:
    """Private-key-format v1.x: one `Field: base64` a line."""
    lines = (line.partition(":") for line in text.splitlines())
    fields = {field.strip(): value.strip() for field, _, value in lines}
    number = int(fields["Algorithm"].split()[0])

    def octets(field: str) -> bytes:
        return base64.b64decode(fields[field], validate=True)

    def integer(field: str) -> int:
        return int.from_bytes(octets(field), "big")

    match number:
        case 8 | 10:
            public = rsa.RSAPublicNumbers(integer("PublicExponent"), integer("Modulus"))
            return rsa.RSAPrivateNumbers(
                integer("Prime1"), integer("Prime2"), integer("PrivateExponent"),
                integer("Exponent1"), integer("Exponent2"), integer("Coefficient"), public,
            ).private_key()  # fmt: skip
        case 13 | 14:
            return ec.derive_private_key(integer("PrivateKey"), ec.SECP256R1() if number == 13 else ec.SECP384R1())
        case 15:
            return ed25519.Ed25519PrivateKey.from_private_bytes(octets("PrivateKey"))
        case 16:
            return ed448.Ed448PrivateKey.from_private_bytes(octets("PrivateKey"))
    raise ValueError


def _algorithm(key: SigningKey, text: str) -> int:
    match key:
        case ed25519.Ed25519PrivateKey():
            return 15
        case ed448.Ed448PrivateKey():
            return 16
        case rsa.RSAPrivateKey():
            return 10 if re.search(r"^Algorithm:\s*10\b", text, re.MULTILINE) else 8
        case ec.EllipticCurvePrivateKey():
            return {"secp256r1": 13, "secp384r1": 14}[key.curve.name]


ANY = 255
# What is quoted is kept: base64 has "//" in it, and no comment begins there.
COMMENTS = re.compile(r'("[^"\n]*")|/\*.*?\*/|(?:#|//)[^\n]*', re.DOTALL)
BIND = re.compile(r'\bkey\s+"?([^\s"{;]+)"?\s*\{([^}]*)\}')
FIELD = re.compile(r'\b(algorithm|secret)\s+"?([^\s";]+)"?\s*;')
# Knot's keymgr writes it as a comment above its own configuration.
ONE_LINE = re.compile(r"^#?[ \t]*(hmac-[a-z0-9]+):([^\s:]+):(\S+)[ \t]*$", re.MULTILINE | re.IGNORECASE)
PRIVATE_FILE = re.compile(r"K(.+)\.\+\d{3}\+\d{5}\.private")
