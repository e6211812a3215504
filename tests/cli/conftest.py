"""A daemon's control socket, with whatever a test wants behind it."""

import itertools
import select
import socket
import threading
from collections.abc import Callable
from pathlib import Path

from hushwire.daemon.control import Command, Control, listen
from hushwire.events import Reply


class Daemon:
    """It serves one command after another, until close()."""

    def __init__(self, path: Path, answer: Callable[[Command], Reply]) -> None:
        self.path = path
        self._answer = answer
        self._listener = listen(path)
        self._control = Control(self._listener, itertools.count())
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def _serve(self) -> None:
        waiting: list[socket.socket] = []
        while True:
            select.select([self._listener], [], [], 10)
            self._control.accept(waiting.append)
            if not waiting:
                return
            select.select(waiting, [], [], 10)
            command = self._control.read(waiting[0].fileno(), waiting.remove)
            if command is not None:
                self._control.reply(self._answer(command))

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._thread.join(20)
        self._listener.close()
