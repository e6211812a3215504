"""How sure we are who is there (DESIGN.md section 4)."""

from enum import IntEnum


class Assurance(IntEnum):
    """Levels in rising order: a higher one satisfies whatever requires a lower one."""

    CLEAR = 0
    """Nothing."""
    ENCRYPTED = 1
    """Somebody's key: BTNS (RFC 5386)."""
    CONTINUOUS = 2
    """The same key as ever since first contact (RFC 5387)."""
    TRUSTED = 3
    """The key's fingerprint, or a shared key, is in local configuration."""
    NAMED = 4
    """A key that a DNSSEC-secure record binds to the name meant, at an address that is secure for that name."""

    def __str__(self) -> str:
        return self.name.lower()
