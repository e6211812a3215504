"""A plane worker in this network namespace: makes the TUN and the socket as the parent would, and runs the body.

Run by test_plane with the channel's descriptor, the MTU, our address, the peer's.  PLANE_PROFILE: a file for cProfile.
"""

import cProfile
import os
import socket
import subprocess
import sys
from contextlib import suppress

from hushwire.daemon.channel import Channel, ChannelClosed
from hushwire.daemon.plane import Worker
from hushwire.linux.sockets import raw_socket
from hushwire.linux.tun import Tun

MARK, TABLE = 0x4855, 4855
SO_SNDBUFFORCE, SO_RCVBUFFORCE = 32, 33
NOBODY = 65534


def main(channel: int, mtu: int, near: str, far: str) -> None:
    tun = Tun("hush0", mtu=mtu, gso_max_segments=44)
    version = "-6" if ":" in near else "-4"
    for command in (
        "link set hush0 txqueuelen 4000 up",
        f"{version} rule add not fwmark {MARK} table {TABLE}",
        f"{version} route add {far} dev hush0 table {TABLE} src {near}",
    ):
        subprocess.run(["ip", *command.split()], check=True)
    udp = socket.socket(socket.AF_INET6 if ":" in near else socket.AF_INET, socket.SOCK_DGRAM)
    udp.setsockopt(socket.SOL_SOCKET, socket.SO_MARK, MARK)
    for option in (SO_SNDBUFFORCE, SO_RCVBUFFORCE):
        udp.setsockopt(socket.SOL_SOCKET, option, 4 << 20)
    udp.bind(("", 4500))
    raw = raw_socket(6 if ":" in near else 4)
    os.setgroups([])
    os.setresgid(NOBODY, NOBODY, NOBODY)
    os.setresuid(NOBODY, NOBODY, NOBODY)
    both_ways = Channel(socket.socket(fileno=channel))
    with suppress(ChannelClosed):
        Worker(tun.fileno(), [udp], both_ways, both_ways, [raw]).run()


if __name__ == "__main__":
    arguments = (int(sys.argv[1]), int(sys.argv[2]), sys.argv[3], sys.argv[4])
    if profile := os.environ.get("PLANE_PROFILE"):
        cProfile.runctx("main(*arguments)", globals(), locals(), profile)
    else:
        main(*arguments)
