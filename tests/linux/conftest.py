"""Network namespaces for tests: a thread each, so that nothing has a name and nothing is left behind."""

import ctypes
import os
import subprocess
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

CLONE_NEWNET = 0x40000000


class Namespace:
    """A network namespace and the one thread that lives in it."""

    def __init__(self) -> None:
        self._thread = ThreadPoolExecutor(1)
        self.task: int = self(self._enter)
        self.run("ip link set lo up")

    @staticmethod
    def _enter() -> int:
        libc = ctypes.CDLL(None, use_errno=True)
        if libc.unshare(CLONE_NEWNET):
            raise OSError(ctypes.get_errno(), "unshare")
        return int(libc.gettid())

    def start(self, function: Callable[..., Any], *arguments: Any) -> "Future[Any]":
        return self._thread.submit(function, *arguments)

    def __call__(self, function: Callable[..., Any], *arguments: Any) -> Any:
        """Do something there and wait for it."""
        return self.start(function, *arguments).result(30)

    def run(self, commands: str) -> str:
        """Shell commands; all must succeed."""
        return str(self(self._shell, commands))

    @staticmethod
    def _shell(commands: str) -> str:
        done = subprocess.run(["sh", "-ec", commands], capture_output=True, text=True, check=False, timeout=25)
        assert done.returncode == 0, f"{commands}\n{done.stdout}{done.stderr}"
        return done.stdout

    def spawn(self, *command: str) -> subprocess.Popen[str]:
        """A process there, not waited for."""
        process: subprocess.Popen[str] = self(
            lambda: subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        )
        return process

    def pings(self, address: str, *options: str, tries: int = 1) -> bool:
        """Whether an echo comes back within a second."""
        command = ["ping", "-n", "-c1", "-W1", *options, address]
        return any(self(subprocess.run, command, -1, None, None, -1, -1).returncode == 0 for _ in range(tries))

    def reaches(self, address: str) -> bool:
        """Whether echoes come back once the wire is up and the neighbours have found each other."""
        return self.pings(address, tries=5)

    def statistic(self, name: str) -> int:
        """One counter of /proc/net/xfrm_stat."""
        text = self(Path("/proc/thread-self/net/xfrm_stat").read_text)
        return int(dict(line.split() for line in text.splitlines())[name])

    def close(self) -> None:
        self._thread.shutdown()


@pytest.fixture
def namespace() -> Iterator[Callable[[], Namespace]]:
    """Makes namespaces."""
    made: list[Namespace] = []

    def make() -> Namespace:
        made.append(Namespace())
        return made[-1]

    yield make
    for each in made:
        each.close()


@pytest.fixture
def pair(namespace: Callable[[], Namespace]) -> tuple[Namespace, Namespace]:
    """Two hosts on one wire, each with a network of its own behind it.

    10.91.0.1, fd91::1 [10.9.0.1, fd09::1] --- wire --- [10.9.0.2, fd09::2] 10.92.0.2, fd92::2
    """
    left, right = namespace(), namespace()
    left.run(f"ip link add wire type veth peer name wire netns {right.task}")
    for here, there, side in ((left, 2, 1), (right, 1, 2)):
        here.run(
            f"""ip address add 10.9.0.{side}/24 dev wire; ip address add fd09::{side}/64 dev wire nodad
            ip address add 10.9{side}.0.{side}/24 dev lo; ip address add fd9{side}::{side}/64 dev lo nodad
            ip link set wire up
            ip route add 10.9{there}.0.0/24 via 10.9.0.{there} src 10.9{side}.0.{side}
            ip route add fd9{there}::/64 via fd09::{there} src fd9{side}::{side}"""
        )
    return left, right


def pytest_configure() -> None:
    """Namespaces need root, which the lab and the UML kernel have."""
    os.environ.setdefault("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
