"""The trust store: the keys that an administrator trusts, by fingerprint (RFC 5386 s2)."""

import re
from base64 import b64decode
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import date

from hushwire.policy.pad import fingerprint_text


class BadTrust(ValueError):
    """One clear line: what is wrong with a trust store, and what would be right."""


@dataclass(frozen=True, slots=True)
class Trusted:
    """A key that is trusted, whoever sends it."""

    fingerprint: bytes
    """SHA-256 of its SubjectPublicKeyInfo."""
    label: str = ""
    """The administrator's word for it.  The keys of one host may have the same."""
    added: str = ""
    """The day when it was added, as in 2026-11-23; empty: nobody noted it."""

    def __post_init__(self) -> None:
        if len(self.fingerprint) != 32:
            raise BadTrust(f"a fingerprint of {len(self.fingerprint)} octets; SHA-256 makes 32")
        if self.added and not _is_date(self.added):
            raise BadTrust(f"{self.added!a} is no date; write it as in 2026-11-23")
        if fault := _fault_of(self.label):
            raise BadTrust(f"label {_cut(self.label)}: {fault}")

    @classmethod
    def from_text(cls, line: str) -> "Trusted":
        """From `SHA256:... [DATE] [LABEL]`, or BadTrust; a comment may stand behind it."""
        written, *words = line.partition("#")[0].split() or [""]
        try:
            fingerprint = read_fingerprint(written)
        except BadTrust:
            if written.startswith(("ssh-", "ecdsa-", "-----BEGIN")):
                raise BadTrust("a key; here are fingerprints: `hushwire trust add FILE` makes them of keys") from None
            raise
        # A key has one form here, so that `diff` and `grep` find it.
        if written != fingerprint_text(fingerprint):
            raise BadTrust(
                f"{_cut(written)} is not how a fingerprint is written here; write it as {fingerprint_text(fingerprint)}"
            )
        added = words.pop(0) if words and _is_date(words[0]) else ""
        return cls(fingerprint, " ".join(words), added)

    def __str__(self) -> str:
        """Its line of the file."""
        return " ".join(part for part in (fingerprint_text(self.fingerprint), self.added, self.label) if part)


class TrustStore:
    """The keys that are trusted, in the order of their file.

    The file is its administrator's: his comments and spaces stand as he wrote them, a key is a line, and one that is
    added comes last.  So a difference between two files is a difference between what they trust.
    """

    def __init__(self, keys: Iterable[Trusted] = ()) -> None:
        self._keys: dict[bytes, Trusted] = {}
        self._lines: dict[bytes | int, str] = {}
        """The file's lines: those of keys by fingerprint, all others by number."""
        for key in keys:
            self.add(key)

    @classmethod
    def from_text(cls, text: str) -> "TrustStore":
        """From a file's text, or BadTrust for its first bad line."""
        store, numbers = cls(), dict[bytes, int]()
        for number, line in enumerate(text.removesuffix("\n").split("\n") if text else (), 1):
            try:
                if not line.partition("#")[0].strip():
                    store._lines[number] = line
                    continue
                key = Trusted.from_text(line)
                if not store.add(key, line):
                    there = f"{fingerprint_text(key.fingerprint)} is in line {numbers[key.fingerprint]} already"
                    raise BadTrust(f"{there}; keep one of the two")
                numbers[key.fingerprint] = number
            except BadTrust as bad:
                raise BadTrust(f"line {number}: {bad}") from None
        return store

    def to_text(self) -> str:
        """The text of its file."""
        return "".join(f"{line}\n" for line in self._lines.values())

    def get(self, fingerprint: bytes) -> Trusted | None:
        """The key of a fingerprint, in the same time however many there are."""
        return self._keys.get(fingerprint)

    def labelled(self, label: str) -> list[Trusted]:
        """The keys that have a label."""
        return [key for key in self if key.label == label]

    def add(self, key: Trusted, line: str = "") -> bool:
        """Trust a key; False, and nothing changes, when it is trusted already.  `line`: as somebody has written it."""
        if key.fingerprint in self._keys:
            return False
        self._keys[key.fingerprint] = key
        self._lines[key.fingerprint] = line or str(key)
        return True

    def remove(self, fingerprint: bytes) -> Trusted:
        """Trust a key no more.  Raises KeyError."""
        key = self._keys.pop(fingerprint)
        del self._lines[fingerprint]
        return key

    def __iter__(self) -> Iterator[Trusted]:
        return iter(self._keys.values())

    def __len__(self) -> int:
        return len(self._keys)


def read_fingerprint(text: str) -> bytes:
    """A fingerprint as people type it, or BadTrust: hexadecimal, or base64 with or without SHA256: and padding."""
    body = text.strip()
    body = body[7:] if body[:7].upper() == "SHA256:" else body
    if re.fullmatch(r"[0-9A-Fa-f]{64}", digits := re.sub("[ :]", "", body)):
        return bytes.fromhex(digits)
    body = body.removesuffix("=")
    try:
        fingerprint = b64decode(f"{body}=", validate=True)
    except ValueError:
        fingerprint = b""
    # Of the last character two bits are of no use: what is not the one way to write it, somebody has mistyped.
    if len(fingerprint) == 32 and fingerprint_text(fingerprint) == f"SHA256:{body}":
        return fingerprint
    raise BadTrust(
        f"{_cut(text)} is no fingerprint; write SHA256: and 43 characters of base64, or 64 hexadecimal digits"
    )


def label_of(text: str) -> str:
    """What can be a label of the words that somebody sent with his key."""
    words = "".join(c if c.isprintable() and c != "#" else " " for c in text).split()
    label = " ".join(words)[:LONGEST_LABEL].rstrip()
    return "" if _fault_of(label) else label


def _fault_of(label: str) -> str:
    """Why a text is no label; empty if it is one.  It is one word or more, which the file and a terminal can hold."""
    if len(label) > LONGEST_LABEL:
        return f"{len(label)} characters; {LONGEST_LABEL} are enough"
    if "#" in label or not label.isprintable() or label != " ".join(label.split()):
        return "write words with one space between them, and nothing that is not printed, or is a #"
    if label and _is_date(label.split()[0]):
        return "begins with a date, which would be read as the day when the key was added; begin with a word"
    try:
        read_fingerprint(label)
    except BadTrust:
        return ""
    return "reads as a fingerprint; write a name"


def _is_date(text: str) -> bool:
    try:
        return date.fromisoformat(text).isoformat() == text
    except ValueError:
        return False


def _cut(text: str) -> str:
    """Somebody's text, quoted in a message."""
    return ascii(text if len(text) <= 100 else f"{text[:100]}...")


LONGEST_LABEL = 128
"""Characters."""
