"""The demo: two hosts that know only each other's names, a relay that sees every packet, and random words to look for.

    python -m hushwire.lab.demo PLANE OUTPUT.json

tells the story as root of this kernel or of a user namespace; `hushwire lab demo` finds a place where that is possible.
"""

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from time import monotonic
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from hushwire.daemon.control import ControlError
from hushwire.lab import uml
from hushwire.lab.frame import Kind
from hushwire.lab.ladder import captured, esp_packet, ladder
from hushwire.lab.medium import Report
from hushwire.lab.namespaces import end, unprivileged
from hushwire.lab.stage import NOWHERE, Fetch, Stage

IN_UML = 240.0
"""Seconds for the whole story in User-Mode Linux."""


WIDTH = 100
"""Characters of a line that goes to no terminal."""


class CannotShow(Exception):
    """One line: what this machine lacks or forbids, and what would help."""


@dataclass(frozen=True, slots=True)
class Numbers:
    """What build/demo.json says: measured from hushwire's start to the end, its violent end on alice included."""

    esp_packets: int
    clear_packets: int
    """Neither ESP nor IKE, DNS or neighbour discovery, from any host."""
    canaries_seen: int
    """Frames that held a canary that must not be seen."""
    assurance: str
    """How sure alice is of bob."""
    suite: str
    """Of IKE, then of ESP."""
    plane: str
    """Whose ESP: kernel or userspace."""
    first_byte_ms: float
    """From curl's start, when there was no key yet, to the first octet of the page: look-up and IKE included."""


def run(plane: str, output: Path) -> int:
    """Tell the story where it can be told; its exit status.  Raises CannotShow."""
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
        # What an earlier run left is not the result of this one.
        output.write_text("")
    except OSError as error:
        raise CannotShow(f"{output}: {error.strerror}; name another file with --output") from None
    command = (sys.executable, "-m", "hushwire.lab.demo", plane, str(output))
    as_root = _succeeds("unshare", "--net", "--mount", "true")
    if not as_root and not _succeeds(*unprivileged(("true",))):
        raise CannotShow("this host lets ordinary users make no network namespaces; run the demo as root")
    if plane == "kernel" and not _kernel_has_esp(as_root):
        return _run_in_uml(command)
    return _run_here(command if as_root else unprivileged(command))


def _run_here(command: Sequence[str]) -> int:
    """In a session of its own: a terminal's Ctrl-C comes to us alone, and the story ends in order."""
    _be_ended_politely()
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL, start_new_session=True, text=True)
    try:
        return process.wait()
    finally:
        end(process, patience=15)


def _run_in_uml(command: Sequence[str]) -> int:
    if shutil.which(uml.KERNEL) is None:
        raise CannotShow("this kernel has no ESP; install user-mode-linux and kmod, or take --plane userspace")
    _be_ended_politely()
    console = console_of_enough_width()
    console.print(
        "This kernel has no ESP: the demo boots one that has, User-Mode Linux.  It takes a minute.", soft_wrap=True
    )
    # What the story needs for itself, it keeps in the booted kernel's memory: here an ordinary user may not own it.
    seen = {"COLUMNS": str(console.width), "TMPDIR": "/dev/shm"} | ({"FORCE_COLOR": "1"} if console.is_terminal else {})
    try:
        return uml.run(command, timeout=IN_UML, env={**os.environ, **seen}).returncode
    except (TimeoutError, uml.UmlFailed) as error:
        raise CannotShow(str(error)) from None


def _kernel_has_esp(as_root: bool) -> bool:
    """Asked in a network namespace of its own, where nothing can be disturbed."""
    ask = (sys.executable, "-c", "import sys, hushwire.linux.kernel as kernel; sys.exit(not kernel.has_esp())")
    return _succeeds("unshare", "--net", *ask) if as_root else _succeeds(*unprivileged(ask))


def _succeeds(*command: str) -> bool:
    return subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, timeout=30).returncode == 0


