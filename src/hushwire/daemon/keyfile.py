"""Key files: what is in them, and who else could have read it."""

import os
import stat
from pathlib import Path

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import load_pem_public_key

from hushwire.crypto.keys import BadKey, PrivateKey, PublicKey
from hushwire.crypto.secret import Secret
from hushwire.policy.trust import BadTrust, TrustStore

LARGEST = 1 << 16
"""Octets of a key file."""
LARGEST_STORE = 1 << 24
"""Octets of a trust store: of some 200,000 keys."""
SHORTEST_PSK = 16
"""Octets of a shared key: less could be guessed from one recorded exchange (RFC 7296 s2.15)."""


class KeyFileError(Exception):
    """One clear line: which file, what is wrong with it, what would be right."""


def read_private(file: Path, descriptor: int | None = None) -> PrivateKey:
    """The private key in a file that nobody but its owner can read; `descriptor`: of the file, opened by another."""
    pem, mode = _read(file, descriptor)
    try:
        private = PrivateKey.read_pem(pem)
    except BadKey as bad:
        raise KeyFileError(f"{file}: {bad}") from None
    _check_mode(file, mode)
    return private


def read_public(file: Path) -> PublicKey:
    """The public key in a file, or the public half of the private key there."""
    pem, _ = _read(file)
    if b"PRIVATE KEY" in pem or b"PUBLIC KEY" not in pem:
        return read_private(file).public
    try:
        return PublicKey.of(load_pem_public_key(pem))
    except BadKey as bad:
        raise KeyFileError(f"{file}: {bad}") from None
    except (ValueError, UnsupportedAlgorithm):
        raise KeyFileError(f"{file}: no public key in PEM") from None


def read_shared(file: Path) -> Secret:
    """A shared key: the file's octets without the white space at their ends."""
    octets, mode = _read(file)
    _check_mode(file, mode)
    shared = octets.strip()
    if len(shared) < SHORTEST_PSK:
        raise KeyFileError(f"{file}: a shared key of {len(shared)} octets; it must have {SHORTEST_PSK} or more")
    return Secret(shared)


def read_trusted(file: Path) -> TrustStore:
    """A trust store that nobody but its owner can write: who can decides whom this host trusts."""
    octets, mode = _read(file, most=LARGEST_STORE)
    if mode & 0o022:
        raise KeyFileError(f"{file}: mode {mode:04o} lets others add keys; it must be {mode & ~0o022:04o}")
    try:
        return TrustStore.from_text(octets.decode())
    except UnicodeDecodeError:
        raise KeyFileError(f"{file}: not UTF-8 text") from None
    except BadTrust as bad:
        raise KeyFileError(f"{file}: {bad}") from None


def open_file(file: Path) -> int:
    """A descriptor of a key file, of which nothing is read.  Raises KeyFileError."""
    try:
        # Without O_NONBLOCK a FIFO would keep us waiting.
        return os.open(file, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        raise KeyFileError(f"{file}: {error.strerror}") from None


def _check_mode(file: Path, mode: int) -> None:
    if mode & 0o077:
        raise KeyFileError(f"{file}: mode {mode:04o} gives others a private key; it must be 0600 or 0400")


def _read(file: Path, descriptor: int | None = None, most: int = LARGEST) -> tuple[bytes, int]:
    """A regular file's octets and mode; both from one descriptor, so that they belong together."""
    opened = open_file(file) if descriptor is None else descriptor
    try:
        status = os.fstat(opened)
        if not stat.S_ISREG(status.st_mode):
            raise KeyFileError(f"{file}: not a regular file")
        octets = os.read(opened, most + 1)
    except OSError as error:
        raise KeyFileError(f"{file}: {error.strerror}") from None
    finally:
        os.close(opened)
    if len(octets) > most:
        raise KeyFileError(f"{file}: more than {most} octets; too long to be {'a key' if most == LARGEST else 'keys'}")
    return octets, stat.S_IMODE(status.st_mode)
