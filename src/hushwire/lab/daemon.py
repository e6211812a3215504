"""A daemon in a host of the lab: a process with a folder of its own, which is there inside `with`."""

import tempfile
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from subprocess import Popen
from typing import ClassVar, Self

from hushwire.lab.namespaces import Host, end
from hushwire.lab.peer import eventually


class Daemon(ABC):
    """A context manager: inside it the daemon runs.  Each kind says what it is told, and when it is ready."""

    environment: Mapping[str, str] = {}
    """What is added to ours for it; `prepare` may set it."""
    parent_folder: ClassVar[str | None] = None
    """Where its folder is made; None: where such things are."""

    def __init__(self, host: Host) -> None:
        self.host = host
        self.folder = Path()
        self._process: Popen[str] | None = None
        self._stack = ExitStack()

    @abstractmethod
    def prepare(self) -> Sequence[str]:
        """Write all files; answer the command that runs it in the foreground."""

    @abstractmethod
    def is_ready(self) -> bool:
        """Whether it does what it is for by now; asked again and again."""

    def begin(self) -> None:  # noqa: B027 - not all have something to do.
        """What is to be done as soon as it is ready."""

    @property
    def log(self) -> Path:
        """What it says."""
        return self.folder / "output"

    @property
    def pid(self) -> int:
        """Of the process that was started."""
        assert self._process is not None
        return self._process.pid

    def last_words(self) -> str:
        """The end of what it said, for an error."""
        texts = {path: path.read_text() for path in (self.folder / "output", self.log) if path.exists()}
        return "".join(text[-3000:] for text in texts.values())

    def __enter__(self) -> Self:
        """Raises RuntimeError, with the daemon's last words, when it does not get ready."""
        name = f"hushwire-{type(self).__name__.lower()}-{self.host.name}-"
        with ExitStack() as stack:
            self.folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix=name, dir=self.parent_folder)))
            command = self.prepare()
            with (self.folder / "output").open("w") as output:
                self._process = self.host.start(*command, env=self.environment, stdout=output, stderr=output)
            stack.callback(end, self._process)
            if not eventually(self.is_ready):
                raise RuntimeError(f"{command[0]} on {self.host.name} did not start: {self.last_words()}")
            self.begin()
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *exception: object) -> None:
        self._stack.close()