class Demo:
    """The story, told on a console.  What does not go as it should is remembered for the verdict."""

    def __init__(self, stage: Stage, console: Console) -> None:
        self._stage = stage
        self._console = console
        self.failed: list[str] = []

    def tell(self, plane: str) -> Numbers:
        """All of it; what was measured."""
        self._set_the_stage(plane)
        self._in_clear()
        before = self._stage.relay.report()
        self._start_hushwire()
        first = self._encrypted()
        self._what_passed()
        status = self._who_is_there()
        self._what_the_relay_has()
        self._kill_and_restart()
        return self._sum_up(before, first, status)

    # --- the acts ---

    def _set_the_stage(self, plane: str) -> None:
        stage = self._stage
        self._title("The stage", "In network namespaces of this machine: alice, bob, dns, and the relay between them.")
        with self._step("alice, bob, dns; a relay that carries every packet, and looks into it"):
            stage.connect()
        with self._step("a DNS of our own, signed from its root down (Knot)"):
            stage.publish(plane)
        with self._step("a web server on bob"):
            stage.open_server()
        self._title("What the two know of each other", "All that anybody has configured, on alice and on bob:")
        for daemon in stage.daemons:
            self._console.print()
            self._quote(daemon.config.read_text())
        self._say("\nThe rest is in the DNS.  What alice can find out there and validate:")
        trust = ("--anchor", str(stage.world.anchor_path), "--forward", stage.world.forward)
        self._quote(stage.alice.run(sys.executable, "-m", "hushwire", "dns", "check", "bob.example", *trust).stdout)

    def _in_clear(self) -> None:
        stage = self._stage
        self._title("Before", "Without hushwire, curl on alice fetches a page from http://bob.example/.")
        fetch = stage.fetch(hidden=False)
        self._expect(fetch.arrived, f"the page came from {fetch.server}")
        stage.hang_up()
        seen = stage.seen(stage.shown)
        self._expect(seen >= 2, f"the relay read it all: {seen} packets with the random words of request and page")

    def _start_hushwire(self) -> None:
        stage = self._stage
        self._title("hushwire starts", "It looks its peer up, validates what the DNS says, and sets its policy.")
        for daemon in reversed(stage.daemons):
            with self._step(f"hushwire on {daemon.host.name}"):
                stage.start(daemon)
        with self._step("both know address and key of the other, and DNSSEC vouches for them"):
            for daemon in stage.daemons:
                stage.await_names(daemon)

    def _encrypted(self) -> Fetch:
        stage = self._stage
        self._title("The same again", "curl knows nothing of hushwire.  Its first packet starts IKE; ESP carries it.")
        first = stage.fetch()
        self._expect(
            first.arrived, f"a page from {first.server}, first octet after {first.first_byte:.0f} ms: IKE included"
        )
        for version in (4, 6):
            again = stage.fetch(version)
            self._expect(again.arrived, f"a page from {again.server}, first octet after {again.first_byte:.0f} ms")
            self._expect(stage.ping(version), f"three pings to {again.server}")
        return first

    def _what_passed(self) -> None:
        stage = self._stage
        stage.relay.report()
        self._title("What passed", "IKEv2 as the relay saw it, in milliseconds.  Into SK { } it cannot look.")
        table = Table(box=None, pad_edge=False, show_header=False)
        start = None
        for rung in ladder(captured(stage.relay.pcap), stage.alice.mac, stage.bob.mac, 4):
            start = rung.time if start is None else start
            at = f"{(rung.time - start) * 1000:.1f}"
            arrow = f"alice  {rung.text}  -->" if rung.rightwards else f"<--  {rung.text}  bob"
            table.add_row(Text(at, justify="right"), Text(arrow, justify="left" if rung.rightwards else "right"))
        self._console.print(table)

    def _who_is_there(self) -> dict[str, Any]:
        alice = self._stage.at_alice
        self._title("Who is there", "$ hushwire status")
        command = (sys.executable, "-m", "hushwire", "status", "--control", str(alice.control))
        environment = {**os.environ, "COLUMNS": str(self._console.width)}
        subprocess.run(command, env=environment, check=True, timeout=30)
        return alice.status()

    def _what_the_relay_has(self) -> None:
        stage = self._stage
        self._title("What the relay has", f"{stage.relay.report()}.")
        for each in captured(stage.relay.pcap):
            if each.frame.kind is Kind.ESP:
                self._say("The first ESP packet, from its SPI on:")
                self._quote(hexdump(esp_packet(each.frame)[:64]))
                break
        seen = stage.seen(stage.hidden)
        self._expect(not seen, f"since then {len(stage.hidden)} random words went by, and it saw {seen} of them")

    def _kill_and_restart(self) -> None:
        stage = self._stage
        self._title("kill -9", "hushwire on alice dies without a word, and curl goes on asking for pages.")
        stage.kill(stage.at_alice)
        for version in (4, 6):
            came = stage.fetch(version, NOWHERE).arrived
            what = "a page: the kernel has the SAs until they expire" if came else "no page: nothing leaves"
            self._say(f"  --  IPv{version}: {what}")
        self._expect(not stage.seen(stage.hidden), "the relay saw none of these random words either")
        with self._step("hushwire starts on alice again, and finds bob"):
            stage.start(stage.at_alice)
            stage.await_names(stage.at_alice)
        for version in (4, 6):
            fetch = stage.fetch(version)
            self._expect(fetch.arrived, f"a page from {fetch.server or f'bob, by IPv{version}'}")

    def _sum_up(self, before: Report, first: Fetch, status: dict[str, Any]) -> Numbers:
        after, peer = self._stage.relay.report(), status["peers"][0]
        if after.missed:
            self.failed.append(f"the relay missed {after.missed} packets")
        suites = [f"IKE {sa['suite']}, ESP {child['suite']}" for sa in peer["ike"] for child in sa["children"]]
        return Numbers(
            esp_packets=after.count(Kind.ESP) - before.count(Kind.ESP),
            clear_packets=after.count(Kind.CLEAR) - before.count(Kind.CLEAR),
            canaries_seen=self._stage.seen(self._stage.hidden),
            assurance=peer["level"] or "clear",
            suite=suites[0] if suites else "none",
            plane=status["plane"],
            first_byte_ms=round(first.first_byte, 1),
        )

    # --- the telling ---

    def _title(self, title: str, subtitle: str) -> None:
        self._console.print()
        self._console.print(Text(title, "bold"))
        self._say(subtitle)

    def _say(self, text: str, style: str = "") -> None:
        self._console.print(Text(text, style), soft_wrap=True)

    @contextmanager
    def _step(self, what: str) -> Iterator[None]:
        self._console.print(f"  ..  {what}: ", end="", soft_wrap=True)
        start = monotonic()
        yield
        self._console.print(f"{monotonic() - start:.1f} s")

    def _expect(self, well: bool, what: str) -> None:
        self._console.print(
            Text.assemble("  ", ("ok", "green") if well else ("NO", "bold red"), "  ", what), soft_wrap=True
        )
        if not well:
            self.failed.append(what)

    def _quote(self, text: str) -> None:
        for line in filter(None, text.splitlines()):
            self._say(f"    {line}", "cyan")


