"""What an administrator asks for on the control socket, and what it takes to answer that."""

import json
from collections.abc import Callable

from hushwire.config import PlaneChoice
from hushwire.crypto.keys import PublicKey
from hushwire.events import (
    Answered,
    Disconnect,
    Effect,
    HostKey,
    Notice,
    ReadKey,
    ReadTrusted,
    Refused,
    Rekey,
    Reply,
    Status,
    SwitchKey,
    TrustChanged,
    TrustRead,
    Why,
)  # fmt: skip
from hushwire.ike.endpoint import Endpoint
from hushwire.ike.sa import IkeSA
from hushwire.node import telling
from hushwire.node.peers import Peers
from hushwire.node.seeking import Seeking
from hushwire.node.why import Explanation, Unclear
from hushwire.policy.trust import TrustStore
from hushwire.timers import Now

Command = Disconnect | Rekey | SwitchKey | TrustChanged | Status | Why


class Commands:
    """Those that need nothing of the Node but its parts.  Each gets one Reply."""

    def __init__(
        self, host: str, plane: PlaneChoice, ike: Endpoint, peers: Peers, seeking: Seeking,
        number: Callable[[], int], emit: Callable[[Effect], None],
    ) -> None:  # fmt: skip
        self._host, self._plane = host, plane
        self._ike, self._peers, self._seeking = ike, peers, seeking
        self._number, self._emit = number, emit
        self._explaining: dict[int, tuple[int, Explanation]] = {}
        """By question, the command that it is for."""
        self._switching: dict[int, int] = {}
        """By number of the ReadKey, the command that it is for."""
        self._reading: dict[int, tuple[int, TrustStore]] = {}
        """By number of the ReadTrusted, the command that it is for, and what has been read so far."""

    def perform(self, command: Command, now: Now) -> None:
        """Do it, or begin to."""
        match command:
            case Disconnect(request, name):
                sas = self._sas_with(name)
                for sa in sas:
                    self._ike.delete(sa, now)
                done = f"{name}: {len(sas)} IKE SAs deleted; its policy stays"
                self._emit(Reply(request, bool(sas), done if sas else f"{name} is not connected"))
            case Rekey(request, name, ike):
                sas = self._sas_with(name)
                for sa in sas:
                    self._ike.rekey(sa, now, ike=ike)
                self._emit(Reply(request, bool(sas), f"{name}: rekeying" if sas else f"{name} is not connected"))
            case SwitchKey(request):
                number = self._number()
                self._switching[number] = request
                self._emit(ReadKey(number))
            case TrustChanged(request):
                number = self._number()
                self._reading[number] = request, TrustStore()
                self._emit(ReadTrusted(number))
            case Status(request):
                body = telling.status(self._host, self._plane, self._peers, self._seeking, now)
                self._emit(Reply(request, True, body=json.dumps(body)))
            case Why(request, subject):
                self._explain(request, subject)

    def answered(self, event: Answered, now: Now) -> bool:
        """An answer of the DNS; whether it was to a question of ours."""
        asked = self._explaining.pop(event.request, None)
        if asked is not None:
            request, explanation = asked
            if explanation.answered(event):
                told = explanation.told(self._host, self._peers, self._seeking, now)
                self._emit(Reply(request, True, body=json.dumps(told)))
        return asked is not None

    def switch_key(self, event: HostKey, now: Now) -> None:
        """From now on we prove ourselves with it; each IKE SA is made anew before the one of the old key goes."""
        command = self._switching.pop(event.request, None)
        if command is None:
            return
        key = PublicKey.read(event.public)
        count = self._ike.switch_key(key, now)
        fingerprint = key.fingerprint.hex()
        self._emit(Notice("key.switched", (("key", fingerprint[:16]), ("peers", count))))
        self._emit(Reply(command, True, f"the key is {fingerprint}; it is being proved to {count} peers"))

    def trust_read(self, event: TrustRead) -> TrustStore | None:
        """The trust store, when all of it is there."""
        reading = self._reading.get(event.request)
        if reading is None:
            return None
        command, store = reading
        for key in event.keys:
            store.add(key)
        if not event.complete:
            return None
        del self._reading[event.request]
        self._emit(Reply(command, True, f"{len(store)} keys are trusted now"))
        return store

    def refused(self, event: Refused) -> None:
        """The key file is of no use, or the trust store."""
        command = self._switching.pop(event.request, None)
        if event.request in self._reading:
            command, _ = self._reading.pop(event.request)
        if command is not None:
            self._emit(Reply(command, False, event.reason))

    def _explain(self, request: int, subject: str) -> None:
        try:
            explanation = Explanation.of(subject, self._peers)
        except Unclear as error:
            self._emit(Reply(request, False, str(error)))
            return
        for lookup in explanation.ask(self._number):
            self._explaining[lookup.request] = request, explanation
            self._emit(lookup)

    def _sas_with(self, name: str) -> list[IkeSA]:
        peer = self._peers.by_name(name.rstrip(".").lower())
        return self._seeking.standing(peer) if peer is not None else []
