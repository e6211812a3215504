"""A plane in this network namespace, opened and driven as the parent does, for contract_steps.py.

python contract_host.py kernel|userspace CHANNEL
"""

import os
import selectors
import socket
import sys
from pathlib import Path

from hushwire.config import Config
from hushwire.config.model import Host
from hushwire.daemon import planes
from hushwire.daemon.barrier import MARK, Barrier
from hushwire.daemon.channel import EFFECTS, EVENTS, Channel, ChannelClosed, pair
from hushwire.daemon.plane import Worker
from hushwire.linux.route import Routes
from hushwire.linux.sockets import NAT_T_PORT, UdpSocket, raw_socket, shared_nat_t
from hushwire.linux.tun import Tun
from hushwire.linux.xfrm import Xfrm


def kernel_plane() -> planes.Plane:
    Path("/proc/sys/net/core/xfrm_larval_drop").write_text("0")
    for version in (4, 6):
        OPEN.append(UdpSocket(version, NAT_T_PORT))
        OPEN[-1].take_esp()
        OPEN[-1].bypass_xfrm()
    return planes.KernelPlane(planes.Passing())


def userspace_plane() -> planes.Plane:
    sockets = [shared_nat_t(version, NAT_T_PORT, MARK) for version in (4, 6)]
    OPEN.extend(sock for both in sockets for sock in both)
    for sock in OPEN:
        sock.bypass_xfrm()
    tun = Tun("hushwire%d", mtu=planes.TUN_MTU)
    with Routes() as routes:
        routes.change_link(tun.index, up=True)
    barrier = Barrier(tun, (500, NAT_T_PORT), ipv6=True)
    ours, theirs = pair()
    if not os.fork():
        ours.close()
        worker = Worker(
            tun.fileno(),
            [for_plane.socket for _, for_plane in sockets],
            Channel(theirs, EFFECTS),
            raw=[raw_socket(version) for version in (4, 6)],
        )
        try:
            worker.run()
        finally:
            os._exit(0)
    theirs.close()
    return planes.UserspacePlane(Channel(ours, EVENTS), barrier, planes.Passing())


OPEN: list[UdpSocket] = []
"""What must stay open."""


def main(kind: str, descriptor: int) -> None:
    plane = kernel_plane() if kind == "kernel" else userspace_plane()
    with Xfrm() as xfrm:
        for policy in planes.base_policies(Config(Host("contract.example"))):
            xfrm.install_policy(policy)
    channel = Channel(socket.socket(fileno=descriptor), EFFECTS)
    poll = selectors.DefaultSelector()
    poll.register(channel.fileno(), selectors.EVENT_READ)
    for each in plane.descriptors():
        poll.register(each, selectors.EVENT_READ)
    while True:
        for key, _ in poll.select():
            if key.fd != channel.fileno():
                told = plane.news()
            else:
                told = [answer for request in channel.receive() for answer in plane.perform(request)]
            if told:
                channel.send(*told)


if __name__ == "__main__":
    try:
        main(sys.argv[1], int(sys.argv[2]))
    except ChannelClosed:
        sys.exit(0)
