"""Steps of contract_steps.py: traps for many, what is narrower than they, and what ends with hushwire."""

import os
import subprocess
import sys
import time
from contextlib import suppress
from typing import Any

from hushwire.events import Acquire
from hushwire.lab.namespaces import end
from hushwire.lab.peer import eventually
from hushwire.policy.spd import Action


def step_a_trap_holds_what_a_narrower_policy_then_protects(world: Any) -> None:
    world.trap()
    world.narrow(Action.PROTECT, side=world.bob, reqid=world.reqid)
    canary = world.relay.canary()
    with world.pinging(1, canary) as ping:
        acquire = world.alice.expect(Acquire)
        assert (acquire.flow.local, acquire.flow.remote) == (world.alice.address, world.bob.address)
        assert acquire.reqid == world.trap_reqid
        world.narrow(Action.PROTECT, reqid=world.reqid)
        world.connect(*world.sas(), acquire=acquire.sequence)
        assert ping.wait(15) == 0
    assert world.relay.report().seen(canary) == 0


def step_a_trap_holds_what_then_may_go_in_clear_for_a_while(world: Any) -> None:
    world.trap()
    canary = world.relay.canary()
    with world.pinging(1, canary) as ping:
        assert world.alice.expect(Acquire).reqid == world.trap_reqid
        assert world.relay.report().seen(canary) == 0
        world.narrow(Action.CLEAR, lifetime=3)
        assert ping.wait(15) == 0
    assert world.relay.report().seen(canary) == 2
    for _ in range(3):
        # To install it again is to begin its time anew.
        time.sleep(1.5)
        world.narrow(Action.CLEAR, lifetime=3)
        assert world.ping() == 1
    assert eventually(lambda: world.ping() == 0, 8)
    seen = world.relay.report().seen(world.relay.watch(canary))
    world.alice.heard(0)
    assert world.ping(2, canary) == 0
    assert world.relay.report().seen(canary) == seen
    assert eventually(lambda: world.ping() or [news for news in world.alice.heard(0.1) if isinstance(news, Acquire)], 8)


def step_a_narrow_block_drops_what_a_trap_held_and_nothing_else(world: Any) -> None:
    """Linux holds packets by policy and not by address: with one that is dropped go those behind it (see KernelPlane),
    and their senders send again."""
    other = world.bob.address + 70
    bits = 24 if world.version == 4 else 64
    nodad = () if world.version == 4 else ("nodad",)
    world.bob.host.run("ip", "address", "add", f"{other}/{bits}", "dev", "eth0", *nodad)
    world.trap()
    canary = world.relay.canary()
    with world.pinging(1, canary, to=str(other)) as dropped:
        assert world.alice.expect(Acquire).flow.remote == other
        with world.pinging(1 if world.plane == "userspace" else 3, interval=1) as waits:
            assert world.alice.expect(Acquire).flow.remote == world.bob.address
            world.narrow(Action.BLOCK, str(other))
            world.narrow(Action.CLEAR, lifetime=60)
            assert waits.wait(15) == 0
        assert dropped.poll() is None
    assert world.ping(1, canary, to=str(other)) == 0
    assert world.relay.report().seen(canary) == 0
    world.bob.host.run("ip", "address", "delete", f"{other}/{bits}", "dev", "eth0")


THROW = """
import socket, sys
family, near, far, port, octets = sys.argv[1:]
sock = socket.socket(socket.AF_INET if family == "4" else socket.AF_INET6, socket.SOCK_DGRAM)
sock.bind(("", int(near)))
sock.sendto(bytes.fromhex(octets), (far, int(port)))
"""


def step_a_trap_leaves_alone_what_must_pass(world: Any) -> None:
    """Look-ups, address configuration, and what is not for one host; the control is a datagram to another port."""
    world.trap()
    bob = str(world.bob.address)
    client, server, group = (68, 67, "224.0.0.1") if world.version == 4 else (546, 547, "ff02::1%eth0")
    world.alice.host.run("ip", "route", "replace", "224.0.0.0/4", "dev", "eth0")
    for near, far, port, passes in (
        (0, bob, 53, True), (client, bob, server, True), (0, group, 9, True),
        (0, bob, 54, False), (0, bob, server, False),
    ):  # fmt: skip
        canary = world.relay.canary()
        words = (str(world.version), str(near), far, str(port), canary.hex())
        world.alice.host.run(sys.executable, "-c", THROW, *words)
        if passes:
            assert eventually(lambda canary=canary: world.relay.report().seen(canary), 5), words
        else:
            time.sleep(0.3)
            assert world.relay.report().seen(canary) == 0, words


LISTEN = """
import socket, sys
sock = socket.socket(socket.AF_INET if sys.argv[1] == "4" else socket.AF_INET6, socket.SOCK_DGRAM)
sock.bind(("", 9))
print("ready", flush=True)
while True:
    print(sock.recv(64).hex(), flush=True)
"""


def step_what_comes_in_clear_by_a_soft_trap_is_let_in(world: Any) -> None:
    world.between_hosts_nothing()
    words = (sys.executable, "-c", LISTEN, str(world.version))
    listener = world.alice.host.start(*words, stdout=subprocess.PIPE)
    assert listener.stdout is not None
    assert listener.stdout.readline() == "ready\n"
    output = listener.stdout.fileno()
    os.set_blocking(output, False)

    def comes_in() -> bool:
        canary = world.relay.canary()
        words = (str(world.version), "0", str(world.alice.address), "9", canary.hex())
        world.bob.host.run(sys.executable, "-c", THROW, *words)
        time.sleep(0.3)
        assert world.relay.report().seen(canary) == 1
        with suppress(BlockingIOError):
            return canary.hex().encode() in os.read(output, 4096)
        return False

    try:
        assert comes_in()
        world.trap(soft=True)
        assert comes_in()
        # A host that has proved itself; and so it stays, longer than the kernel would keep it by itself.
        world.narrow(Action.PROTECT, reqid=world.reqid, soft=True)
        print(world.alice.host.run("ip", "-s", "xfrm", "policy").stdout)  # DBG
        assert not comes_in()
        time.sleep(8)
        assert not comes_in()
        world.narrow(Action.CLEAR, lifetime=60, soft=True)
        assert comes_in()
        world.narrow(Action.PROTECT, reqid=world.reqid)
        world.trap()
        assert not comes_in()
    finally:
        end(listener)


def step_stopped_it_leaves_nothing_soft(world: Any) -> None:
    for soft in (True, False):
        world.trap(soft=soft)
        time.sleep(8)
        assert world.ping() == 0
        world.alice.stop()
        assert world.ping(2) == (2 if soft else 0)
        world.alice.start()
        world.trap()


def step_killed_it_leaves_nothing_soft_for_long(world: Any) -> None:
    for soft in (True, False):
        world.trap(soft=soft)
        canary = world.relay.canary()
        assert world.ping(1, canary) == 0
        world.alice.kill()
        assert eventually(lambda: world.ping(), 12) is soft
        if not soft:
            assert world.ping(1, canary) == 0
            assert world.relay.report().seen(canary) == 0
        world.alice.start()
        world.trap()
