"""The layers of DESIGN.md section 2, read from the imports in the sources."""

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

SOURCES = Path(__file__).parent.parent / "src"

ORDER: tuple[set[str], ...] = (
    {"wire"},
    {"entropy", "timers"},
    {"crypto"},
    {"policy"},
    {"events"},
    {"ike", "names", "esp"},
    {"config"},
    {"node"},
    {"linux"},
    {"daemon", "sim"},
    {"lab"},
    {"cli"},
    {"__main__", "application"},
)
"""Rooms from the ground up.  A room may import those below it; those in one set are siblings and never meet."""

RANK = {room: rank for rank, rooms in enumerate(ORDER) for room in rooms}
CORE = RANK["node"]
"""The highest rank of layers 0 to 3, which know no time, no chance and no world."""

BANNED = {
    "socket", "os", "time", "random", "secrets", "asyncio", "threading", "subprocess", "logging", "select",
    "selectors", "signal", "multiprocessing", "tempfile", "shutil", "importlib", "dns.resolver", "dns.asyncresolver",
    "dns.query", "dns.asyncquery",
}  # fmt: skip
"""What the core never imports, submodules included."""


def imports(module: str, source: str) -> Iterator[tuple[int, str, bool]]:
    """Every module that `source`, being `module`, imports: line, full name, whether only when a function runs."""
    tree = ast.parse(source)
    lazy = {
        inner
        for outer in ast.walk(tree)
        if isinstance(outer, ast.FunctionDef | ast.AsyncFunctionDef)
        for inner in ast.walk(outer)
    }
    for statement in ast.walk(tree):
        if isinstance(statement, ast.Import):
            for alias in statement.names:
                yield statement.lineno, alias.name, statement in lazy
        elif isinstance(statement, ast.ImportFrom):
            package = module.split(".")[: -statement.level] if statement.level else []
            origin = ".".join([*package, *([statement.module] if statement.module else [])])
            for alias in statement.names:
                yield statement.lineno, f"{origin}.{alias.name}", statement in lazy


def violations(module: str, source: str) -> list[str]:
    """What is wrong with the imports of `module`, a line each."""
    room = module.split(".")[1]
    return [
        f"{module}:{line}: {fault} ({target})"
        for line, target, lazy in imports(module, source)
        if (fault := fault_of(room, target, lazy))
    ]


def fault_of(room: str, target: str, lazy: bool) -> str:
    """Why a module of `room` may not import `target`; empty if it may."""
    top, _, rest = target.partition(".")
    if top != "hushwire":
        if RANK[room] <= CORE and any(f"{target}.".startswith(f"{banned}.") for banned in BANNED):
            return f"{room} is in the core and may not import this"
        if room == "wire" and top not in sys.stdlib_module_names:
            return "wire knows the standard library only"
        return ""
    if room == "application":
        return "a program that asks loads nothing of the daemon"
    other = rest.split(".")[0]
    if other not in RANK:
        return f"{other} is no room of DESIGN.md section 2"
    if other == room:
        return ""
    if RANK[other] >= RANK[room]:
        return f"{other} is not below {room}"
    if room == "cli" and other == "lab" and not lazy:
        return "the command line loads the lab only when it is asked for"
    return ""


def modules() -> Iterator[tuple[str, Path]]:
    """The name and file of every module of hushwire but the package itself."""
    for path in sorted(SOURCES.glob("hushwire/**/*.py")):
        name = ".".join(path.relative_to(SOURCES).with_suffix("").parts)
        if name != "hushwire.__init__":
            yield name, path


def test_imports_point_down() -> None:
    found = list(modules())
    assert found
    assert [line for name, path in found for line in violations(name, path.read_text())] == []


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("hushwire.wire.message", "from hushwire.crypto.prf import prf"),
        ("hushwire.wire.message", "import cryptography"),
        ("hushwire.entropy", "import hushwire.timers"),
        ("hushwire.crypto.auth", "from hushwire import policy"),
        ("hushwire.policy.sad", "from ..events import Send"),
        ("hushwire.ike.sa", "from hushwire.esp.plane import Plane"),
        ("hushwire.names.name", "import hushwire.ike.sa"),
        ("hushwire.config", "def read():\n    from hushwire.node import Node"),
        ("hushwire.node", "import hushwire.linux.xfrm"),
        ("hushwire.linux.xfrm", "from hushwire.daemon import parent"),
        ("hushwire.daemon.parent", "from hushwire.sim import world"),
        ("hushwire.daemon.parent", "def run():\n    import hushwire.lab.demo"),
        ("hushwire.cli.lab", "from hushwire.lab import demo"),
        ("hushwire.application", "from hushwire.wire.address import IPAddress"),
        ("hushwire.ike.attic.old", "from ...attic import old"),
        ("hushwire.node", "from time import monotonic"),
        ("hushwire.esp.plane", "import os.path"),
        ("hushwire.names.name", "from dns import resolver"),
        ("hushwire.ike.sa", "def now():\n    import time as clock"),
    ],
)
def test_a_planted_violation_is_found(module: str, source: str) -> None:
    assert len(violations(module, source)) == 1


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("hushwire.wire.message", "from .cursor import Cursor\nimport struct"),
        ("hushwire.policy.sad", "from hushwire.crypto.secret import Secret"),
        ("hushwire.names.name", "import dns.rdata\nfrom dns import name"),
        ("hushwire.node", "from hushwire.config import Config\nfrom hushwire.ike import endpoint"),
        ("hushwire.daemon.parent", "import os\nfrom hushwire.linux import xfrm"),
        ("hushwire.lab.demo", "from hushwire import daemon, sim"),
        ("hushwire.cli.lab", "def demo():\n    from hushwire.lab import demo"),
    ],
)
def test_what_is_allowed_is_not_found(module: str, source: str) -> None:
    assert violations(module, source) == []