def hexdump(octets: bytes) -> str:
    """Sixteen octets a line, with what they would be as text."""
    lines = (octets[at : at + 16] for at in range(0, len(octets), 16))
    return "\n".join(
        f"{line.hex(' '):47}  {''.join(chr(octet) if 0x20 <= octet < 0x7F else '.' for octet in line)}"
        for line in lines
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line of the story itself."""
    plane, output = arguments or sys.argv[1:]
    console, start = console_of_enough_width(), monotonic()
    with Stage() as stage:
        demo = Demo(stage, console)
        try:
            numbers = demo.tell(plane)
        except (RuntimeError, ControlError, OSError, subprocess.SubprocessError) as error:
            console.print(f"\nThe demo broke off: {error}", style="bold red", soft_wrap=True)
            return 1
        failed = demo.failed + wrongs(numbers)
        for daemon in stage.daemons if failed else ():
            console.print(f"\nThe last words of hushwire on {daemon.host.name}:", style="bold")
            console.print("\n".join(daemon.log.read_text().splitlines()[-20:]), soft_wrap=True)
    Path(output).write_text(json.dumps(asdict(numbers), indent=2) + "\n")
    console.print(f"\nThat took {monotonic() - start:.0f} s; the numbers are in {output}.", soft_wrap=True)
    if failed:
        console.print(f"Not as it should be: {'; '.join(failed)}.", style="bold red", soft_wrap=True)
        return 1
    console.print(
        f"alice knew a name, and is sure who answers to it ({numbers.assurance}).  {numbers.esp_packets} ESP packets "
        f"passed, and {numbers.clear_packets} in clear; of {len(stage.hidden)} hidden words the relay read "
        f"{numbers.canaries_seen}, of {len(stage.shown)} shown to it all.",
        style="bold green", soft_wrap=True,
    )  # fmt: skip
    return 0


def _be_ended_politely() -> None:
    """SIGTERM takes away all that was made, as the end of the story does."""
    signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))


def console_of_enough_width() -> Console:
    """A terminal's own width; anything else is given what tables need."""
    wide = not sys.stdout.isatty() and "COLUMNS" not in os.environ
    return Console(highlight=False, markup=False, width=WIDTH if wide else None)


def wrongs(numbers: Numbers) -> list[str]:
    """What the numbers say that should not be."""
    found = {
        "no ESP packet passed": numbers.esp_packets == 0,
        f"{numbers.clear_packets} packets passed in clear": numbers.clear_packets > 0,
        f"{numbers.canaries_seen} packets held a word that must stay hidden": numbers.canaries_seen > 0,
        f"alice's assurance of bob is {numbers.assurance}, not named": numbers.assurance != "named",
    }
    return [what for what, so in found.items() if so]


if __name__ == "__main__":
    _be_ended_politely()
    sys.exit(main())
