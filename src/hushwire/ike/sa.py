"""The IKE SA: who is at the other end, the keys, and the exchanges under way (RFC 7296 s2).

State is what has been reached; what is in flight is an exchange, a coroutine that this module drives.  At most one of
ours and one of the peer's run at a time, since both windows are 1 (RFC 7296 s2.3).
"""

from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

from hushwire.crypto.cipher import IntegrityError
from hushwire.crypto.keys import PublicKey
from hushwire.crypto.prf import IkeKeys
from hushwire.crypto.suite import IkeSuite
from hushwire.events import DeleteSA, InstallSA, Send
from hushwire.events import Sign as SignEffect
from hushwire.ike import report
from hushwire.ike.children import Children
from hushwire.ike.errors import NoAnswer, PeerMisbehaved, PlaneRefused, Rejected, Unauthorized
from hushwire.ike.host import Exchange, Host
from hushwire.ike.init import Agreed
from hushwire.ike.nat import Nat
from hushwire.ike.proof import Authenticated, reconsidered
from hushwire.ike.protection import Opened, Protection
from hushwire.ike.running import Running
from hushwire.ike.state import ANSWERED, TRANSITIONS, Input, State, Timer
from hushwire.ike.succession import Succession
from hushwire.ike.traps import Authorize, InitRequest, Install, Listen, Request, Respond, Sign
from hushwire.ike.window import LAST_MESSAGE_ID, Window
from hushwire.policy.pad import Identity, PadEntry
from hushwire.policy.sad import SA, SAName
from hushwire.timers import NEVER, Timers
from hushwire.wire.address import Endpoint, IPAddress
from hushwire.wire.cursor import DecodeError
from hushwire.wire.message import Header, Message, write_message
from hushwire.wire.payload import Notify, Payload, Unknown
from hushwire.wire.registry import ExchangeType, NotifyType
from hushwire.wire.udp import KEEPALIVE

DOUBT = 1.0
"""Seconds of silence from a peer, after which it may be doubted: nobody has us ask more often."""


