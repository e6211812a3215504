"""What is remembered of a peer that was met: the key it proved, as ssh's known_hosts (RFC 5387 s5.7)."""

from dataclasses import dataclass

from hushwire.policy.assurance import Assurance

HELD_FOR = 30 * 86400.0
"""Seconds for which one that reached its level is not met below it: an address may be somebody else's by then."""


@dataclass(frozen=True, slots=True)
class Known:
    """One subject and its key."""

    subject: str
    """A canonical host name, or an address as text."""
    fingerprint: bytes
    """SHA-256 of the SubjectPublicKeyInfo of the key it proved."""
    first: float
    """When it first proved that key; wall-clock seconds."""
    last: float
    """When it was last counted."""
    times: int
    """How often it was met, counted once an hour at most.  0: it never was, but is pinned."""
    level: Assurance
    """The highest that it ever reached with that key."""
    pinned: bool = False
    """An administrator says that this is its key, and no other."""

    @property
    def is_friend(self) -> bool:
        """Whether it is more than a stranger who came by once: no stranger takes its place."""
        return self.pinned or self.times > 1

    @property
    def until(self) -> float:
        """Wall-clock seconds until which it is not met below its level, unless it is seen again or forgotten."""
        return self.last + HELD_FOR
