"""The IPSECKEY record: RDATA <-> KeyRecord (RFC 4025; ECDSA as RFC 6605; EdDSA as RFC 9373; RSA as RFC 3110).

RDATA is hostile input, signed or not: the owner of any zone may sign anything.  What is not exactly one key of a kind
and size we use, written in its one right way, is no KeyRecord.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from hushwire.crypto.keys import MAX_RSA_BITS, AnyPublicKey, BadKey, KeyKind, PublicKey
from hushwire.names.name import BadName, read_name, write_name
from hushwire.wire.address import IPAddress
from hushwire.wire.registry import OpenEnum

IPSECKEY = 45
"""The RR type (RFC 4025 s2.1 and the IANA registry)."""

MAX_TRIED = 8
"""Records of one set that are looked at: each costs a key's decoding, and later perhaps a verification."""


class Algorithm(OpenEnum):
    """IANA: IPSECKEY Resource Record Parameters, Algorithm Type Field."""

    NONE = 0
    DSA = 1
    RSA = 2
    ECDSA = 3
    EDDSA = 4


class GatewayType(OpenEnum):
    """RFC 4025 s2.3."""

    NONE = 0
    IPV4 = 1
    IPV6 = 2
    NAME = 3


class BadKeyRecord(ValueError):
    """RDATA that is no record we can use; the text says why."""


@dataclass(frozen=True, slots=True)
class KeyRecord:
    """One IPSECKEY record (RFC 4025 s2)."""

    precedence: int
    """0..255, lower is preferred (RFC 4025 s2.2)."""
    gateway: IPAddress | str | None
    """Whom to speak with in the owner's stead; a str is a canonical host name.  A claim, not yet verified."""
    key: PublicKey
    """The owner's key: records without one have no use here."""


def read_record(rdata: bytes) -> KeyRecord:
    """RDATA -> KeyRecord, or BadKeyRecord."""
    if len(rdata) < 3:
        raise BadKeyRecord(f"{len(rdata)} octets of RDATA, fewer than 3")
    precedence, gateway_type, algorithm = rdata[0], GatewayType(rdata[1]), Algorithm(rdata[2])
    gateway, length = _read_gateway(gateway_type, rdata[3:])
    return KeyRecord(precedence, gateway, _read_key(algorithm, rdata[3 + length :]))


def write_record(record: KeyRecord) -> bytes:
    """KeyRecord -> RDATA."""
    algorithm, field = _key_field(record.key)
    match record.gateway:
        case None:
            gateway_type, gateway = GatewayType.NONE, b""
        case IPv4Address() as address:
            gateway_type, gateway = GatewayType.IPV4, address.packed
        case IPv6Address() as address:
            gateway_type, gateway = GatewayType.IPV6, address.packed
        case str(name):
            gateway_type, gateway = GatewayType.NAME, write_name(name)
    return bytes((record.precedence, gateway_type, algorithm)) + gateway + field


def read_records(rdatas: Iterable[bytes]) -> tuple[tuple[KeyRecord, ...], tuple[str, ...]]:
    """The usable records of a set, preferred first, and why the others were skipped.  Nothing is raised."""
    records: list[KeyRecord] = []
    skipped: list[str] = []
    # Precedence is the first octet, so plain order is RFC 4025 s2.2's order, and the same at every run.
    in_order = sorted(set(rdatas))
    for rdata in in_order[:MAX_TRIED]:
        try:
            records.append(read_record(rdata))
        except BadKeyRecord as bad:
            skipped.append(str(bad))
    if len(in_order) > MAX_TRIED:
        skipped.append(f"{len(in_order) - MAX_TRIED} more records than the {MAX_TRIED} looked at")
    return tuple(records), tuple(skipped)


def generic(rdata: bytes) -> str:
    """RDATA as RFC 3597 s5 writes it, for a server that does not know the type or is not to judge it."""
    return f"\\# {len(rdata)} {rdata.hex()}"


