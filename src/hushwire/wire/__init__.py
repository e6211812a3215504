"""Bytes to values and back: the only room that knows octet offsets.  Standard library only."""
