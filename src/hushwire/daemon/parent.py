"""The parent: opens what needs privileges, starts the others, and guards SAD and SPD (DESIGN.md section 3).

It parses no octet from the network.  Its children are forked, not run anew, so that what they import is in memory
before they give up the file system; identity keys are read in the keeper only, after the fork.
"""

import contextlib
import errno
import gc
import os
import select
import signal
import socket
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import get_args

from cryptography.hazmat.backends import default_backend

from hushwire.config import Config, PlaneChoice
from hushwire.crypto.keys import PublicKey
from hushwire.daemon import barrier, control, flows, keeper, keyfile, memory, node, plane, planes, resolver
from hushwire.daemon.channel import EFFECTS, EVENTS, Channel, ChannelClosed, ChannelError, pair, vocabulary
from hushwire.daemon.entropy import SystemEntropy
from hushwire.daemon.guard import Forbidden, Guard, Request
from hushwire.daemon.listener import open_sockets
from hushwire.daemon.log import Log
from hushwire.daemon.questions import MODE, Questions
from hushwire.daemon.start import (
    CannotStart,
    be_alone,
    choose_plane,
    has_synthetic,
    psk_name,
    public_secrets,
    read_trust_store,
    reqids_of_real,
    said,
    user_of,
)
from hushwire.daemon.synthetic import Names, take_away
from hushwire.daemon.unbound import Configuration, UnboundError
from hushwire.events import (
    AddressesChanged,
    Began,
    CloseFlows,
    CountFlows,
    FlowsFound,
    Forget,
    Notice,
    ReadKey,
    ReadTrusted,
    Recalled,
    Refused,
    Remember,
    Stop,
    TrustRead,
)
from hushwire.linux import sandbox
from hushwire.linux.netlink import NetlinkError
from hushwire.linux.route import AddressWatch, Routes
from hushwire.linux.sandbox import Capability
from hushwire.linux.sockets import UdpSocket, raw_socket, shared_nat_t
from hushwire.linux.tun import Tun
from hushwire.linux.xfrm import Xfrm
from hushwire.names.synthetic import POOLS
from hushwire.node import Node, Secrets
from hushwire.node.base import base_policies
from hushwire.node.rulebook import Rulebook
from hushwire.timers import Now

START_LIMIT = 15.0
"""Seconds until a child must have said that it is ready."""
STOP_LIMIT = 1.5
"""Seconds that peers are given to hear of our end."""
FIRST_WAIT, LAST_WAIT = 0.5, 30.0
"""Seconds until the children are started again after one died; doubled each time."""
ACQUIRE_AGAIN = 4
"""Seconds; the kernel's own half a minute would be lost whenever who heard an Acquire has ended."""
NODE_LIMIT = 10.0
"""Seconds in which a node takes what it is told; one that does not is not ours any more."""
KEEPER_LIMIT = 2.0
"""Seconds for the keeper to take a descriptor."""
TRUSTED_AT_ONCE = 200
"""Keys of the trust store in one packet to the node."""
STEADY = 60.0
"""Seconds after which a run counts as having gone well."""

SETUP = vocabulary((keeper.Ready, keeper.Unusable))
"""What a child tells the parent before it serves."""
Answer = planes.News | FlowsFound | TrustRead
"""What the parent has to say to the node's requests."""
REQUESTS = vocabulary((*get_args(Request), ReadKey, ReadTrusted))
"""What the node asks of the parent; it has no other word."""


@dataclass(slots=True)
class Descriptors:
    """What was opened with privileges, once, and outlives the children."""

    ike: list[UdpSocket]
    """For the node: ports 500 and 4500."""
    esp: list[UdpSocket]
    """For the plane worker: port 4500; empty with the kernel plane."""
    tun: Tun | None
    raw: list[socket.socket]
    """For the plane worker: to send in clear what it held."""
    barrier: barrier.Barrier | None
    names: Names | None
    """With the kernel plane, where a rule has synthetic addresses."""
    control: socket.socket
    questions: socket.socket
    """For the node: where programs ask who is at the other end of their connections."""
    listen: list[socket.socket]
    """For the resolver: where programs ask for names."""


