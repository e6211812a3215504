"""The memory's process as the parent starts it: confined to its directory, over a channel.

Run by test_memory with the channel's descriptor, the directory, and the most octets that a file may have.
"""

import resource
import socket
import sys
from pathlib import Path

from hushwire.daemon import memory
from hushwire.daemon.channel import EFFECTS, Channel
from hushwire.daemon.log import Log
from hushwire.linux import sandbox


def main(descriptor: int, directory: Path, room: int) -> None:
    def confine() -> None:
        sandbox.confine(writable=[directory], network=False)
        # A file that may not grow stands for a disk that has no room.
        resource.setrlimit(resource.RLIMIT_FSIZE, (room, room))

    memory.main(Channel(socket.socket(fileno=descriptor), EFFECTS), directory, Log("memory"), confine)


if __name__ == "__main__":
    main(int(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]))
