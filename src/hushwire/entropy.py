"""Injected randomness, in two streams: octets seen on the wire, and octets that become keys.

Two streams so that what a peer sees of the one (SPIs, nonces) tells nothing of the other, whatever the generator.
"""

import hashlib
from typing import Protocol


class Entropy(Protocol):
    """Where every random octet of the core comes from."""

    def public(self, count: int) -> bytes:
        """`count` octets that may be seen on the wire: SPIs, nonces, cookies' salt, jitter."""
        ...

    def private(self, count: int) -> bytes:
        """`count` octets that become keys."""
        ...


class SeededEntropy:
    """A deterministic generator for the simulator, the fuzzer and replay; never for the daemon (DESIGN.md law 5)."""

    def __init__(self, seed: bytes) -> None:
        self._seed = seed
        self._drawn = {"public": 0, "private": 0}

    def public(self, count: int) -> bytes:
        return self._draw("public", count)

    def private(self, count: int) -> bytes:
        return self._draw("private", count)

    def _draw(self, stream: str, count: int) -> bytes:
        self._drawn[stream] += 1
        block = b"|".join((self._seed, stream.encode(), str(self._drawn[stream]).encode()))
        return hashlib.shake_256(block).digest(count)
