"""Connection latching (RFC 5660): a flow is with one party for its life, and never less protected than it was.

What a flow is with is known by its remote address: so what is latched is, for each address that policies speak of,
who was there when flows with it could last begin, and how they were protected.  Whoever is there next and is another
ends them: their programs hear of it, before a packet of his can reach them.  Flows are never lost for being raised, be
it from clear to protected, or from a stranger to somebody.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from hushwire.events import CloseFlows, Effect, FlowsFound, Notice
from hushwire.ike.child import ChildSA
from hushwire.ike.proof import Authenticated
from hushwire.node.known import KnownPeers
from hushwire.policy.assurance import Assurance
from hushwire.policy.known import Known
from hushwire.policy.pad import fingerprint_text
from hushwire.policy.sad import Mode
from hushwire.wire.address import IPAddress, IPNetwork, host_network


@dataclass(frozen=True, slots=True)
class Party:
    """Whom flows are with (RFC 5660 s2: the peer's identity and how well it is known)."""

    name: str
    """Of who has been introduced; "" for strangers."""
    key: bytes | None
    """The fingerprint of what was proved; None: anonymous, or by a shared key."""

    @classmethod
    def of(cls, proof: Authenticated) -> "Party":
        key = proof.verified.public
        stranger = proof.entry.btns or proof.entry.anonymous
        return cls("" if stranger else proof.entry.name, key.fingerprint if key is not None else None)

    @classmethod
    def remembered(cls, known: Known) -> "Party":
        return cls(known.subject if known.level is Assurance.NAMED else "", known.fingerprint)

    def goes_on_as(self, other: "Party") -> bool:
        """Whether flows with the one may be carried on with the other.

        Of whom we know by name, the key may change.  A stranger is his key, and who is anonymous is nobody again.
        """
        return (self.name != "" and self.name == other.name) or (self.key is not None and self.key == other.key)

    def __str__(self) -> str:
        key = fingerprint_text(self.key) if self.key is not None else "no key"
        return f"{self.name or 'a stranger'} with {key}" if self.name or self.key else "somebody anonymous"


@dataclass(frozen=True, slots=True)
class Quality:
    """How flows are protected (RFC 5660 s2: mode and quality of protection)."""

    mode: Mode
    bits: int
    """Of the cipher's key."""

    @classmethod
    def of(cls, child: ChildSA) -> "Quality":
        return cls(child.mode, child.inbound.suite.key_bits)

    def is_kept_by(self, other: "Quality") -> bool:
        return self.mode is other.mode and self.bits <= other.bits

    def __str__(self) -> str:
        return f"{self.mode.value} mode, keys of {self.bits} bits"


class Latches:
    """Over all flows of local programs with peers."""

    def __init__(self, known: KnownPeers, number: Callable[[], int], emit: Callable[[Effect], None]) -> None:
        self._known = known
        self._number = number
        self._emit = emit
        self._with: dict[IPNetwork, Party] = {}
        self._quality: dict[IPNetwork, Quality] = {}
        self._unsure: set[IPAddress] = set()
        """Addresses with which an earlier run had SAs: what flows with them goes on only with whom is remembered."""
        self._closing: dict[int, tuple[tuple[str, str], ...]] = {}
        """What there is to say when flows have been ended, by request."""

    def found(self, sealed: Iterable[IPAddress]) -> None:
        """An earlier run had SAs with these, and may have ended in any way."""
        self._unsure.update(sealed)

    def __getitem__(self, remote: IPNetwork) -> Party | None:
        return self._with.get(remote)

    def proved(
        self, name: str, remotes: Iterable[IPNetwork], where: IPAddress, proof: Authenticated, wall: float
    ) -> None:
        """A peer has proved who it is, and is going to be reached at `remotes`."""
        party, broken = Party.of(proof), []
        before: Party | None = None
        for remote in remotes:
            latched = self._with.get(remote) or self._recalled(name, remote, where, party, wall)
            if latched is not None and not latched.goes_on_as(party):
                broken.append(remote)
                before = latched
            self._with[remote] = party
        self._unsure.discard(where)
        if before is not None:
            self._close(tuple(broken), ("was", str(before)), ("is", str(party)))

    def carried(self, remotes: Iterable[IPNetwork], child: ChildSA) -> None:
        """A Child SA stands, by which flows are to go on."""
        quality = Quality.of(child)
        broken = {
            remote: was for remote in remotes if (was := self._quality.get(remote)) and not was.is_kept_by(quality)
        }
        self._quality.update(dict.fromkeys(remotes, quality))
        if broken:
            self._close(tuple(broken), ("was", str(next(iter(broken.values())))), ("is", str(quality)))

    def loosened(self, remote: IPNetwork) -> None:
        """What goes there is not to be protected any more."""
        before, address = self._with.pop(remote, None), remote.network_address
        self._quality.pop(remote, None)
        if before is not None or (address in self._unsure and remote == host_network(address)):
            self._unsure.discard(address)
            self._close((remote,), ("was", str(before or "protected")), ("is", "clear"))

    def closed(self, event: FlowsFound) -> None:
        """So many flows have been ended."""
        fields = self._closing.pop(event.request, ())
        if fields and event.flows:
            self._emit(Notice("latch.broken", (*fields, ("flows", event.flows)), grave=True))

    def refused(self, request: int) -> None:
        self._closing.pop(request, None)

    def _recalled(self, name: str, remote: IPNetwork, where: IPAddress, party: Party, wall: float) -> Party | None:
        """With whom flows were before a restart, if there were any; of who is in the configuration that is said.

        One that is held to its level was not met in clear: if there are flows with it, they are with who it was.
        """
        known = self._known.of(str(remote.network_address)) or self._known.of(str(where)) or self._known.of(name)
        if known is not None and (wall <= known.until or where in self._unsure):
            return Party.remembered(known)
        if where not in self._unsure:
            return None
        return party if party.name else Party("", None)

    def _close(self, remotes: tuple[IPNetwork, ...], *fields: tuple[str, str]) -> None:
        number = self._number()
        at = ", ".join(str(remote.network_address if remote == host_network(remote.network_address) else remote)
                       for remote in remotes)  # fmt: skip
        self._closing[number] = (("at", at), *fields)
        self._emit(CloseFlows(number, remotes))
