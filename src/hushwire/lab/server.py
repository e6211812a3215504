"""A DNS server of the lab: a process with a folder of its own, which is there inside `with` and ends when we do."""

import os
import secrets
import shutil
import subprocess
import tempfile
import time
from abc import ABC, abstractmethod
from base64 import b64encode
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from hushwire.lab.namespaces import free_port


class Server(ABC):
    """A context manager: inside it the server answers.  Each kind says what it is told, and when it is ready."""

    def __init__(self, address: str = "127.0.0.1", port: int = 0, prefix: Sequence[str] = ()) -> None:
        """Port 0: one that is free.  `prefix` is put before the server's command, such as `ip netns exec NAME`."""
        self.address = address
        self.port = port or free_port()
        self.folder = Path()
        self.secret = b64encode(secrets.token_bytes(32)).decode()
        """Of its TSIG key."""
        self._prefix = tuple(prefix)
        self._process: subprocess.Popen[bytes] | None = None

    @abstractmethod
    def prepare(self) -> tuple[str, ...]:
        """Write all files; answer the command that serves."""

    @abstractmethod
    def is_ready(self) -> bool:
        """Whether all that it promises can be had by now; asked again and again."""

    def begin(self) -> None:  # noqa: B027 - not all have something to do.
        """What is to be done as soon as it is ready."""

    @property
    def forward(self) -> str:
        """Where a validator sends its questions, as libunbound writes it."""
        return f"{self.address}@{self.port}"

    @property
    def tsig_path(self) -> Path:
        """A TSIG key in BIND's form, if it takes updates."""
        return self.folder / "tsig.key"

    def __enter__(self) -> Self:
        self.folder = Path(tempfile.mkdtemp(prefix="hushwire-dns-"))
        try:
            # Should we be killed, it ends too.
            command = (*self._prefix, "setpriv", "--pdeathsig", "TERM", *self.prepare())
            with self.log.open("wb") as log:
                self._process = subprocess.Popen(
                    command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd=self.folder
                )
            self._await(self._process)
            self.begin()
        except BaseException:
            self._end()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end()

    def stop(self) -> None:
        """End it and keep its files: from now on nobody answers.  Bounded."""
        if self._process is not None:
            self._process.terminate()
            try:
                self._process.wait(5)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
            self._process = None

    def write(self, name: str, text: str) -> Path:
        """A file in its folder, for nobody else to read."""
        path = self.folder / name
        path.touch(0o600)
        path.write_text(text)
        return path

    def write_tsig(self, name: str) -> None:
        self.write(self.tsig_path.name, f'key "{name}" {{ algorithm hmac-sha256; secret "{self.secret}"; }};\n')

    def run(self, *command: str, stdin: str = "", failure_ok: bool = False) -> str:
        """What a command prints.  If it keeps a history of what it was told, that is in our folder."""
        environment = {**os.environ, "HOME": str(self.folder)}
        done = subprocess.run(
            command, input=stdin, capture_output=True, text=True, timeout=20, cwd=self.folder, env=environment
        )
        if done.returncode != 0 and not failure_ok:
            raise RuntimeError(f"{' '.join(command)}: {done.stderr.strip() or done.stdout.strip()}")
        return done.stdout

    def _await(self, process: subprocess.Popen[bytes]) -> None:
        for _ in range(400):
            if process.poll() is not None:
                break
            if self.is_ready():
                return
            time.sleep(0.025)
        raise RuntimeError(f"{process.args!r} did not start: {self.log.read_text()[-3000:]}")

    def _end(self) -> None:
        self.stop()
        shutil.rmtree(self.folder)

    @property
    def log(self) -> Path:
        """What it says."""
        return self.folder / "log"
