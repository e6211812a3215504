"""Public keys as people send them: PEM (RFC 7468 s13), OpenSSH's lines (RFC 4253 s6.6, RFC 5656 s3.1, RFC 8709 s4)."""

import re
from dataclasses import dataclass

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import load_pem_public_key, load_ssh_public_key

from hushwire.crypto.keys import BadKey, PublicKey


@dataclass(frozen=True, slots=True)
class Sent:
    """A key, and what was said of it."""

    key: PublicKey
    comment: str = ""
    """The words behind the key; else the names before it, as known_hosts has them.  Anybody's text."""


def read_public_keys(text: str) -> list[Sent]:
    """All the keys of a text, or BadKey for the first that is not used: PEM, in any other words, or a key a line."""
    found = list(_ITEM.finditer(text))
    has_pem = any(item["kind"] for item in found)
    keys = []
    for item in found:
        try:
            if item["kind"]:
                keys.append(_read_pem(item))
            # RFC 7468 s2: around PEM there may be text that explains it.
            elif not has_pem or _type_at(item[0].split()) is not None:
                keys.append(_read_line(item[0].split()))
        except BadKey as bad:
            number = text.count("\n", 0, item.start()) + 1
            raise BadKey(f"line {number}: {bad}") from None
    if not keys:
        raise BadKey("no public key in it")
    return keys


def _read_pem(block: re.Match[str]) -> Sent:
    kind = block["kind"]
    if kind.endswith("PRIVATE KEY"):
        raise BadKey("a private key, which its host gives to nobody; give its public half")
    if not kind.endswith("PUBLIC KEY"):
        raise BadKey(f"a {kind}; give the bare PUBLIC KEY that is in it")
    try:
        return Sent(PublicKey.of(load_pem_public_key(block[0].encode())))
    except BadKey:
        raise
    except (ValueError, UnsupportedAlgorithm):
        raise BadKey("no public key that the library reads") from None


def _read_line(words: list[str]) -> Sent:
    """From `[NAMES] TYPE BASE64 [COMMENT]`."""
    before, at = words[0], _type_at(words)
    # Who marked a key as revoked, or limited it to one command, did not write of a host that is to be trusted.
    if before.startswith("@") or _OPTION.match(before):
        raise BadKey(
            f"{before[:100]!a} says what the key is for, which nobody here would heed; give type and key alone"
        )
    if at is None or len(words) < at + 2:
        raise BadKey("no public key; it would be PEM, or as in ssh-ed25519 AAAA... name")
    kind, octets, *comment = words[at:]
    if kind not in TYPES:
        raise BadKey(f"keys of type {kind[:100]!a} are not used")
    try:
        key = PublicKey.of(load_ssh_public_key(f"{kind} {octets}".encode()))
    except BadKey:
        raise
    except (ValueError, UnsupportedAlgorithm):
        raise BadKey(f"no key of type {kind} that the library reads") from None
    # A hashed name (|1|...) tells nobody anything.
    named = before if at and not before.startswith("|") else ""
    return Sent(key, " ".join(comment) or named)


def _type_at(words: list[str]) -> int | None:
    """Where in a line the type of a key is."""
    return next((at for at, word in enumerate(words[:2]) if _TYPE.fullmatch(word)), None)


TYPES = ("ssh-ed25519", "ssh-rsa", "ecdsa-sha2-nistp256", "ecdsa-sha2-nistp384", "ecdsa-sha2-nistp521")
"""OpenSSH's key types that are read."""

_TYPE = re.compile(r"(ssh|ecdsa|sk)-\S+")
_OPTION = re.compile(
    r"[\w-]+=|(cert-authority|restrict|verify-required|(no-)?(touch-required|pty|user-rc|(agent|port|X11)-forwarding))(,|$)",
    re.IGNORECASE,
)
"""What a line of authorized_keys begins with that has options (sshd(8))."""
_ITEM = re.compile(r"-----BEGIN (?P<kind>[A-Z0-9 ]+)-----[^-]*-----END (?P=kind)-----|^[^\S\n]*[^#\s].*$", re.MULTILINE)
"""A block of PEM, or a line that is neither empty nor a comment."""