def _read_gateway(kind: GatewayType, octets: bytes) -> tuple[IPAddress | str | None, int]:
    """The gateway, and how many octets it took."""
    match kind:
        case GatewayType.NONE:
            return None, 0
        case GatewayType.IPV4 if len(octets) >= 4:
            return IPv4Address(octets[:4]), 4
        case GatewayType.IPV6 if len(octets) >= 16:
            return IPv6Address(octets[:16]), 16
        case GatewayType.IPV4 | GatewayType.IPV6:
            raise BadKeyRecord("the gateway address is cut short")
        case GatewayType.NAME:
            try:
                return read_name(octets)
            except BadName as bad:
                raise BadKeyRecord(f"gateway: {bad}") from bad
    raise BadKeyRecord(f"unknown gateway type {int(kind)}")


def _read_key(algorithm: Algorithm, field: bytes) -> PublicKey:
    reader = {Algorithm.RSA: _read_rsa, Algorithm.ECDSA: _read_ecdsa, Algorithm.EDDSA: _read_eddsa}.get(algorithm)
    if reader is None:
        raise BadKeyRecord("it holds no key" if algorithm is Algorithm.NONE else f"{algorithm.name} is not used")
    try:
        return PublicKey.of(reader(field))
    except BadKeyRecord:
        raise
    except BadKey as bad:
        raise BadKeyRecord(str(bad)) from bad
    except (ValueError, UnsupportedAlgorithm) as error:
        raise BadKeyRecord(f"{algorithm.name}: the library does not take the key") from error


def _read_rsa(field: bytes) -> AnyPublicKey:
    """RFC 3110 s2: the exponent's length in one octet, or in two after a zero; the exponent; the modulus."""
    if len(field) > MAX_RSA_OCTETS:
        raise BadKeyRecord("RSA: longer than any key we use")
    # RFC 3110 s2: the long form is for exponents of more than 255 octets, and none of those is of use.
    if field[:1] in (b"", b"\0"):
        raise BadKeyRecord("RSA: no exponent, or its length in the long form")
    length = field[0]
    exponent, modulus = field[1 : 1 + length], field[1 + length :]
    # RFC 3110 s2: leading zero octets are prohibited in both.  So one key has one form.
    if exponent[:1] in (b"", b"\0") or modulus[:1] in (b"", b"\0"):
        raise BadKeyRecord("RSA: an empty or zero-led exponent or modulus")
    return rsa.RSAPublicNumbers(int.from_bytes(exponent, "big"), int.from_bytes(modulus, "big")).public_key()


def _read_ecdsa(field: bytes) -> AnyPublicKey:
    """RFC 6605 s4: x | y, without the octet that says so; the length tells the curve."""
    curve = ECDSA_CURVES.get(len(field))
    if curve is None:
        raise BadKeyRecord(f"ECDSA: {len(field)} octets, neither P-256 nor P-384")
    # The library refuses a point that is not on the curve.
    return ec.EllipticCurvePublicKey.from_encoded_point(curve, b"\x04" + field)


def _read_eddsa(field: bytes) -> AnyPublicKey:
    """RFC 9373 s2 and RFC 8080 s3: the key as RFC 8032 writes it; the length tells the curve."""
    match len(field):
        case 32:
            return ed25519.Ed25519PublicKey.from_public_bytes(field)
        case 57:
            return ed448.Ed448PublicKey.from_public_bytes(field)
    raise BadKeyRecord(f"EdDSA: {len(field)} octets, neither Ed25519 nor Ed448")


def _key_field(public: PublicKey) -> tuple[Algorithm, bytes]:
    """The algorithm and public key fields that say `public`."""
    match public.key:
        case rsa.RSAPublicKey() as key:
            exponent, modulus = _octets(key.public_numbers().e), _octets(key.public_numbers().n)
            return Algorithm.RSA, bytes((len(exponent),)) + exponent + modulus
        case ec.EllipticCurvePublicKey() as key if public.kind is not KeyKind.ECDSA_P521:
            return Algorithm.ECDSA, key.public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)[1:]
        case ed25519.Ed25519PublicKey() | ed448.Ed448PublicKey() as key:
            return Algorithm.EDDSA, key.public_bytes_raw()
    raise BadKeyRecord(f"IPSECKEY has no form for a key of kind {public.kind}")


def _octets(number: int) -> bytes:
    return number.to_bytes((number.bit_length() + 7) // 8, "big")


MAX_RSA_OCTETS = 1 + 8 + MAX_RSA_BITS // 8
ECDSA_CURVES: dict[int, ec.EllipticCurve] = {64: ec.SECP256R1(), 96: ec.SECP384R1()}
