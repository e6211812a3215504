"""The anti-replay window (RFC 4303 s3.4.3) and extended sequence numbers (RFC 4303 appendix A)."""

SUBSPACE = 1 << 32
SMALLEST = 32


class Replayed(Exception):
    """The sequence number was seen, or is too old to know."""


class ReplayWindow:
    """What has arrived, as one integer: bit n is the packet n before the highest.

    RFC 6479 rotates an array of words because shifting costs C a loop; Python's integers shift 1024 bits in 60 ns.
    """

    __slots__ = ("_mask", "_seen", "size", "top")

    def __init__(self, size: int) -> None:
        # RFC 4303 s3.4.3: a window of 32 MUST be supported; we have none smaller, and no way to have none.
        self.size = max(size, SMALLEST)
        self.top = 0
        self._seen = 1  # No packet has number 0 (s2.2), so it counts as seen.
        self._mask = (1 << self.size) - 1

    def check(self, sequence: int) -> None:
        """Raise Replayed unless `sequence` is new.  To be done before the ICV is computed."""
        age = self.top - sequence
        if age < 0:
            return
        if age >= self.size or sequence <= 0 or self._seen >> age & 1:
            raise Replayed

    def update(self, sequence: int) -> None:
        """Count `sequence` as seen.  Only after the ICV was found right."""
        ahead = sequence - self.top
        if ahead > 0:
            self.top = sequence
            self._seen = (self._seen << ahead | 1) & self._mask if ahead < self.size else 1
        else:
            self._seen |= 1 << -ahead

    def infer(self, low: int) -> int:
        """The 64-bit number whose low half the packet carries (RFC 4303 appendix A2.2); below 1 if there is none."""
        high, top_low = divmod(self.top, SUBSPACE)
        bottom = top_low - self.size + 1
        if bottom >= 0:  # Case A: the window lies within one subspace.
            return (high if low >= bottom else high + 1) * SUBSPACE + low
        # Case B: it spans two.
        return (high - 1 if low >= bottom + SUBSPACE else high) * SUBSPACE + low
