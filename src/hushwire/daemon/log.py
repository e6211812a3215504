"""Notices to log lines: one line each, key=value, nothing unescaped, no more of one kind than a person could read."""

import sys
from collections import Counter
from typing import TextIO

from hushwire.events import Notice

MOST_OF_A_KIND = 20
"""Lines of one kind a second; the rest are counted (ATTACKS row 28)."""
LONGEST = 200
"""Characters of one value."""


class Log:
    """Writes to standard error, where the journal or the terminal picks it up."""

    def __init__(self, process: str, stream: TextIO = sys.stderr) -> None:
        self._process = process
        self._stream = stream
        self.counts: Counter[str] = Counter()
        """Notices by kind, those not written included."""
        self._second = -1
        self._in_second: Counter[str] = Counter()

    def notice(self, notice: Notice, now: float) -> None:
        """One line for one notice, unless there were too many like it within this second."""
        self.counts[notice.kind] += 1
        # A time that goes back begins no second: it would let a flood begin anew with each notice.
        if int(now) > self._second:
            held = {kind: count - MOST_OF_A_KIND for kind, count in self._in_second.items() if count > MOST_OF_A_KIND}
            self._second = int(now)
            self._in_second.clear()
            for kind, count in held.items():
                self.line(f"{kind}: {count} more in one second")
        self._in_second[notice.kind] += 1
        if self._in_second[notice.kind] <= MOST_OF_A_KIND:
            fields = " ".join(f"{name}={_value(value)}" for name, value in notice.fields if value != "")
            self.line(f"{'! ' if notice.grave else ''}{notice.kind} {fields}")

    def line(self, text: str) -> None:
        """One line as it is."""
        try:
            print(f"hushwire[{self._process}] {text}", file=self._stream, flush=True)
        except OSError:
            # Nobody reads the log any more: no reason to stop protecting packets.
            return


def _value(value: str | int | float) -> str:
    text = str(value)
    text = text if len(text) <= LONGEST else text[:LONGEST] + "..."
    if text.isascii() and text.isprintable() and not set(text) & set(' "=\\'):
        return text
    escaped = "".join(c if c.isascii() and c.isprintable() and c not in '"\\' else f"\\x{ord(c):02x}" for c in text)
    return f'"{escaped}"'
