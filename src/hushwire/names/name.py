"""Host names in one canonical form (RFC 1123 s2.1, RFC 5890 s2.3.2.1), so that equal names are equal strings."""

import re

MAX_LENGTH = 253
"""Characters of a name without its trailing dot: 255 octets on the wire (RFC 1035 s2.3.4)."""


class BadName(ValueError):
    """Text or octets that are no host name.  The offending text is shown escaped and cut."""

    def __init__(self, text: str, reason: str) -> None:
        shown = text if len(text) <= 64 else text[:64] + "..."
        super().__init__(f"{shown!a} is no host name: {reason}")


def host_name(text: str) -> str:
    """The canonical form: A-labels in lower case, without the trailing dot.

    Underscores are let in: they are no part of a host name by the letter, and common in the field.
    """
    # The length comes first, so that nothing below works on a megabyte.
    if len(text) > MAX_LENGTH + 1:
        raise BadName(text, f"longer than {MAX_LENGTH} characters")
    if not text.isascii():
        raise BadName(text, "not ASCII; write its xn-- form")
    name = text.lower().removesuffix(".")
    if len(name) > MAX_LENGTH:
        raise BadName(text, f"longer than {MAX_LENGTH} characters")
    for label in name.split("."):
        if not label:
            raise BadName(text, "an empty label")
        if len(label) > 63:
            raise BadName(text, "a label longer than 63 characters")
        if not LABEL.fullmatch(label):
            raise BadName(text, "a label may hold letters, digits, hyphens within, and underscores")
    # RFC 1123 s2.1: what looks like a dotted address is an address, and nobody may be named like one.
    if name.rpartition(".")[2].isdigit():
        raise BadName(text, "its last label is a number, as an address has")
    return name


def read_name(octets: bytes) -> tuple[str, int]:
    """Read an uncompressed name at the start of `octets`; answer its canonical form and its length in octets."""
    labels: list[str] = []
    position = 0
    while True:
        if position >= len(octets):
            raise BadName(".".join(labels), "it ends within a label")
        length = octets[position]
        # RFC 4025 s2.5: the gateway name is not compressed.  A pointer (11) is refused, and so a loop cannot be.
        if length > 63:
            raise BadName(".".join(labels), "compressed, or a label type nobody uses")
        position += 1
        if length == 0:
            break
        if position + length > len(octets) or position + length > MAX_LENGTH + 1:
            raise BadName(".".join(labels), "it ends within a label, or is too long")
        label = octets[position : position + length].decode("latin-1")
        if "." in label:
            raise BadName(label, "a dot within a label")
        labels.append(label)
        position += length
    return host_name(".".join(labels)), position


def write_name(name: str) -> bytes:
    """The wire form of a canonical name, uncompressed."""
    return b"".join(bytes((len(label),)) + label.encode("ascii") for label in name.split(".")) + b"\0"


LABEL = re.compile(r"[a-z0-9_]([a-z0-9_-]*[a-z0-9_])?")
