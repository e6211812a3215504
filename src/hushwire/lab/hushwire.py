"""hushwire itself in a host of the lab, started as an administrator would and asked through its control socket."""

import atexit
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Self

from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from hushwire.crypto.keys import KeyKind, PrivateKey, PublicKey
from hushwire.crypto.secret import Secret
from hushwire.daemon.control import ControlError, ask
from hushwire.lab.namespaces import Host, end
from hushwire.lab.peer import DEFAULT, Connection, Mode, PeerChildSA, PeerIkeSA, Proposal, eventually

MAIN = "from hushwire.__main__ import main\nmain()"
START = 30.0
"""Seconds until it must answer: in a User-Mode Linux kernel, Python is slow to start."""


class Hushwire:
    """A context manager: inside it the daemon runs in a host."""

    def __init__(self, host: Host, config: str, key: PrivateKey | None = None, *, without: str = "") -> None:
        """`config` is TOML in which {folder} stands for the daemon's own folder, with host.key and control in it.

        `without`: Python that takes a guard out before it starts, for a control run in which an attack succeeds.
        """
        self.host = host
        self._program = ("-c", f"{without}\n{MAIN}") if without else ("-m", "hushwire")
        # To the end of the run, so that a test can still read the log of what it has stopped.
        # In memory: on the file system of a User-Mode Linux, SQLite does not open its file a second time.
        self.folder = Path(tempfile.mkdtemp(prefix=f"hushwire-{host.name}-", dir="/dev/shm"))
        atexit.register(shutil.rmtree, self.folder, ignore_errors=True)
        # The memory's process, which is nobody, has its own directory in it.
        self.folder.chmod(0o711)
        self.key = key or PrivateKey.generate(KeyKind.ED25519)
        self.config = self.folder / "hushwire.toml"
        self.config.write_text(config.replace("{folder}", str(self.folder)))
        _write_secret(self.folder / "host.key", self.key.write_pem().expose())
        self.log = self.folder / "log"
        self.control = self.folder / "control"
        self._process: subprocess.Popen[str] | None = None

    @property
    def pid(self) -> int:
        """Of the parent."""
        assert self._process is not None
        return self._process.pid

    def child(self, name: str) -> int | None:
        """The process that the parent calls so, if there is one just now."""
        for pid in Path(f"/proc/{self.pid}/task/{self.pid}/children").read_text().split():
            # It may end while its name is read.
            with suppress(FileNotFoundError, ProcessLookupError):
                if Path(f"/proc/{pid}/comm").read_text().strip() == f"hushwire:{name}"[:15]:
                    return int(pid)
        return None

    def __enter__(self) -> Self:
        with self.log.open("a") as log:
            command = (sys.executable, *self._program, "run", str(self.config))
            self._process = self.host.start(*command, stdout=log, stderr=log)
        if not eventually(lambda: self._process is None or self._process.poll() is not None or self._answers(), START):
            self._end()
            raise RuntimeError(f"hushwire on {self.host.name} does not answer:\n{self.log.read_text()}")
        if self._process.poll() is not None:
            raise RuntimeError(f"hushwire on {self.host.name} has ended:\n{self.log.read_text()}")
        return self

    def __exit__(self, *exception: object) -> None:
        self._end()

    def restart(self, key: PrivateKey | None = None, config: str = "") -> None:
        """Stop it as an administrator would, and start it again, with another key or configuration if one is given."""
        self._end()
        if config:
            self.config.write_text(config.replace("{folder}", str(self.folder)))
        if key is not None:
            self.key = key
            (self.folder / "host.key").write_bytes(key.write_pem().expose())
        self.__enter__()

    def status(self) -> dict[str, Any]:
        """What `hushwire status --json` says."""
        body = ask(self.control, {"command": "status"}, START)["body"]
        assert isinstance(body, dict)
        return body

    def peer(self, number: int = 0) -> dict[str, Any]:
        """One peer's part of the status."""
        found: dict[str, Any] = self.status()["peers"][number]
        return found

    def initiate(self, connection: int = 0) -> None:
        self._command("connect", self.peer(connection)["peer"])

    def rekey(self, connection: int = 0, *, ike: bool = False) -> None:
        """Replace the Child SAs, or the IKE SA, and wait until that is done."""
        before = self._spis(ike)
        self._command("rekey", self.peer(connection)["peer"], ike=ike)
        if not eventually(lambda: (now := self._spis(ike)) and not now & before, 10):
            raise RuntimeError(f"no rekey:\n{self.log.read_text()}")

    def terminate(self, connection: int = 0) -> None:
        self._command("disconnect", self.peer(connection)["peer"])
        if not eventually(lambda: not self.peer(connection)["ike"], 10):
            raise RuntimeError(f"no deletion:\n{self.log.read_text()}")

    def sas(self) -> list[PeerIkeSA]:
        return [
            PeerIkeSA(
                "ESTABLISHED", bytes.fromhex(sa["spi_i"]), bytes.fromhex(sa["spi_r"]), sa["initiator"], peer["peer"],
                tuple(
                    PeerChildSA("INSTALLED", int(c["spi_in"], 16), int(c["spi_out"], 16), Mode(c["mode"]))
                    for c in sa["children"]
                ),
            )
            for peer in self.status()["peers"] for sa in peer["ike"]
        ]  # fmt: skip

    def _spis(self, ike: bool) -> set[object]:
        sas = self.sas()
        return {sa.spi_i for sa in sas} if ike else {child.spi_in for sa in sas for child in sa.children}

    def _command(self, command: str, name: str, **more: object) -> None:
        answer = ask(self.control, {"command": command, "name": name, **more}, START)
        if not answer["ok"]:
            raise RuntimeError(f"{answer['text']}\n{self.log.read_text()}")

    def _answers(self) -> bool:
        try:
            return bool(ask(self.control, {"command": "status"}, 1.0))
        except ControlError:
            return False

    def _end(self) -> None:
        if self._process is not None:
            end(self._process)