class IkeSA:
    """One IKE SA, of either role."""

    def __init__(self, host: Host, local: Endpoint, remote: Endpoint, *, initiator: bool) -> None:
        self.host = host
        self.local = local
        self.remote = remote
        self.initiator = initiator
        """Whether this host is the original initiator."""
        self.state = State.INITIAL
        self.spi_i = host.new_ike_spi() if initiator else bytes(8)
        self.spi_r = bytes(8)
        self.window = Window()
        self.suite: IkeSuite
        self.keys: IkeKeys
        self.origin: tuple[bytes, bool]
        """The initiator's SPI of the first in the line of rekeys that led here, and whether we began that one.

        All three set by keyed(): an exchange that reads them before is a bug of ours, and raises.
        """
        self.nat = Nat()
        self.behind_nat = False
        """Whether a NAT of ours has a mapping to be kept alive; `nat` may only pretend."""
        self._peer: PadEntry | None = None
        self.authenticated: Authenticated | None = None
        self.proved_with: PublicKey | None = None
        """The key that our own AUTH was made with; None: a shared key.  A rekey proves nothing anew and keeps it."""
        self.known_as: Identity | None = None
        """Who we have said we are, or mean to say."""
        self.succession = Succession(self)
        self.children = Children(self)
        self.successor: IkeSA | None = None
        """What the peer's rekey of this one made."""
        self.predecessor: IkeSA | None = None
        """What it replaces, until it has taken over from it."""
        self.nonces: tuple[bytes, bytes] = (b"", b"")
        """Of the exchange that made it, the initiator's first."""
        self.created = host.now.monotonic
        self.established = 0.0
        self.heard = host.now.monotonic
        """When an integrity-checked message last came."""
        self.rekeying = False
        """A rekey of ours is under way or queued."""
        self.deleting = False
        self.agreed: Agreed | None = None
        """Of a responder between IKE_SA_INIT and IKE_AUTH."""
        self.init_request = b""
        """The octets of the IKE_SA_INIT request that is being answered."""
        self.half_open_at: Endpoint | None = None
        """Where it counts as half-open."""
        self._protection: Protection | None = None
        self._timers: Timers[Timer] = Timers()
        self._queue: deque[Callable[[], Exchange]] = deque()
        self._ours: Running | None = None
        self._theirs: Running | None = None
        self._requesting: Running | None = None
        self._current: Running | None = None

    def __repr__(self) -> str:
        return f"<IkeSA {self.spi_i.hex()}:{self.spi_r.hex()} {self.state.name}>"

    @property
    def spi(self) -> bytes:
        """Ours of the two."""
        return self.spi_i if self.initiator else self.spi_r

    @property
    def peer(self) -> PadEntry | None:
        """Who is meant to be there; proved only once `authenticated` is set."""
        return self._peer

    @peer.setter
    def peer(self, entry: PadEntry | None) -> None:
        self.host.mean(self, entry)
        self._peer = entry

    @property
    def stale(self) -> bool:
        """Whether we proved ourselves with a key that is ours no more."""
        return self.proved_with is not None and self.proved_with != self.host.settings.key

    # --- exchanges ---

    def start(self, exchange: Callable[[], Exchange]) -> None:
        """Begin an exchange of ours, as soon as the one before it has ended."""
        self._queue.append(exchange)
        self._next()

    def _next(self) -> None:
        if self._ours is None and self._queue and self.state is not State.CLOSED:
            self._ours = Running(self, self._queue.popleft()())
            self._drive(self._ours)

    def resume(self, running: Running, value: Any = None, error: Exception | None = None) -> None:
        """The answer to what an exchange waited for."""
        if running in (self._ours, self._theirs):
            self._drive(running, value, error)

    def installed(self, running: Running, number: int, error: PlaneRefused | None) -> None:
        """One of the installations an exchange waits for was done or refused."""
        answered, unwanted = running.confirm(number, refused=error is not None)
        self.uninstall(*unwanted)
        if answered:
            self.resume(running, None, error)

    def uninstall(self, *sas: SA, linger: float = 0.0) -> None:
        self.host.outbox += [DeleteSA(SAName(sa.spi, sa.destination), linger) for sa in sas]

    def _drive(self, running: Running, value: Any = None, error: Exception | None = None) -> None:
        before, self._current = self._current, running
        try:
            self._run(running, value, error)
        except (Rejected, PeerMisbehaved, NoAnswer, PlaneRefused, Unauthorized, DecodeError) as failure:
            self._failed(running, failure)
            self._ended(running)
        finally:
            self._current = before
        if self._ours is None:
            self._next()

    def _run(self, running: Running, value: Any, error: Exception | None) -> None:
        """Step the coroutine until it ends or waits for something from outside."""
        running.answer_by = NEVER
        while True:
            try:
                trap = running.coroutine.throw(error) if error is not None else running.coroutine.send(value)
            except StopIteration:
                self._ended(running)
                return
            value = error = None
            match trap:
                case Respond(payloads):
                    self._respond(running, payloads)
                    continue
                case Request(exchange, payloads):
                    self._request(exchange, payloads)
                    self._requesting = running
                case InitRequest(payloads):
                    self.window.restart()
                    self._request(ExchangeType.IKE_SA_INIT, payloads)
                    self._requesting = running
                case Listen():
                    self._requesting = running
                case Sign(key, scheme, octets):
                    self.host.outbox.append(SignEffect(self._wait(running), key, scheme, octets))
                case Authorize(identity, remote, reqid, key):
                    wanted = report.AuthorizationWanted(self._wait(running), identity, remote, reqid, key)
                    self.host.outbox.append(wanted)
                case Install(sas):
                    if not sas:
                        continue
                    for sa in sas:
                        number = self._wait(running)
                        running.installing[number] = sa
                        self.host.outbox.append(InstallSA(number, sa))
                case _:
                    raise TypeError(f"{trap!r} is no trap")
            return

    def _wait(self, running: Running) -> int:
        number = next(self.host.numbers)
        self.host.waiting[number] = running
        running.answer_by = self.host.now.monotonic + self.host.settings.patience
        self._arm_patience()
        return number

    def _arm_patience(self) -> None:
        waits = [running.answer_by for running in (self._ours, self._theirs) if running is not None]
        if min(waits, default=NEVER) != NEVER:
            self._arm(Timer.PATIENCE, min(waits))

    def _failed(self, running: Running, failure: Exception) -> None:
        """An exchange ended with an error (RFC 7296 s2.21)."""
        if running.request is not None and not running.responded:
            rejected = failure if isinstance(failure, Rejected) else None
            notify = rejected.notify if rejected else NotifyType.INVALID_SYNTAX
            if isinstance(failure, PlaneRefused):
                notify = NotifyType.TEMPORARY_FAILURE
            self._respond(running, [Notify(notify, rejected.data if rejected else b"")])
        # RFC 7296 s2.21.3: INVALID_SYNTAX ends an IKE SA, other refusals only the exchange.
        broken = isinstance(failure, NoAnswer | PeerMisbehaved | DecodeError) or (
            isinstance(failure, Rejected) and failure.notify == NotifyType.INVALID_SYNTAX
        )
        if broken or self.state in (State.INITIAL, State.HALF_OPEN):
            self.close(str(failure) or type(failure).__name__)
        else:
            self.host.notice("ike.exchange-failed", ("peer", self.peer_name), ("reason", str(failure)))

    def _ended(self, running: Running) -> None:
        if running is self._ours:
            self._ours = None
        if running is self._theirs:
            self._theirs = None
        if running is self._requesting:
            self._requesting = None

    # --- messages out ---

    def _request(self, exchange: ExchangeType, payloads: Sequence[Payload]) -> None:
        if self.window.next_id > LAST_MESSAGE_ID:
            # RFC 7296 s2.2: message IDs never wrap; an IKE SA that has used them up is closed.
            raise NoAnswer("no message ID is left")
        header = Header(self.spi_i, self.spi_r, exchange, self.initiator, False, self.window.next_id)
        datagram = self._write(header, payloads)
        self.window.sent(exchange, datagram)
        self._transmit(datagram)
        self._arm_retransmission()

    def _respond(self, running: Running, payloads: Sequence[Payload]) -> None:
        assert running.request is not None
        assert running.path is not None
        asked = running.request.header
        header = Header(self.spi_i, self.spi_r, asked.exchange, self.initiator, True, asked.message_id)
        datagram = self._write(header, payloads)
        running.responded = True
        self.window.respond(datagram)
        self.host.outbox.append(Send(*running.path, datagram))

    def _write(self, header: Header, payloads: Sequence[Payload]) -> bytes:
        if self._protection is None or header.exchange == ExchangeType.IKE_SA_INIT:
            return write_message(header, payloads)
        return self._protection.seal(header, payloads)

    def _transmit(self, datagram: bytes) -> None:
        self.host.outbox.append(Send(self.local, self.remote, datagram))

    def _arm_retransmission(self) -> None:
        assert self.window.outstanding is not None
        wait = self.host.settings.retransmit[self.window.outstanding.sent - 1]
        self._arm(Timer.RETRANSMIT, self.host.now.monotonic + wait)

    # --- messages in ---

    def receive(self, message: Message, datagram: bytes, local: Endpoint, remote: Endpoint) -> None:
        """One message for this SA.  What fails an integrity check leaves no trace but a count."""
        header = message.header
        # The I bit says who the original initiator is: our own message reflected has it wrong (ATTACKS row 15).
        if header.initiator == self.initiator:
            self.host.notice("ike.dropped", ("reason", "reflected"))
        elif header.response:
            self._receive_response(message, datagram, local, remote)
        else:
            self._receive_request(message, datagram, local, remote)

    def receive_init(self, message: Message, datagram: bytes, local: Endpoint, remote: Endpoint) -> None:
        """The IKE_SA_INIT request that makes this SA, as responder."""
        self.init_request = datagram
        self.window.accept(datagram)
        answer = self.host.exchanges.responders[ExchangeType.IKE_SA_INIT](self, message)
        self._theirs = Running(self, answer, message, (local, remote))
        self._drive(self._theirs)

    def _receive_request(self, message: Message, datagram: bytes, local: Endpoint, remote: Endpoint) -> None:
        header = message.header
        if header.message_id != self.window.expected:
            kept = self.window.repeated(header.message_id, datagram)
            if kept is not None:
                self.host.outbox.append(Send(local, remote, kept))
            return
        if self._theirs is not None or not self._answers(header.exchange):
            self.host.notice("ike.dropped", ("reason", f"{header.exchange.name} while {self.state.name}"))
            return
        opened = self._open(message)
        if opened is None:
            return
        self.window.accept(datagram)
        self._integrity_checked(local, remote)
        self._theirs = Running(self, self._answer(message, opened), message, (local, remote))
        self._drive(self._theirs)

    def _answers(self, exchange: ExchangeType) -> bool:
        """Whether a request of this kind has its place now.  The initial exchanges are the initiator's to begin."""
        return exchange in ANSWERED[self.state] and not (self.initiator and self.state is State.HALF_OPEN)

    def _answer(self, message: Message, opened: Opened) -> Exchange:
        """The coroutine that answers a request which passed its integrity check."""
        try:
            inner = opened.read()
        except DecodeError as error:
            return _refuse(NotifyType.INVALID_SYNTAX, str(error))
        for payload in inner.payloads:
            if isinstance(payload, Unknown) and payload.critical:
                # RFC 7296 s2.5: the one octet of data is the payload's type.
                return _refuse(NotifyType.UNSUPPORTED_CRITICAL_PAYLOAD, payload.type.name, bytes([payload.type]))
        return self.host.exchanges.responders[message.header.exchange](self, inner)

    def _receive_response(self, message: Message, datagram: bytes, local: Endpoint, remote: Endpoint) -> None:
        header, outstanding, running = message.header, self.window.outstanding, self._requesting
        if (
            outstanding is None
            or running is None
            or header.message_id != outstanding.message_id
            or header.exchange != outstanding.exchange
        ):
            return
        if header.exchange == ExchangeType.IKE_SA_INIT:
            # Nothing protects this one, so it stops no retransmission: the exchange may not believe it.
            self._requesting = None
            self._drive(running, (message, datagram))
            return
        opened = self._open(message)
        if opened is None:
            return
        self.window.acknowledged()
        self._timers.stop(Timer.RETRANSMIT)
        self._integrity_checked(local, remote)
        self._requesting = None
        try:
            inner = opened.read()
        except DecodeError as error:
            self._drive(running, error=PeerMisbehaved(str(error)))
            return
        if inner.notify(NotifyType.INVALID_SYNTAX) is not None:
            # RFC 7296 s2.21.3: whoever says so has deleted the IKE SA, and no Delete is to follow.
            self._drive(running, error=PeerMisbehaved("our request was INVALID_SYNTAX, said the peer"))
        else:
            self._drive(running, inner)

    def _open(self, message: Message) -> Opened | None:
        """What only the peer can have sent; None, with a count, for anything else."""
        try:
            if self._protection is not None:
                return self._protection.open(message)
        except IntegrityError:
            pass
        self.host.notice("ike.dropped", ("reason", "integrity"))
        return None

    def _integrity_checked(self, local: Endpoint, remote: Endpoint) -> None:
        """Law 6: only here may the peer's address change, and only if it sits behind a NAT (RFC 7296 s2.23)."""
        self.heard = self.host.now.monotonic
        # RFC 7296 s2.23: with IKE_AUTH the initiator goes over to port 4500, and the responder with it.
        begins = self.nat and self.state is State.HALF_OPEN
        if (local, remote) == (self.local, self.remote) or not (begins or (self.nat.remote and not self.nat.local)):
            return
        if not self._may_be_at(remote.address):
            # Law 2: a NAT may change the port; where the peer is at all is not his to say, proved or not.
            self.host.notice("ike.strayed", ("peer", self.peer_name), ("to", str(remote)), grave=True)
            return
        if not begins:
            self.host.notice("ike.moved", ("peer", self.peer_name), ("from", str(self.remote)), ("to", str(remote)))
        self.host.dismiss(self)
        self.remote, self.local = remote, local
        if self.authenticated is not None:
            self.host.admit(self, self.authenticated.entry)
        # A Child SA moves by being rekeyed: to install its keys again would repeat nonces (law 5).
        self.children.rekey_all()

    def _may_be_at(self, address: IPAddress) -> bool:
        """A stranger is where he got our IKE_SA_INIT response: he could claim to be whose address he forges."""
        return self.peer.speaks_from(address) if self.peer is not None else address == self.remote.address

    # --- life ---

    def keyed(self, suite: IkeSuite, keys: IkeKeys) -> None:
        """IKE_SA_INIT, or a rekey, has given keys."""
        self._advance(Input.KEYED)
        self.suite, self.keys = suite, keys
        self.origin = self.spi_i, self.initiator
        self._protection = Protection(suite, keys, self.host.entropy, initiator=self.initiator)
        self.window.acknowledged()
        self._timers.stop(Timer.RETRANSMIT)

    def half_open_until(self, when: float) -> None:
        """A responder's SA is reaped unless the peer proves itself by `when` (ATTACKS rows 8 to 10)."""
        self._arm(Timer.HALF_OPEN, when)

    def authenticate(self, proof: Authenticated) -> None:
        """The peer has proved who it is."""
        self._advance(Input.AUTHENTICATED)
        self.authenticated = proof
        self.peer = proof.entry
        self.succession.keep_pace(proof.entry.identity)
        self.host.admit(self, proof.entry)
        settings, now = self.host.settings, self.host.now.monotonic
        self.established = now
        self._timers.stop(Timer.HALF_OPEN)
        self._arm(Timer.LIVENESS, now + settings.liveness)
        if self.behind_nat:
            self._arm(Timer.KEEPALIVE, now + settings.keepalive)
        self._arm(Timer.REKEY, now + self.host.jitter(settings.ike_lifetime))
        self._arm(Timer.EXPIRE, now + 1.1 * settings.ike_lifetime)
        if self.stale or self.succession.instead_of:
            # The key was switched while the exchange was under way, or before the rekey; or there is one to replace.
            self._arm(Timer.REAUTHENTICATE, now)

    def reconsider(self, entry: PadEntry) -> None:
        """More is known of the peer than when it proved its key, and that key will do.  Raises Rejected if not."""
        assert self.authenticated is not None
        proof = reconsidered(self.authenticated, entry)
        self.host.dismiss(self)
        self.authenticated, self.peer = proof, entry
        self.host.admit(self, entry)

    def heir(self, *, initiator: bool) -> "IkeSA":
        """A new IKE SA with the same peer; whoever began the rekey is its original initiator (RFC 7296 s2.18)."""
        new = IkeSA(self.host, self.local, self.remote, initiator=initiator)
        new.nat, new.behind_nat, new.peer = self.nat, self.behind_nat, self.peer
        new.proved_with, new.known_as = self.proved_with, self.known_as
        new.succession.inherit(self.succession)
        return new

    def first_contact(self) -> None:
        """The peer says that it knows of no other IKE SA with us (RFC 7296 s2.4): those of before are dead.

        One that was established since this one began is not of before: both ends began at once.
        """
        assert self.peer is not None
        for other in list(self.host.peers.get(self.peer.identity, ())):
            if other is not self and other.established < self.created:
                other.close("the peer started anew")

    def take_over(self) -> None:
        """Have the children of the one that it replaces, unless it has them already (RFC 7296 s2.18)."""
        old, self.predecessor = self.predecessor, None
        if old is not None and old.state is State.ESTABLISHED:
            self.children.adopt(old.children)
            self.host.outbox.append(report.Replaced(old, self))
            old.replaced()

    def replaced(self) -> None:
        """Another IKE SA has taken the children; this one waits to be deleted, but not for ever."""
        self._advance(Input.REPLACED)
        for timer in (Timer.REKEY, Timer.CHILDREN, Timer.LIVENESS, Timer.KEEPALIVE, Timer.REAUTHENTICATE):
            self._timers.stop(timer)
        self._arm(Timer.EXPIRE, self.host.now.monotonic + sum(self.host.settings.retransmit))

    def close(self, reason: str) -> None:
        """Forget the SA and its children at once; nothing is sent."""
        if self.state is State.CLOSED:
            return
        self._advance(Input.CLOSE)
        for child in list(self.children.values()):
            self.children.remove(child)
        self.host.forget(self)
        self._queue.clear()
        for running in (self._ours, self._theirs):
            if running is not None:
                self.uninstall(*running.give_up())
                if running is not self._current:
                    running.coroutine.close()
        if self.predecessor is not None and self.predecessor.successor is self:
            self.predecessor.successor = None
        self._ours = self._theirs = self._requesting = None
        self._timers = Timers()
        self.host.outbox.append(report.Closed(self, reason))

    def _advance(self, what: Input) -> None:
        self.state = TRANSITIONS[self.state, what]

    def rekey_later(self, seconds: float) -> None:
        self._arm(Timer.REKEY, self.host.now.monotonic + self.host.jitter(seconds))

    def rekey(self) -> None:
        """Replace the IKE SA itself, unless that is already under way."""
        free = not self.rekeying and not self.deleting and self.predecessor is None
        if free and self.state is State.ESTABLISHED:
            self.rekeying = True
            self.start(lambda: self.host.exchanges.rekey_ike(self))

    def delete(self) -> None:
        """Tell the peer, and close."""
        if not self.deleting and self.state in (State.ESTABLISHED, State.REKEYED):
            self.deleting = True
            self.start(lambda: self.host.exchanges.delete_ike(self))

    def reauthenticate_later(self, seconds: float) -> None:
        self._arm(Timer.REAUTHENTICATE, self.host.now.monotonic + seconds)

    def arm_children(self) -> None:
        """The children's times to be rekeyed have changed."""
        if self.children.next_rekey == NEVER:
            self._timers.stop(Timer.CHILDREN)
        else:
            self._arm(Timer.CHILDREN, self.children.next_rekey)

    # --- time ---

    def deadline(self) -> float:
        return self._timers.deadline()

    def _arm(self, timer: Timer, when: float) -> None:
        self._timers.set(timer, when)
        self.host.wake(self, when)

    def timeout(self) -> None:
        """Do what is due by the host's `now`."""
        for timer in self._timers.due(self.host.now):
            if self.state is State.CLOSED:
                return
            match timer:
                case Timer.RETRANSMIT:
                    self._retransmit()
                case Timer.HALF_OPEN:
                    self.close("the peer proved nothing in time")
                case Timer.LIVENESS:
                    self._check_liveness()
                case Timer.KEEPALIVE:
                    # RFC 3948 s4: one octet, to keep the NAT's mapping; nobody answers it.
                    self._transmit(KEEPALIVE)
                    self._arm(Timer.KEEPALIVE, self.host.now.monotonic + self.host.settings.keepalive)
                case Timer.REKEY:
                    self.rekey()
                case Timer.EXPIRE:
                    self.close("its lifetime is over")
                case Timer.PATIENCE:
                    self._check_patience()
                case Timer.REAUTHENTICATE:
                    self.host.exchanges.reauthenticate(self)
                case Timer.CHILDREN:
                    self.children.rekey_late(self.host.now.monotonic)

    def _retransmit(self) -> None:
        outstanding, running = self.window.outstanding, self._requesting
        if outstanding is None or running is None:
            return
        if outstanding.sent < len(self.host.settings.retransmit):
            self._transmit(outstanding.datagram)
            outstanding.sent += 1
            self._arm_retransmission()
        else:
            self._requesting = None
            self._drive(running, error=NoAnswer(f"no answer from {self.remote}"))

    def _check_liveness(self) -> None:
        now, liveness = self.host.now.monotonic, self.host.settings.liveness
        if now - self.heard >= liveness and self._ours is None:
            self.start(lambda: self.host.exchanges.liveness(self))
        if self.state is State.ESTABLISHED:
            self._arm(Timer.LIVENESS, max(self.heard, now - liveness / 2) + liveness)

    def doubt(self) -> None:
        """The peer may have forgotten it: ask now, unless it was heard of a moment ago (RFC 7619 s2.3)."""
        if self.host.now.monotonic - self.heard >= DOUBT and self._ours is None:
            self.start(lambda: self.host.exchanges.liveness(self))

    def _check_patience(self) -> None:
        """An exchange that waits for a keeper or a plane that never answers would stop all others for ever."""
        late = [running for running in (self._ours, self._theirs) if running is not None]
        if any(running.answer_by <= self.host.now.monotonic for running in late):
            self.close("the host's own processes do not answer")
        else:
            self._arm_patience()

    @property
    def peer_name(self) -> str:
        return self.peer.name if self.peer else str(self.remote)


async def _refuse(notify: NotifyType, why: str = "", data: bytes = b"") -> None:
    raise Rejected(notify, why, data)
