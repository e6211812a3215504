"""The kernel plane with names in this network namespace: two of them at one address.

python names_host.py LOCAL REAL MADE...        policies of the reqids from NUMBER on; prints the Acquires, one a line
"""

import sys
from ipaddress import ip_address
from pathlib import Path

from hushwire.config import Addressing, Config, Rule
from hushwire.config.model import Host
from hushwire.daemon import planes
from hushwire.daemon.synthetic import Names
from hushwire.events import Acquire, DeletePolicy, Installed, InstallPolicy
from hushwire.linux.xfrm import Xfrm
from hushwire.node.base import base_policies
from hushwire.node.scope import REQID_BASE
from hushwire.policy.sad import Direction
from hushwire.policy.selector import Selector
from hushwire.policy.spd import Action, Policy


def main(local: str, real: str, *made: str) -> None:
    Path("/proc/sys/net/core/xfrm_larval_drop").write_text("0")
    names = Names(planes.TUN_MTU, ())
    with Xfrm() as xfrm:
        for policy in base_policies(Config(Host("a.example"), rules=(Rule("*", addressing=Addressing.SYNTHETIC),))):
            xfrm.install_policy(policy)
    plane = planes.KernelPlane(planes.Passing(), names)
    for number, address in enumerate(made, 1):
        selector = Selector.between(ip_address(local), ip_address(address))
        for direction in Direction:
            policy = Policy(selector, direction, Action.PROTECT, 500, REQID_BASE + number, real=ip_address(real))
            for _ in range(2):
                assert plane.perform(InstallPolicy(1, policy)) == [Installed(1)]
    # One that moved, and one that went.
    for direction in Direction:
        selector = Selector.between(ip_address(local), ip_address(made[-1]) + 1)
        policy = Policy(selector, direction, Action.PROTECT, 500, REQID_BASE + 9, real=ip_address(real))
        for reqid in (REQID_BASE + 9, REQID_BASE + 10):
            moved = Policy(selector, direction, Action.PROTECT, 500, reqid, real=ip_address(real))
            assert plane.perform(InstallPolicy(1, moved)) == [Installed(1)]
        assert plane.perform(DeletePolicy(selector, direction)) == []
    print("ready", flush=True)
    while True:
        for news in plane.news():
            if isinstance(news, Acquire):
                print(news.flow.remote, news.reqid - REQID_BASE, flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