def named(host: str, peers: Sequence[str], forward: str, anchor: Path, *, plane: str = "auto", more: str = "") -> str:
    """A configuration that knows its peers by their names only."""
    rules = "".join(f'\n[[rule]]\npeer = "{peer}"\n' for peer in peers)
    return f"""
[host]
name = "{host}"
key = "{{folder}}/host.key"
control = "{{folder}}/control"
state = "{{folder}}"
trusted = "{{folder}}/trusted"
plane = "{plane}"

[dns]
trust-anchor = "{anchor}"
forward = ["{forward}"]
{more}{rules}"""


def pinned(host: Host, connection: Connection, *, plane: str = "auto", more: str = "") -> "Hushwire":
    """hushwire with one peer of known address and key, as the other daemons of the lab take it."""
    if isinstance(connection.key, Secret):
        proof = 'psk = "{folder}/peer.psk"'
    else:
        proof = 'key = "{folder}/peer.pem"'
    networks = ""
    if connection.mode is Mode.TUNNEL and (connection.local_traffic or connection.remote_traffic):
        local, remote = connection.traffic()
        networks = f'local-networks = ["{local}"]\nremote-networks = ["{remote}"]'
    config = f"""
[host]
name = "{connection.local_id}"
key = "{{folder}}/host.key"
control = "{{folder}}/control"
state = "{{folder}}"
trusted = "{{folder}}/trusted"
plane = "{plane}"

{_proposals(connection)}{more}
[[rule]]
peer = "{connection.remote_id}"
address = "{connection.remote}"
require = "trusted"
mode = "{connection.mode.value}"
{proof}
{networks}
"""
    key = connection.key if isinstance(connection.key, PrivateKey) else None
    made = Hushwire(host, config, key)
    if isinstance(connection.key, Secret):
        _write_secret(made.folder / "peer.psk", connection.key.expose())
    elif connection.remote_key is not None:
        (made.folder / "peer.pem").write_bytes(_public_pem(connection.remote_key))
    return made


def _proposals(connection: Connection) -> str:
    ike = "" if connection.ike == DEFAULT else f'[ike]\nproposals = ["{_words(connection.ike, prf=True)}"]\n'
    esp = connection.esp
    return ike if esp == DEFAULT else f'{ike}[esp]\nproposals = ["{_words(esp, pfs=connection.rekey_pfs)}"]\n'


def _words(proposal: Proposal, *, prf: bool = False, pfs: bool = True) -> str:
    words = [proposal.encr]
    if proposal.integ:
        words.append(proposal.integ)
    if prf:
        words.append(f"prf{proposal.prf}")
    if prf or pfs:
        words.append({"curve25519": "x25519"}.get(proposal.ke, proposal.ke))
    if not prf:
        words.append("esn" if proposal.esn else "noesn")
    return "-".join(words)


def _public_pem(key: PublicKey) -> bytes:
    return key.key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)


def _write_secret(file: Path, octets: bytes) -> None:
    file.touch(mode=0o600)
    file.write_bytes(octets)