@dataclass(slots=True)
class Children:
    """One generation: all end together."""

    pids: dict[int, str] = field(default_factory=dict)
    """By pidfd, the process's name."""
    sockets: list[socket.socket] = field(default_factory=list)
    """The parent's ends of channels."""


class Parent:
    """The daemon."""

    def __init__(self, config: Config, log: Log) -> None:
        self._config = config
        self._log = log
        self._user = user_of(config.host.user)
        self._secrets = public_secrets(config)
        self._plane_name = choose_plane(config, log)
        self._lock = be_alone()
        self._remembered = memory.prepare(Path(config.host.state), *self._user)
        self._open = self._open_descriptors()
        if self._plane_name is PlaneChoice.KERNEL:
            self._keep_first_packets()
        self._stopping = False
        self._wake, self._woken = socket.socketpair()
        for sock in (self._wake, self._woken):
            sock.setblocking(False)
        # What the library imports late must be in memory before the children give up the file system.
        default_backend()
        # What is there now stays: no collection need look at it again, nor a child copy its pages for that.
        gc.collect()
        gc.freeze()
        # An IKE SA that ends leaves some cycles, a few hundred objects: no reason to look for them at every turn.
        gc.set_threshold(50_000, 10, 10)
        self._guard = Guard(config)
        self._closes_flows = flows.can_close()
        if not self._closes_flows:
            log.line("! this kernel ends no connections (CONFIG_INET_DIAG_DESTROY): no stranger may change its key")
        self._passing = planes.Passing()

    def run(self) -> None:
        """Serve until told to stop.  Raises CannotStart if the first children could not begin."""
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._stop)
        # A signal alone would not end a poll that Python has begun.
        signal.set_wakeup_fd(self._wake.fileno(), warn_on_full_buffer=False)
        try:
            self._install_policies()
            self._serve_generations()
        finally:
            host = self._config.host
            for sock, path in ((self._open.control, host.control), (self._open.questions, host.questions)):
                sock.close()
                Path(path).unlink(missing_ok=True)
        self._log.line("stopped; policies stand")

    def _install_policies(self) -> None:
        """Those that stand whoever the peers are; what an earlier run left stays (DESIGN.md law 1)."""
        try:
            with Xfrm() as xfrm:
                for policy in planes.found_policies(xfrm):
                    self._guard.adopt(policy)
                for name in planes.found_sas(xfrm):
                    xfrm.delete_sa(name)
                for policy in base_policies(self._config):
                    if self._open.barrier is not None:
                        self._open.barrier.lay(policy)
                    else:
                        xfrm.install_policy(policy)
                if self._open.names is None:
                    take_away(xfrm)
        except (OSError, NetlinkError) as error:
            raise CannotStart(said(error)) from None

    def _serve_generations(self) -> None:
        wait, first = FIRST_WAIT, True
        while not self._stopping:
            began = time.monotonic()
            children = Children()
            try:
                self._generation(children, first)
            except ChannelClosed:
                pass
            except ChannelError as error:
                self._log.line(f"! a process said what it has no word for: {error}")
            except CannotStart as error:
                if first:
                    raise
                self._log.line(f"! {error}")
            finally:
                self._end(children)
            first = False
            if not self._stopping:
                wait = FIRST_WAIT if time.monotonic() - began > STEADY else min(LAST_WAIT, 2 * wait)
                self._log.line(f"! a process ended; policies stand, all start again in {wait:g} s")
                time.sleep(wait)

    def _stop(self, *_: object) -> None:
        self._stopping = True

    # --- opening ---

    def _open_descriptors(self) -> Descriptors:
        host = self._config.host
        ike: list[UdpSocket] = []
        esp: list[UdpSocket] = []
        raw: list[socket.socket] = []
        tun = stands = names = None
        try:
            ipv6 = Path("/proc/net/if_inet6").exists()
            for version in (4, 6) if ipv6 else (4,):
                if self._plane_name is PlaneChoice.KERNEL:
                    ike += [UdpSocket(version, host.port), UdpSocket(version, host.nat_port)]
                    ike[-1].take_esp()
                else:
                    ike.append(UdpSocket(version, host.port, mark=barrier.MARK))
                    for_node, for_plane = shared_nat_t(version, host.nat_port, barrier.MARK)
                    ike.append(for_node)
                    esp.append(for_plane)
                    with contextlib.suppress(PermissionError):
                        # Without CAP_NET_RAW what was held is lost where it may then go in clear, and sent again.
                        raw.append(raw_socket(version))
            for sock in ike + esp:
                sock.bypass_xfrm()
            listen = open_sockets(self._config.dns.listen)
            listener = control.listen(Path(host.control))
            questions = control.listen(Path(host.questions), MODE)
            if esp:
                tun = Tun("hushwire%d", mtu=planes.TUN_MTU)
                with Routes() as routes:
                    routes.change_link(tun.index, up=True, queue=planes.TUN_QUEUE)
                stands = barrier.Barrier(tun, (host.port, host.nat_port), ipv6=ipv6)
            elif has_synthetic(self._config):
                names = Names(planes.TUN_MTU, reqids_of_real(self._config))
        except (OSError, NetlinkError, control.SocketInUse) as error:
            raise CannotStart(said(error)) from None
        return Descriptors(ike, esp, tun, raw, stands, names, listener, questions, listen)

    def _keep_first_packets(self) -> None:
        """Have the kernel hold the packet that raises an Acquire, and raise another soon if nobody acted on it."""
        try:
            for name, value in (("xfrm_larval_drop", 0), ("xfrm_acq_expires", ACQUIRE_AGAIN)):
                Path(f"/proc/sys/net/core/{name}").write_text(str(value))
        except OSError as error:
            self._log.line(f"a first packet to each peer will be lost: {error.strerror}: {error.filename}")

    # --- one generation of children ---

    def _generation(self, children: Children, first: bool) -> None:
        config, host = self._config, self._config.host
        parent_keeper, keeper_parent = pair()
        parent_resolver, resolver_parent = pair()
        parent_node, node_parent = pair()
        keeper_node, node_keeper = pair()
        resolver_node, node_resolver = pair()
        memory_node, node_memory = pair()
        children.sockets += [parent_keeper, parent_resolver, parent_node]
        key = Path(host.key) if host.key else None
        shared = {name: Path(rule.psk) for rule in config.rules if rule.psk for name in [psk_name(rule.psk)]}

        def keep() -> None:
            to_node = Channel(keeper_node, EFFECTS)
            to_parent = Channel(keeper_parent, vocabulary((ReadKey,)))
            keeper.main(to_parent, to_node, key, shared, partial(self._confine, "keeper", False))

        def resolve() -> None:
            to_parent = Channel(resolver_parent, {})
            forward = tuple(
                f"{each.address}@{each.port}{'#' if each.tls else ''}{each.tls}" for each in config.dns.forward
            )
            roots = tuple(f"{each.address}@{each.port}" for each in config.dns.roots)
            configuration = Configuration(config.dns.trust_anchor, roots=roots, forward=forward)

            def ready() -> None:
                self._confine("resolver", True)
                to_parent.send(keeper.Ready(b""))

            try:
                to_node = Channel(resolver_node, EFFECTS)
                resolver.main(to_node, configuration, ready, self._open.listen, Rulebook(config.rules).speaks_of)
            except UnboundError as error:
                to_parent.send(keeper.Unusable(str(error)))

        def remember() -> None:
            to_node = Channel(memory_node, vocabulary((Remember, Forget)))
            confine = partial(self._confine, "memory", False, [self._remembered])
            memory.main(to_node, self._remembered, Log("memory"), confine)

        self._fork(children, "keeper", keep, [keeper_parent, keeper_node])
        self._fork(children, "memory", remember, [memory_node])
        self._fork(children, "resolver", resolve, [resolver_parent, resolver_node, *self._open.listen])
        ready = self._await_ready(parent_keeper, "keeper")
        to_keeper = Channel(parent_keeper, {}, timeout=KEEPER_LIMIT)
        self._await_ready(parent_resolver, "resolver")
        secrets = Secrets(
            PublicKey.read(ready.public) if ready.public else None, self._secrets.pinned, self._secrets.shared,
            self._secrets.trusted,
        )  # fmt: skip
        driven, plane_news = self._start_plane(children)

        def think() -> None:
            others = node.Correspondents(
                Channel(node_parent, EVENTS), Channel(node_keeper, EVENTS), Channel(node_resolver, EVENTS),
                Channel(plane_news, EVENTS) if plane_news is not None else None, self._open.ike, self._open.control,
                Channel(node_memory, vocabulary((Recalled,))), Questions.at(self._open.questions),
            )  # fmt: skip
            mind = Node(config, secrets, self._plane_name, SystemEntropy())
            node.main(mind, others, host.nat_port, Log("node"), partial(self._confine, "node", False))

        descriptors = [node_parent, node_keeper, node_resolver, node_memory]
        descriptors += [plane_news] if plane_news is not None else []
        opened = [self._open.control, self._open.questions, *(sock.socket for sock in self._open.ike)]
        self._fork(children, "node", think, [*descriptors, *opened])
        for sock in (keeper_parent, resolver_parent, keeper_node, resolver_node, memory_node, *descriptors):
            sock.close()
        if first:
            self._confine_self()
        self._log.line(f"{host.name} runs, {driven.name} plane")
        self._serve(children, Channel(parent_node, REQUESTS, timeout=NODE_LIMIT), driven, to_keeper)

    def _start_plane(self, children: Children) -> tuple[planes.Plane, socket.socket | None]:
        """The plane, and the node's end of the channel by which a worker tells its news."""
        if self._open.tun is None or self._open.barrier is None:
            return planes.KernelPlane(self._passing, self._open.names), None
        tun, raw, sockets = self._open.tun, self._open.raw, [sock.socket for sock in self._open.esp]
        parent_plane, plane_parent = pair()
        node_plane, plane_node = pair()
        children.sockets.append(parent_plane)

        def carry() -> None:
            worker = plane.Worker(tun.fileno(), sockets, Channel(plane_parent, EFFECTS), Channel(plane_node, {}), raw)
            self._confine("plane", False)
            with contextlib.suppress(ChannelClosed):
                worker.run()
            for cause, count in sorted((worker.plane.counters + worker.lost).items()):
                Log("plane").line(f"dropped {count}: {cause}")

        self._fork(children, "plane", carry, [plane_parent, plane_node, *sockets, *raw], [tun.fileno()])
        plane_parent.close()
        plane_node.close()
        return planes.UserspacePlane(Channel(parent_plane, EVENTS), self._open.barrier, self._passing), node_plane

    def _fork(
        self,
        children: Children,
        name: str,
        body: Callable[[], None],
        keep: list[socket.socket],
        more: list[int] | None = None,
    ) -> None:
        pid = os.fork()
        if pid:
            children.pids[os.pidfd_open(pid)] = name
            return
        status = 1
        try:
            for number in (signal.SIGTERM, signal.SIGINT):
                # A terminal's Ctrl-C goes to all; the parent ends us by closing our channels.
                signal.signal(number, signal.SIG_IGN if number == signal.SIGINT else signal.SIG_DFL)
            Path("/proc/self/comm").write_text(f"hushwire:{name}")
            _close_all_but({sock.fileno() for sock in keep} | set(more or ()))
            body()
            status = 0
        except BaseException as error:
            # A bug of ours: say where, and let the parent start everything anew.
            Log(name).line(f"! {_fault(error)}")
        finally:
            os._exit(status)

    def _await_ready(self, sock: socket.socket, name: str) -> keeper.Ready:
        try:
            (answer,) = Channel(sock, SETUP, timeout=START_LIMIT).wait()
        except (ChannelClosed, TimeoutError):
            raise CannotStart(f"the {name} process did not start; its line above says why") from None
        if isinstance(answer, keeper.Unusable):
            raise CannotStart(answer.reason)
        assert isinstance(answer, keeper.Ready)
        return answer

    # --- confinement ---

    def _confine(self, name: str, network: bool, writable: Sequence[Path] = ()) -> None:
        uid, gid = self._user
        found = sandbox.confine(uid=uid, gid=gid, network=network, writable=writable)
        for missing in found.missing:
            Log(name).line(f"! not confined: {missing}")
        if any(missing.startswith(("capabilities", "no new privileges")) for missing in found.missing):
            raise PermissionError(errno.EPERM, "a process that parses the network would have kept privileges")

    def _confine_self(self) -> None:
        """Root's identity stays, to start children again; of its capabilities only what that and the planes need."""
        keep = (Capability.NET_ADMIN, Capability.SETUID, Capability.SETGID, Capability.KILL)
        for missing in sandbox.confine(keep=keep, files=True).missing:
            self._log.line(f"! not confined: {missing}")

    # --- serving ---

    def _serve(self, children: Children, to_node: Channel, driven: planes.Plane, to_keeper: Channel) -> None:
        guard = self._guard
        watch = AddressWatch()
        sources = {to_node.fileno(): "node", watch.fileno(): "addresses", self._woken.fileno(): "signal"}
        sources |= dict.fromkeys(driven.descriptors(), "plane") | dict.fromkeys(children.pids, "child")
        with contextlib.closing(watch), select.epoll() as poll:
            for descriptor in sources:
                poll.register(descriptor, select.EPOLLIN)
            self._end_flows_with_names()
            to_node.send(Began(guard.sealed, self._closes_flows), _addresses(guard))
            end = float("inf")
            try:
                while time.monotonic() < end:
                    if self._stopping and end == float("inf"):
                        end = time.monotonic() + STOP_LIMIT
                        to_node.send(Stop())
                    for descriptor, _ in poll.poll(0.1 if self._stopping else driven.refresh()):
                        match sources[descriptor]:
                            case "node":
                                self._from_node(to_node, driven, guard, to_keeper)
                            case "plane":
                                if news := driven.news():
                                    to_node.send(*news)
                            case "addresses":
                                if watch.receive():
                                    to_node.send(_addresses(guard))
                            case "signal":
                                self._woken.recv(64)
                            case _:
                                raise ChannelClosed
                    if self._stopping and not guard.sas:
                        return
            finally:
                driven.end(guard.sas, stopping=self._stopping)
                guard.forget_sas()

    def _from_node(self, to_node: Channel, driven: planes.Plane, guard: Guard, to_keeper: Channel) -> None:
        """One packet of requests, so that whoever sends many does not keep us from all else."""
        answers: list[Answer] = []
        allowed: list[Request] = []
        for request in to_node.receive():
            if wait := guard.pace(Now(time.monotonic(), time.time())):
                time.sleep(wait)
            if isinstance(request, ReadKey):
                answers += self._offer_key(request, to_keeper)
                continue
            if isinstance(request, ReadTrusted):
                answers += self._read_trusted(request)
                continue
            try:
                guard.judge(request)
            except Forbidden as error:
                fields = (("request", type(request).__name__), ("reason", str(error)))
                self._log.notice(Notice("guard.refused", fields, grave=True), time.monotonic())
                answers.append(Refused(getattr(request, "request", 0), f"guard: {error}"))
            else:
                # A worker may still refuse it: then the guard only knows of more than there is.
                guard.done(request)
                if isinstance(request, CloseFlows | CountFlows):
                    answers.append(flows.answer(request))
                if not isinstance(request, CountFlows):
                    allowed.append(request)
        answers += driven.perform(*allowed)
        if answers:
            to_node.send(*answers)

    def _end_flows_with_names(self) -> None:
        """What a synthetic address stood for, went with the node that gave it out (RFC 5660 s2: a conflict)."""
        if has_synthetic(self._config):
            answer = flows.answer(CloseFlows(0, tuple(POOLS.values())))
            if isinstance(answer, Refused):
                self._log.line(f"! flows with names that an earlier run knew may go on with others: {answer.reason}")

    def _offer_key(self, request: ReadKey, to_keeper: Channel) -> list[Answer]:
        """Open the host's key file for the keeper, who alone reads it, and answers."""
        if not self._config.host.key:
            return [Refused(request.request, "host.key: there is no key file to read")]
        try:
            descriptor = keyfile.open_file(Path(self._config.host.key))
        except keyfile.KeyFileError as error:
            # Of root's capabilities the one to read everybody's files is gone by now.
            return [Refused(request.request, f"{error}; it must be there, and root's own")]
        try:
            to_keeper.send_file(request, descriptor)
        finally:
            os.close(descriptor)
        return []

    def _read_trusted(self, request: ReadTrusted) -> list[Answer]:
        """The trust store as it is now, in parts that fit the channel."""
        try:
            store = read_trust_store(self._config)
        except keyfile.KeyFileError as error:
            return [Refused(request.request, str(error))]
        self._secrets, keys = replace(self._secrets, trusted=store), tuple(store)
        parts = [keys[start : start + TRUSTED_AT_ONCE] for start in range(0, len(keys), TRUSTED_AT_ONCE)] or [()]
        return [TrustRead(request.request, part, part is parts[-1]) for part in parts]

    def _end(self, children: Children) -> None:
        """All of a generation end: by their channels, or by SIGKILL."""
        for sock in children.sockets:
            sock.close()
        deadline = time.monotonic() + 1.0
        for descriptor in children.pids:
            with contextlib.suppress(OSError):
                if not _wait(descriptor, deadline):
                    signal.pidfd_send_signal(descriptor, signal.SIGKILL)
                    _wait(descriptor, time.monotonic() + 1.0)
                os.waitid(os.P_PIDFD, descriptor, os.WEXITED | os.WNOHANG)
            os.close(descriptor)


def _addresses(guard: Guard) -> AddressesChanged:
    """The host's own, as the kernel has them now; the guard hears of them first."""
    with Routes() as routes:
        changed = routes.addresses()
    guard.addresses(changed.addresses)
    return changed


def _wait(pidfd: int, deadline: float) -> bool:
    readable, _, _ = select.select([pidfd], [], [], max(0.0, deadline - time.monotonic()))
    return bool(readable)


def _close_all_but(keep: set[int]) -> None:
    """No child holds a descriptor that is not its own: not of another's channel, nor of netlink."""
    for name in os.listdir("/proc/self/fd"):
        descriptor = int(name)
        if descriptor > 2 and descriptor not in keep:
            with contextlib.suppress(OSError):
                os.close(descriptor)


def _fault(error: BaseException) -> str:
    """What kind it is, and its innermost line; of its text only the system's: other values may be secret, or lines."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    where = f"{Path(trace.tb_frame.f_code.co_filename).name}:{trace.tb_lineno}" if trace is not None else "?"
    said = f": {error.strerror}" if isinstance(error, OSError) and error.strerror else ""
    return f"{type(error).__name__}{said} at {where}"
