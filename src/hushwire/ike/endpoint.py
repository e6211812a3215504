"""One host's IKE: which IKE SA a message belongs to, who may begin one, and how several with one peer are settled."""

from collections.abc import Iterator
from dataclasses import replace
from heapq import heappop

from hushwire.crypto.keys import PublicKey
from hushwire.entropy import Entropy
from hushwire.events import Datagram, Effect, Installed, Refused, Send, Signed
from hushwire.ike import auth, create_child, informational, init, reauth, rekey_ike, report
from hushwire.ike.errors import PlaneRefused, Unauthorized
from hushwire.ike.half_open import Cookies
from hushwire.ike.host import Exchanges, Host
from hushwire.ike.negotiation import Wanted
from hushwire.ike.report import Report
from hushwire.ike.sa import IkeSA
from hushwire.ike.settings import Settings
from hushwire.ike.state import State
from hushwire.policy.pad import Identity, PadEntry
from hushwire.policy.sad import SAName
from hushwire.timers import NEVER, Now
from hushwire.wire.address import Endpoint as UdpEndpoint
from hushwire.wire.address import IPAddress
from hushwire.wire.cursor import DecodeError
from hushwire.wire.message import Header, Message, UnsupportedVersion, read_message, write_message
from hushwire.wire.payload import Nonce, Notify
from hushwire.wire.registry import ExchangeType, NotifyType

EXCHANGES = Exchanges(
    responders={
        ExchangeType.IKE_SA_INIT: init.respond,
        ExchangeType.IKE_AUTH: auth.respond,
        ExchangeType.CREATE_CHILD_SA: create_child.respond,
        ExchangeType.INFORMATIONAL: informational.respond,
    },
    liveness=informational.check_liveness,
    rekey_ike=rekey_ike.initiate,
    rekey_child=create_child.rekey,
    delete_ike=informational.delete_ike,
    activate=informational.activate,
    disown=informational.disown,
    reauthenticate=reauth.go_on,
)


REAUTHENTICATIONS = 200.0
"""A second, at most, when the host's key is switched: traffic goes on meanwhile."""
LARGEST_UNAUTHENTICATED = 4096
"""Octets of a stranger's message that we read at all: one of 64 KiB would cost its sender far less than us."""


