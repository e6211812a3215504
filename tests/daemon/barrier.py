"""The userspace plane's barrier in this network namespace, without a plane: what goes into its TUN goes nowhere.

    python barrier.py raise|clear|lower SELECTOR...        a selector is LOCAL,REMOTE or LOCAL,REMOTE,PROTOCOL,PORT

It says "done", and goes on holding the TUN until its input ends.
"""

import sys
from ipaddress import ip_network

from hushwire.daemon.barrier import Barrier
from hushwire.linux.route import Routes
from hushwire.linux.tun import Tun
from hushwire.node.scope import PROTECT_PRIORITY, narrowness
from hushwire.policy.sad import Direction, Mode
from hushwire.policy.selector import Selector
from hushwire.policy.spd import Action, Policy


def selector(text: str) -> Selector:
    local, remote, *ports = text.split(",")
    protocol, port = map(int, ports or (0, 0))
    return Selector(ip_network(local), ip_network(remote), protocol, 0, port)


def main() -> None:
    tun = Tun("hushwire%d")
    with Routes() as routes:
        routes.change_link(tun.index, up=True)
    barrier = Barrier(tun, (500, 4500), ipv6=True)
    for line in sys.stdin:
        what, *selectors = line.split()
        for each in map(selector, selectors):
            for direction in Direction:
                priority = PROTECT_PRIORITY - narrowness(each)
                if what == "raise":
                    mode = Mode.TRANSPORT if each.local.prefixlen == each.local.max_prefixlen else Mode.TUNNEL
                    ends = None if mode is Mode.TRANSPORT else (each.local[1], each.remote[1])
                    barrier.raise_for(Policy(each, direction, Action.PROTECT, priority, 1, mode, ends))
                elif what == "clear":
                    barrier.raise_for(Policy(each, direction, Action.CLEAR, priority))
                else:
                    barrier.lower_for(each, direction)
        print("done", flush=True)


if __name__ == "__main__":
    main()
