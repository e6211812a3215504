"""AlgorithmIdentifiers, in the DER that AUTH payloads carry: RFC 7427 appendix A, RFC 4055, RFC 8410, RFC 8420.

An AUTH payload's identifier is compared with these octets and never parsed: an identifier not listed is not supported.
"""

from hushwire.wire.registry import HashID


def ed25519() -> bytes:
    """RFC 8420 A: without parameters."""
    return _sequence(_oid("2b6570"))


def ed448() -> bytes:
    return _sequence(_oid("2b6571"))


def ecdsa(hash_id: HashID) -> bytes:
    """RFC 7427 A.3: ecdsa-with-SHA2, without parameters."""
    return _sequence(_oid("2a8648ce3d04" + {SHA2_256: "0302", SHA2_384: "0303", SHA2_512: "0304"}[hash_id]))


def rsa_pkcs1(hash_id: HashID) -> bytes:
    """RFC 7427 A.1: sha2WithRSAEncryption, with NULL."""
    return _sequence(_oid(_PKCS1 + {SHA2_256: "0b", SHA2_384: "0c", SHA2_512: "0d"}[hash_id]), _NULL)


def rsa_pss(hash_id: HashID, *, trailer: bool) -> bytes:
    """RFC 4055 s3.1: RSASSA-PSS with MGF1 and one hash throughout, and a salt as long as its digest.

    `trailer`: with trailerField 1 spelt out, as RFC 7427 A.4.3 has it although DER leaves out a default.
    """
    digest = _sequence(_oid(_SHA2 + {SHA2_256: "01", SHA2_384: "02", SHA2_512: "03"}[hash_id]), _NULL)
    mask = _sequence(_oid(_PKCS1 + "08"), digest)
    salt = _der(0x02, bytes(({SHA2_256: 32, SHA2_384: 48, SHA2_512: 64}[hash_id],)))
    parameters = [_der(0xA0, digest), _der(0xA1, mask), _der(0xA2, salt)]
    if trailer:
        parameters.append(_der(0xA3, _der(0x02, b"\x01")))
    return _sequence(_oid(_PKCS1 + "0a"), _sequence(*parameters))


def _sequence(*parts: bytes) -> bytes:
    return _der(0x30, b"".join(parts))


def _oid(contents: str) -> bytes:
    return _der(0x06, bytes.fromhex(contents))


def _der(tag: int, contents: bytes) -> bytes:
    """X.690 s8.1 in the short form: every identifier here has fewer than 128 octets."""
    return bytes((tag, len(contents))) + contents


SHA2_256, SHA2_384, SHA2_512 = HashID.SHA2_256, HashID.SHA2_384, HashID.SHA2_512
_NULL = b"\x05\x00"
_PKCS1 = "2a864886f70d0101"
_SHA2 = "6086480165030402"
