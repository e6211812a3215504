"""wire: reading octets without ever passing their end."""

from struct import Struct
from typing import Any, Self


class DecodeError(Exception):
    """Octets that are not what their format says: what is wrong, and at which octet of the input."""

    def __init__(self, what: str, offset: int = 0) -> None:
        super().__init__(what, offset)
        self.what = what
        self.offset = offset

    def __str__(self) -> str:
        return f"{self.what} at octet {self.offset}"


class Cursor:
    """A place in octets, from which reads advance and past whose end none gets."""

    __slots__ = ("at", "data", "end_at")

    def __init__(self, data: bytes, at: int = 0, end_at: int | None = None) -> None:
        self.data = data
        self.at = at
        self.end_at = len(data) if end_at is None else end_at

    def unpack(self, layout: Struct) -> tuple[Any, ...]:
        """The fields of a fixed layout."""
        return layout.unpack_from(self.data, self._advance(layout.size))

    def u8(self) -> int:
        return self.data[self._advance(1)]

    def u16(self) -> int:
        return self._number(2)

    def u32(self) -> int:
        return self._number(4)

    def u64(self) -> int:
        return self._number(8)

    def take(self, length: int) -> bytes:
        """The next `length` octets."""
        at = self._advance(length)
        return self.data[at : self.at]

    def rest(self) -> bytes:
        """All octets that are left, perhaps none."""
        return self.take(self.end_at - self.at)

    def sub(self, length: int) -> Self:
        """A cursor over the next `length` octets alone; offsets in its errors are still those of the whole."""
        at = self._advance(length)
        return type(self)(self.data, at, self.at)

    def end(self) -> None:
        """Raise unless everything was read."""
        if self:
            raise DecodeError(f"{self.end_at - self.at} octets too many", self.at)

    def __bool__(self) -> bool:
        """Whether anything is left to read."""
        return self.at < self.end_at

    def _number(self, size: int) -> int:
        return int.from_bytes(self.take(size), "big")

    def _advance(self, length: int) -> int:
        at = self.at
        if not 0 <= length <= self.end_at - at:
            raise DecodeError(f"{length} octets wanted, {self.end_at - at} left", at)
        self.at = at + length
        return at
