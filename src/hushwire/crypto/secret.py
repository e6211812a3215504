"""Octets that must never be printed."""

import hmac


class Secret:
    """Key material.  Its repr is its length; reading the octets is spelt out, so that a review can grep for it."""

    __slots__ = ("_octets",)

    def __init__(self, octets: bytes) -> None:
        self._octets = bytes(octets)

    def expose(self) -> bytes:
        """The octets themselves, for a primitive or a codec; never for a log."""
        return self._octets

    def __len__(self) -> int:
        return len(self._octets)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Secret):
            return NotImplemented
        return hmac.compare_digest(self._octets, other._octets)

    __hash__ = None  # type: ignore[assignment]  # A hash of a key is a thing one should not have lying about.

    def __repr__(self) -> str:
        return f"<Secret {len(self._octets)} octets>"

    def __reduce__(self) -> tuple[object, ...]:
        raise TypeError("a Secret is not pickled")
