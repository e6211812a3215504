"""Bounded reads."""

from struct import Struct

import pytest

from hushwire.wire.cursor import Cursor, DecodeError


def test_reads_advance() -> None:
    cursor = Cursor(bytes(range(1, 20)))
    assert cursor.u8() == 0x01
    assert cursor.u16() == 0x0203
    assert cursor.u32() == 0x04050607
    assert cursor.u64() == 0x08090A0B0C0D0E0F
    assert cursor.unpack(Struct("!BB")) == (0x10, 0x11)
    assert cursor.take(1) == b"\x12"
    assert cursor
    assert cursor.rest() == b"\x13"
    assert cursor.rest() == b""
    assert not cursor
    cursor.end()


@pytest.mark.parametrize("read", ["u8", "u16", "u32", "u64"])
def test_no_read_passes_the_end(read: str) -> None:
    cursor = Cursor(b"")
    with pytest.raises(DecodeError):
        getattr(cursor, read)()


@pytest.mark.parametrize("length", [5, 1 << 40, -1])
def test_no_length_leads_outside(length: int) -> None:
    cursor = Cursor(bytes(8), 4)
    with pytest.raises(DecodeError) as error:
        cursor.take(length)
    assert error.value.offset == 4
    with pytest.raises(DecodeError):
        cursor.sub(length)
    with pytest.raises(DecodeError):
        Cursor(bytes(3)).unpack(Struct("!I"))


def test_a_sub_cursor_holds_its_part_alone_and_counts_from_the_beginning_of_all() -> None:
    whole = Cursor(b"abcdef")
    whole.u8()
    part = whole.sub(3)
    assert part.u8() == ord("b")
    with pytest.raises(DecodeError) as error:
        part.end()
    assert str(error.value) == "2 octets too many at octet 2"
    assert part.rest() == b"cd"
    assert whole.rest() == b"ef"
