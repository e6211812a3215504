"""The operating system's randomness, for the processes that step the core."""

import os


class SystemEntropy:
    """Both streams are the kernel's, so that no fork, restart or snapshot repeats them (DESIGN.md law 5)."""

    def public(self, count: int) -> bytes:
        return os.urandom(count)

    def private(self, count: int) -> bytes:
        return os.urandom(count)
