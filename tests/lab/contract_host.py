"""A plane in this network namespace, opened and driven as the parent does, for contract_steps.py.

python contract_host.py kernel|userspace CHANNEL ADDRESS...        addresses of a name server to be spared by traps

When the channel closes it stops as the daemon does.  Soft policies last for seconds, not minutes.
"""

import os
import selectors
import socket
import sys
from collections.abc import Callable
from ipaddress import ip_address, ip_network
from pathlib import Path

from hushwire.config import Config, Rule
from hushwire.config.model import Dns, Host
from hushwire.daemon import barrier, planes
from hushwire.daemon.barrier import MARK, Barrier
from hushwire.daemon.channel import EFFECTS, EVENTS, Channel, ChannelClosed, pair
from hushwire.daemon.plane import Worker
from hushwire.linux.route import Routes
from hushwire.linux.sockets import NAT_T_PORT, UdpSocket, raw_socket, shared_nat_t
from hushwire.linux.tun import Tun
from hushwire.linux.xfrm import Xfrm
from hushwire.node.base import base_policies
from hushwire.policy.assurance import Assurance
from hushwire.policy.spd import Action, Policy
from hushwire.wire.address import Endpoint

Lay = Callable[[Policy], None]
"""What installs a policy that stands whatever is asked."""


def kernel_plane() -> tuple[planes.Plane, Lay]:
    Path("/proc/sys/net/core/xfrm_larval_drop").write_text("0")
    Path("/proc/sys/net/core/xfrm_acq_expires").write_text("2")
    for version in (4, 6):
        OPEN.append(UdpSocket(version, NAT_T_PORT))
        OPEN[-1].take_esp()
        OPEN[-1].bypass_xfrm()
    return planes.KernelPlane(planes.Passing()), Xfrm().install_policy


def userspace_plane() -> tuple[planes.Plane, Lay]:
    sockets = [shared_nat_t(version, NAT_T_PORT, MARK) for version in (4, 6)]
    OPEN.extend(sock for both in sockets for sock in both)
    for sock in OPEN:
        sock.bypass_xfrm()
    tun = Tun("hushwire%d", mtu=planes.TUN_MTU)
    with Routes() as routes:
        routes.change_link(tun.index, up=True)
    stands = Barrier(tun, (500, NAT_T_PORT), ipv6=True)
    ours, theirs = pair()
    if not os.fork():
        ours.close()
        os.close(int(sys.argv[2]))
        both_ways = Channel(theirs, EFFECTS)
        by_udp = [for_plane.socket for _, for_plane in sockets]
        worker = Worker(tun.fileno(), by_udp, both_ways, both_ways, [raw_socket(version) for version in (4, 6)])
        try:
            worker.run()
        finally:
            os._exit(0)
    theirs.close()
    return planes.UserspacePlane(Channel(ours, EVENTS), stands, planes.Passing()), stands.lay


def config(servers: list[str]) -> Config:
    """Of a host with a trap for everything."""
    rules = tuple(Rule(ip_network(text), Assurance.ENCRYPTED, Action.CLEAR) for text in ("0.0.0.0/0", "::/0"))
    forward = tuple(Endpoint(ip_address(server), 53) for server in servers)
    return Config(Host("contract.example"), Dns(forward=forward), rules=rules)


OPEN: list[UdpSocket] = []
"""What must stay open."""


def main(kind: str, descriptor: int, servers: list[str]) -> None:
    planes.SOFT_SECONDS = barrier.SOFT_SECONDS = 6
    planes.SOFT_AGAIN = 1.0
    plane, lay = kernel_plane() if kind == "kernel" else userspace_plane()
    for policy in base_policies(config(servers)):
        lay(policy)
    channel = Channel(socket.socket(fileno=descriptor), EFFECTS)
    poll = selectors.DefaultSelector()
    poll.register(channel.fileno(), selectors.EVENT_READ)
    for each in plane.descriptors():
        poll.register(each, selectors.EVENT_READ)
    while True:
        for key, _ in poll.select(plane.refresh()):
            if key.fd != channel.fileno():
                told = plane.news()
            else:
                try:
                    told = [answer for request in channel.receive() for answer in plane.perform(request)]
                except ChannelClosed:
                    plane.end((), stopping=True)
                    return
            if told:
                channel.send(*told)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), sys.argv[3:])