class Endpoint:
    """All IKE SAs of a host.  Every entry point leaves what it asks and tells in the outbox, for drain()."""

    def __init__(self, settings: Settings, entropy: Entropy, numbers: Iterator[int]) -> None:
        self._host = Host(settings, entropy, numbers, EXCHANGES)
        self._cookies = Cookies(entropy)
        self.stopping = False
        """Whether stop() was called: nothing begins any more."""

    def drain(self) -> list[Effect | Report]:
        """What has been asked and told since the last call, in order."""
        self._settle()
        outbox, self._host.outbox = self._host.outbox, []
        return outbox

    @property
    def sas(self) -> list[IkeSA]:
        """Every IKE SA that has an SPI of ours, in no order."""
        return list(self._host.sas.values())

    def of_peer(self, identity: Identity) -> list[IkeSA]:
        """The authenticated IKE SAs with a peer."""
        return list(self._host.peers.get(identity, ()))

    def of_reqid(self, reqid: int) -> list[IkeSA]:
        """The IKE SAs that serve certain policies, or are meant to."""
        return list(self._host.by_reqid.get(reqid, ()))

    # --- beginning ---

    def initiate(self, entry: PadEntry, local: IPAddress, remote: IPAddress, wanted: Wanted, now: Now) -> IkeSA:
        """Begin an IKE SA with the peer of `entry`, and with it a Child SA."""
        self._host.now = now
        port = self._host.settings.ike_port
        sa = IkeSA(self._host, UdpEndpoint(local, port), UdpEndpoint(remote, port), initiator=True)
        sa.peer = entry
        self._host.sas[sa.spi_i] = sa
        sa.start(lambda: auth.initiate(sa, entry, wanted))
        return sa

    def create_child(self, sa: IkeSA, wanted: Wanted, now: Now) -> None:
        """One more Child SA under an IKE SA that stands."""
        self._host.now = now
        known = set(sa.children)
        sa.start(lambda: create_child.create(sa, wanted, known))

    def delete(self, sa: IkeSA, now: Now) -> None:
        self._host.now = now
        for other in (sa, *self.of_reqid(sa.peer.reqid if sa.peer is not None else 0)):
            begun = other.state in (State.INITIAL, State.HALF_OPEN)
            if begun and (
                other is sa or (sa.authenticated is not None and other.succession.instead_of == sa.origin[0])
            ):
                other.close("no longer wanted")
        sa.delete()

    def stop(self, now: Now) -> None:
        """Tell every peer that its IKE SA ends, and take up no other."""
        self.stopping = True
        for sa in self.sas:
            self.delete(sa, now)

    def rekey(self, sa: IkeSA, now: Now, *, ike: bool) -> None:
        """Replace the IKE SA, or all its Child SAs, ahead of time."""
        self._host.now = now
        if ike:
            sa.rekey()
        else:
            sa.children.rekey_all()

    def switch_key(self, key: PublicKey, now: Now) -> int:
        """Prove ourselves with another key from now on.  How many peers are told, in the time after this."""
        self._host.now = now
        self._host.settings = replace(self._host.settings, key=key)
        stale = [sa for sa in self.sas if sa.stale and sa.state is State.ESTABLISHED and not sa.deleting]
        for number, sa in enumerate(stale):
            sa.succession.attempts = 0
            sa.reauthenticate_later(number / REAUTHENTICATIONS)
        return len({sa.peer.identity for sa in stale if sa.peer is not None})

    def expire(self, name: SAName, now: Now, *, hard: bool) -> None:
        """The plane says that the lifetime of an SA, of either direction, has passed."""
        self._host.now = now
        for sa in self.sas:
            for child in list(sa.children.values()):
                # By SPI and address: half of the SPIs are of the peers' choosing.
                if name in child.names:
                    if hard:
                        sa.children.expired(child)
                    else:
                        sa.children.rekey(child)

    # --- answers ---

    def signed(self, event: Signed, now: Now) -> None:
        self._host.now = now
        running = self._host.waiting.pop(event.request, None)
        if running is not None:
            running.sa.resume(running, event.signature)
            self._settle()

    def installed(self, event: Installed | Refused, now: Now) -> None:
        """An installation was done or refused; a refused Sign comes this way too."""
        self._host.now = now
        running = self._host.waiting.pop(event.request, None)
        if running is not None:
            error = PlaneRefused(event.reason) if isinstance(event, Refused) else None
            running.sa.installed(running, event.request, error)
            self._settle()

    def authorized(self, request: int, entry: PadEntry | Unauthorized, now: Now) -> None:
        """The answer to a report.AuthorizationWanted."""
        self._host.now = now
        running = self._host.waiting.pop(request, None)
        if running is not None:
            if isinstance(entry, Unauthorized):
                running.sa.resume(running, error=entry)
            else:
                running.sa.resume(running, entry)

    # --- time ---

    def deadline(self) -> float:
        alarms = self._host.alarms
        while alarms:
            when, _, sa = alarms[0]
            due = sa.deadline()
            if due == when:
                return when
            heappop(alarms)
            if due != NEVER:
                self._host.wake(sa, due)
        return NEVER

    def timeout(self, now: Now) -> None:
        self._host.now = now
        while self.deadline() <= now.monotonic:
            _, _, sa = heappop(self._host.alarms)
            sa.timeout()
            if sa.deadline() != NEVER:
                self._host.wake(sa, sa.deadline())

    # --- messages ---

    def receive(self, event: Datagram, now: Now) -> None:
        """One IKE message, from anybody."""
        self._host.now = now
        if len(event.data) > LARGEST_UNAUTHENTICATED and not self._is_of_a_peer(event.data):
            self._dropped("too long for a stranger's", event)
            return
        try:
            message = read_message(event.data)
        except UnsupportedVersion as error:
            self._refuse_version(event, error.header)
            return
        except DecodeError as error:
            self._dropped("malformed", event, str(error))
            return
        header = message.header
        ours = header.spi_r if header.initiator else header.spi_i
        sa = self._host.sas.get(ours)
        if sa is not None and _both_spis_fit(sa, header):
            sa.receive(message, event.data, event.local, event.remote)
        elif header.exchange == ExchangeType.IKE_SA_INIT and header.spi_r == bytes(8) and not header.response:
            self._receive_init(message, event)
        else:
            self._dropped("no such IKE SA", event)

    def _is_of_a_peer(self, datagram: bytes) -> bool:
        """Whether one of the SPIs is of an authenticated IKE SA; cheap, and no more than a hint."""
        sas = (self._host.sas.get(datagram[:8]), self._host.sas.get(datagram[8:16]))
        return any(sa is not None and sa.authenticated is not None for sa in sas)

    def _receive_init(self, message: Message, event: Datagram) -> None:
        """An IKE_SA_INIT request: nothing is kept for it before its cookie came back, when one is due."""
        header, host = message.header, self._host
        if self.stopping:
            self._dropped("stopping", event)
            return
        if not header.initiator or header.message_id != 0 or header.spi_i == bytes(8):
            self._dropped("malformed", event)
            return
        known = host.half_open.find(header.spi_i, event.remote)
        if known is not None:
            known.receive(message, event.data, event.local, event.remote)
            return
        if _is_our_own(host, header):
            self._dropped("reflected", event)
            return
        nonces = [payload for payload in message.payloads if isinstance(payload, Nonce)]
        if len(nonces) != 1:
            self._dropped("IKE_SA_INIT without its nonce", event)
            return
        nonce = nonces[0]
        settings, half_open = host.settings, host.half_open
        of_source = half_open.of_source(event.remote.address)
        if len(half_open) >= settings.cookie_threshold or of_source >= settings.half_open_per_source // 2 + 1:
            cookie = message.notify(NotifyType.COOKIE)
            if cookie is None or not self._cookies.accepts(
                cookie.data, header.spi_i, nonce.data, event.remote, host.now
            ):
                baked = self._cookies.bake(header.spi_i, nonce.data, event.remote, host.now)
                self._answer(event, header, Notify(NotifyType.COOKIE, baked))
                return
        if of_source >= settings.half_open_per_source or len(half_open) >= settings.half_open_total:
            self._dropped("too many half-open IKE SAs", event)
            return
        sa = IkeSA(host, event.local, event.remote, initiator=False)
        sa.spi_i = header.spi_i
        sa.receive_init(message, event.data, event.local, event.remote)

    def _refuse_version(self, event: Datagram, header: Header) -> None:
        # RFC 7296 s2.5: only a higher version is told of ours; IKEv1 is left alone (DESIGN.md law 9).
        if header.version >> 4 > 2 and not header.response and len(event.data) >= 28:
            self._answer(event, header, Notify(NotifyType.INVALID_MAJOR_VERSION))
        else:
            self._dropped("another version", event)

    def _answer(self, event: Datagram, asked: Header, notify: Notify) -> None:
        """Answer without keeping anything."""
        header = Header(asked.spi_i, asked.spi_r, asked.exchange, False, True, asked.message_id)
        self._host.outbox.append(Send(event.local, event.remote, write_message(header, [notify])))

    def _dropped(self, reason: str, event: Datagram, detail: str = "") -> None:
        self._host.notice("ike.dropped", ("reason", reason), ("from", str(event.remote)), ("detail", detail))

    def _settle(self) -> None:
        """When both ends began at once, two IKE SAs stand between them: the same one goes at both (DESIGN.md P6).

        The one with the lower initiator's SPI stays; whoever began the other deletes it.  A rekey changes neither
        the one nor the other: the two ends need not have the same heirs yet to come to the same end.
        """
        for told in self._host.outbox:
            if not isinstance(told, report.Established):
                continue
            for other in self._host.rivals(told.sa):
                if other.state is not State.ESTABLISHED or other.deleting or not _same_way(other, told.sa):
                    # It is no rival: it is going, or its address is, and cannot tell the peer so any more.
                    continue
                if told.sa.succession.is_over(other) or other.succession.is_over(told.sa):
                    # Not by chance: one is to take the other's place, and whoever began that one sees to it.
                    reauth.go_on(told.sa)
                    reauth.go_on(other)
                    continue
                redundant = max(told.sa, other, key=lambda sa: sa.origin)
                _, we_began = redundant.origin
                if we_began and other.origin != told.sa.origin:
                    redundant.delete()


def _same_way(one: IkeSA, other: IkeSA) -> bool:
    """Whether they are between the same addresses, and for the same peer: a gateway speaks for many."""
    ends = [(sa.local.address, sa.remote, sa.peer.reqid if sa.peer else 0) for sa in (one, other)]
    return ends[0] == ends[1]


def _is_our_own(host: Host, header: Header) -> bool:
    """Whether we said this ourselves: we will not talk to ourselves (ATTACKS row 15)."""
    sa = host.sas.get(header.spi_i)
    return sa is not None and sa.initiator


def _both_spis_fit(sa: IkeSA, header: Header) -> bool:
    """Whether the other SPI is the peer's too; only the first response may bring a new one."""
    if sa.initiator:
        return header.spi_r == sa.spi_r or (sa.state is State.INITIAL and header.response)
    return header.spi_i == sa.spi_i
