"""A plane worker in this network namespace: makes the TUN and the socket as the parent would, and runs the body.

Run by test_plane: the channel's descriptor, the TUN's MTU, our address, the peer's network.
"""

import fcntl
import os
import socket
import struct
import subprocess
import sys

from hushwire.daemon import plane

MARK, TABLE = 0x4855, 4855
TUNSETIFF, IFF_TUN, IFF_NO_PI, IFF_VNET_HDR = 0x4004_54CA, 0x0001, 0x1000, 0x4000


def main(channel: int, mtu: str, near: str, far: str) -> None:
    tun = os.open("/dev/net/tun", os.O_RDWR)
    fcntl.ioctl(tun, TUNSETIFF, struct.pack("16sH22x", b"hush0", IFF_TUN | IFF_NO_PI | IFF_VNET_HDR))
    version = "-6" if ":" in near else "-4"
    for command in (
        f"link set hush0 mtu {mtu} txqueuelen 4000 gso_max_segs 44 up",
        f"{version} rule add not fwmark {MARK} table {TABLE}",
        f"{version} route add {far} dev hush0 table {TABLE} src {near}",
    ):
        subprocess.run(["ip", *command.split()], check=True)
    family = socket.AF_INET6 if ":" in near else socket.AF_INET
    udp = socket.socket(family, socket.SOCK_DGRAM)
    udp.setsockopt(socket.SOL_SOCKET, socket.SO_MARK, MARK)
    udp.setsockopt(socket.SOL_SOCKET, 33, 4 << 20)  # SO_RCVBUFFORCE
    udp.setsockopt(socket.SOL_SOCKET, 32, 4 << 20)  # SO_SNDBUFFORCE
    udp.bind(("", 4500))
    if profile := os.environ.get("PLANE_PROFILE"):
        import cProfile

        cProfile.runctx("plane.main(tun, [udp.detach()], channel)", globals(), locals(), profile)
    else:
        plane.main(tun, [udp.detach()], channel)


if __name__ == "__main__":
    main(int(sys.argv[1]), *sys.argv[2:])
