"""A peer at work: what the rules about it and the DNS come to, as PAD entry and policies (RFC 4301 s4.4)."""

from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, field, replace

from hushwire.config import Addressing, Rule, Start
from hushwire.crypto.keys import PublicKey
from hushwire.events import Acquire, Outcome
from hushwire.ike.negotiation import Wanted
from hushwire.names.lookup import AddressLookup, NameLookup
from hushwire.node.rulebook import permits_clear, refuses
from hushwire.node.scope import PROTECT_PRIORITY, REQID_BASE, narrowness, nearest, same_hosts, selectors_of
from hushwire.policy.assurance import Assurance
from hushwire.policy.pad import ANYBODY, Identity, PadEntry
from hushwire.policy.sad import Direction, Mode
from hushwire.policy.selector import Flow, Selector
from hushwire.policy.spd import Action, Policy
from hushwire.timers import NEVER
from hushwire.wire.address import IPAddress, host_network

MOST_ADDRESSES = 64
"""That one name may have had: whoever changes his without end shall not fill the SPD."""

FIRST_WAIT, LAST_WAIT = 1.0, 60.0
"""Seconds between attempts at a peer that fails; doubled each time."""

ACQUIRE_LIFE = 30.0
"""Seconds that a plane holds the packet of an Acquire, and tells of it no more."""

FALL_AFTER = 3.0
"""Seconds that a packet is held for a peer that may be met in clear, before it goes so."""

LEAVING = 10.0
"""Seconds that SAs may stand at an address that a name has left."""

HELD_FOR = 3660.0
"""Seconds that policies which permit no clear outlive their use, of a peer that a rule about many brought in or that
roams: whoever kept the address for longer has had his time.  The guard counts an hour, from a little later."""

SHUNT_LIFE = 120
"""Seconds until a plane drops a policy that lets packets go in clear, unless it is told again."""


@dataclass(frozen=True, slots=True)
class Sought:
    """A packet that waits for an SA."""

    acquire: Acquire
    since: float
    """Monotonic time at which that began."""
    where: IPAddress
    """With whom IKE is spoken for it."""
    begun: bool
    """Whether an SA has been asked for; else an IKE SA was being made for another packet."""


@dataclass(slots=True, eq=False)
class Peer:
    """Everything this host holds of one peer but its IKE SAs."""

    number: int
    """Of the peer within the host, from 1."""
    rules: tuple[Rule, ...]
    """All about the same peer, with the same proof."""
    lookup: NameLookup | AddressLookup | None
    """None: the peer is not looked up in the DNS."""
    key: PublicKey | None = None
    """Its pinned key."""
    psk: bytes | None = None
    """The keeper's name of the key that we share with it."""
    policies: dict[tuple[Selector, Direction], Policy] = field(default_factory=dict)
    """What was last asked to be installed."""
    refused: bool = False
    """One of its policies was refused since they were last asked for."""
    hardened: bool = False
    """None of its policies permits clear, whatever its rule says: an earlier run left one that does not, and it stays;
    or somebody relies on it by a name whose rule is stricter."""
    contested: set[tuple[Selector, Direction]] = field(default_factory=set)
    """Policies that another peer has, who was first."""
    reached: bool = False
    """Whether the level that the rules require was ever reached; it never sinks silently after that."""
    failures: int = 0
    """Attempts since the last success."""
    not_before: float = 0.0
    """Monotonic time of the next attempt."""
    last_failure: str = ""
    waiting: dict[Selector, Acquire] = field(default_factory=dict)
    """By what it wants, the last packet that came before the name was looked up or the next attempt was due."""
    sought: dict[Selector, Sought] = field(default_factory=dict)
    """By what each wants, the packets for which it is being sought."""
    left_out: dict[Selector, float] = field(default_factory=dict)
    """What it was asked for and took in part, and the monotonic time until which it is not asked for the rest."""
    admitted: set[IPAddress] = field(default_factory=set)
    """All addresses that the name ever had here: where nothing may go in clear, their policies stay."""
    connects: list[int] = field(default_factory=list)
    """Connect commands that wait for an answer."""
    born: bool = False
    """Made by a rule about many, when there was reason to; it goes when there is none any more."""
    proven: dict[IPAddress, float] = field(default_factory=dict)
    """Where it has proved its key to us, and the monotonic time at which it last did."""
    synthetic: dict[IPAddress, IPAddress] = field(default_factory=dict)
    """What programs are told in place of each of its addresses; empty unless its rule says so."""
    used_at: float = 0.0
    """Monotonic time at which somebody last had to do with it, as far as is known."""
    leaving: dict[IPAddress, float] = field(default_factory=dict)
    """Addresses that its name has left, and the monotonic time until which what stands there may."""
    fall_at: float = NEVER
    """Monotonic time at which packets that are held for it go in clear."""
    fallen: bool = False
    """They do."""
    refresh_at: float = NEVER
    """Monotonic time at which a plane is to be told again of policies that end by themselves."""
    asserted_at: float = 0.0
    """Monotonic time at which a plane was last told of a policy that permits no clear."""
    idle_at: float = NEVER
    """Monotonic time at which to see whether anybody still uses it."""
    counted: int = -1
    """Packets that its SAs had carried when that was last looked at."""
    asleep: bool = False
    """Nobody does: it is not looked up any more, and only its policies stay for a while."""

    @property
    def rule(self) -> Rule:
        """The one that says what holds for the peer as a whole."""
        return self.rules[0]

    @property
    def name(self) -> str:
        """Of a trap, its prefix: the first of its addresses may be a peer of its own."""
        return str(self.rule.peer) if self.rule.name or self.is_trap else str(self.rule.peer).split("/")[0]

    @property
    def identity(self) -> Identity:
        """What it is asked to be."""
        return self.identities[0]

    @property
    def canonical(self) -> str:
        """Of a name, the one that it is an alias of, as far as is known; else itself, or none."""
        if self.lookup is None or self.rule.name is None:
            return ""
        if self.lookup.binding is not None:
            return self.lookup.binding.canonical
        unbound = self.lookup.unbound
        return (unbound.canonical or self.name) if unbound is not None and self.may_be_anybody else ""

    @property
    def dead_end(self) -> str:
        """Of an alias for which nothing can be proved: where it leads."""
        unbound = self.lookup.unbound if self.lookup is not None and not self.lookup.asking else None
        if unbound is None or self.rule.name is None or self.may_be_anybody:
            return ""
        return unbound.canonical

    @property
    def is_alias(self) -> bool:
        """Whether another peer stands for it: the name that it leads to, which may have many aliases."""
        return self.born and self.canonical not in ("", self.name)

    @property
    def identities(self) -> tuple[Identity, ...]:
        """What it may say it is: with an alias, the name that this leads to as well."""
        if self.gateway is not None:
            return (Identity.address(self.gateway),)
        canonical, known = self.canonical, self.rule.expected
        if self.rule.identity is not None or canonical in ("", self.rule.name):
            return (known,)
        return Identity.fqdn(canonical), known

    @property
    def reqid(self) -> int:
        return REQID_BASE + self.number

    @property
    def addresses(self) -> tuple[IPAddress, ...]:
        """Where it is, as far as is known now."""
        if not isinstance(self.rule.peer, str):
            return (self.rule.peer.network_address,)
        if self.lookup is not None:
            return tuple(address for address in self._told if address in self.admitted)
        return (self.rule.address,) if self.rule.address is not None else ()

    @property
    def _told(self) -> tuple[IPAddress, ...]:
        """What the DNS says of where its name is: signed with its keys, or, where it has none, as may be."""
        if self.lookup is None:
            return ()
        if self.lookup.binding is not None:
            return self.lookup.binding.addresses
        return self.lookup.unbound.addresses if self.lookup.unbound is not None and self.may_be_anybody else ()

    @property
    def places(self) -> tuple[IPAddress, ...]:
        """Where policies are to stand for it.

        What a rule about many brought in has to prove itself there first, so that a name which nobody answers for does
        not stand in the way of others at that address (law 2, ATTACKS row 37).
        """
        if self.is_alias:
            return ()
        if self.rule.roams:
            return tuple(self.proven)
        if self.held_first and not isinstance(self.rule.peer, str):
            # What is held for it waits there, whatever its reverse zone says.
            return (self.rule.peer.network_address,)
        places = self.addresses
        if self.rule.addressing is Addressing.SYNTHETIC:
            places = tuple(address for address in places if address in self.synthetic)
        if self.born and self.rule.name is not None:
            places = tuple(address for address in places if address in self.proven)
        return places

    @property
    def needs_proof(self) -> bool:
        """Whether programs get its addresses only where it has proved its key."""
        return self.rule.roams or self.rule.name is None or self.born or permits_clear(self.rules)

    def standing(self, own: Collection[IPAddress]) -> tuple[IPAddress, ...]:
        """Where programs find it: what stands for the places to which its policies protect what leaves from `own`."""
        protected = [
            selector.remote for (selector, direction), policy in self.policies.items()
            if direction is Direction.OUT and policy.action is Action.PROTECT
            and any(local in selector.local for local in own)
        ]  # fmt: skip
        told = (self.synthetic.get(place, place) for place in self.places)
        return tuple(address for address in told if any(address in remote for remote in protected))

    def real(self, address: IPAddress) -> IPAddress:
        """Its address on the wire, of what a program was told."""
        return next((real for real, made in self.synthetic.items() if made == address), address)

    @property
    def lacks_synthetic(self) -> bool:
        """Whether it is to have synthetic addresses, and none was left for it."""
        wants = self.rule.addressing is Addressing.SYNTHETIC and not self.is_alias
        return wants and bool(self.addresses) and not self.synthetic

    @property
    def is_trap(self) -> bool:
        """Whether it is no peer, but a rule about all addresses of a prefix."""
        return self.rule.many

    @property
    def is_kept_current(self) -> bool:
        """Whether it is looked up again before anybody asks.

        What rules about many brought in is not where nothing stands for it, nor can: a page with a thousand names
        would have the resolver ask for them as often as their owner wishes (ATTACKS row 45).
        """
        if self.asleep or self.lookup is None:
            return False
        return bool(not self.born or self.lookup.asking or self.lookup.binding or self.policies)

    def admit(self) -> tuple[IPAddress, ...]:
        """Take in the addresses that the name has now; those for which there is no room any more are returned."""
        if permits_clear(self.rules):
            # Their policies go with them.
            self.admitted = set()
        for address in self._told:
            if len(self.admitted) < MOST_ADDRESSES:
                self.admitted.add(address)
        return tuple(address for address in self._told if address not in self.admitted)

    @property
    def starts_by_itself(self) -> bool:
        """Below the level in clear, nothing traps a packet: so the level is sought at once."""
        if self.born or self.is_trap or self.rule.start is Start.WAIT:
            return False
        return self.rule.start is Start.CONNECT or self._some_clear

    @property
    def _some_clear(self) -> bool:
        """Whether a rule permits clear."""
        return any(permits_clear((rule,)) for rule in self.rules)

    @property
    def gateway(self) -> IPAddress | None:
        """Of an address: who speaks for it, as its own reverse zone says (RFC 4025 s2.5); None: itself."""
        binding = self.lookup.binding if self.rule.name is None and self.lookup is not None else None
        return binding.gateway if binding is not None else None

    @property
    def ends(self) -> tuple[IPAddress, ...]:
        """Where IKE is spoken with it."""
        return (self.gateway,) if self.gateway is not None else self.addresses

    def end_for(self, inner: IPAddress, own: Sequence[IPAddress]) -> IPAddress | None:
        """With which of its ends IKE is spoken about packets to `inner`; None: with none that we have a way to."""
        where = sorted(self.proven, key=self.proven.__getitem__, reverse=True) if self.rule.roams else self.ends
        if inner in where:
            return inner
        return next((end for end in where if nearest(own, end) is not None), None)

    def is_met_at(self, remote: IPAddress) -> bool:
        """Whether packets to an address can be its own: an earlier run gave its number to another, maybe."""
        return not (self.born and self.rule.name is None) or remote in self.addresses

    def mode(self, rule: Rule) -> Mode:
        """Of what a rule protects: what is for another than the one who proves himself goes in a tunnel to him."""
        return Mode.TUNNEL if self.gateway is not None else rule.mode

    def keys_at(self, address: IPAddress) -> tuple[PublicKey, ...]:
        """The keys that may prove it at one address."""
        if self.lookup is not None:
            return self.lookup.binding.keys_at(address) if self.lookup.binding is not None else ()
        return (self.key,) if self.key is not None else ()

    def fingerprints_at(self, address: IPAddress) -> tuple[bytes, ...]:
        """Of keys that may prove it at one address, if it sends them."""
        binding = self.lookup.binding if self.lookup is not None else None
        return binding.fingerprints_at(address) if binding is not None else ()

    @property
    def known(self) -> bool:
        """Whether there is something that could prove it."""
        return self.lookup is None or self.lookup.binding is not None or self.may_be_anybody

    @property
    def may_be_anybody(self) -> bool:
        """Whether nothing is known that could prove it, and its rule takes strangers (RFC 5386 s2).

        That a reverse zone cannot be asked is no reason to go in clear, but with a stranger nothing does (law 3).
        """
        unbound = self.lookup.unbound if self.lookup is not None else None
        if unbound is None or not self.rule.btns:
            return False
        return unbound.leaves_strangers or (unbound.outcome is Outcome.ERROR and self.rule.name is None)

    def knows(self, key: PublicKey | None, address: IPAddress) -> bool:
        """Whether a key that it has proved is still one that may prove it there; None: it stayed anonymous."""
        if self.may_be_anybody or key is None:
            return self.may_be_anybody
        return key in self.keys_at(address) or key.fingerprint in self.fingerprints_at(address)

    def leave(self, places: Collection[IPAddress], now: float) -> None:
        """Its name has left these addresses: what is under way there gets the time to end."""
        self.leaving |= {place: now + LEAVING for place in places if place not in self.leaving}

    def is_leaving(self, policy: Policy) -> bool:
        """Whether a policy is for what is under way at an address that its name has left."""
        return any(place == policy.real or place in policy.selector.remote for place in self.leaving)

    def still_proved(self, key: PublicKey | None, address: IPAddress, now: float) -> bool:
        """Whether what it proved with a key at an address may stand.

        A key that was taken back ends it at once.  Where only the address is the name's no more, nobody else has the
        key there, and what is under way gets the time to end.
        """
        if self.knows(key, address):
            self.leaving.pop(address, None)
            return True
        if not any(self.knows(key, other) for other in self.addresses):
            return False
        return now < self.leaving.setdefault(address, now + LEAVING)

    def entry(self, remote: IPAddress, own: Sequence[IPAddress]) -> PadEntry | None:
        """Its PAD entry as seen at one of its addresses; None while nothing could prove it there."""
        keys, fingerprints = self.keys_at(remote), self.fingerprints_at(remote)
        identity, worth = self.identity, Assurance.NAMED if self.lookup is not None else self.rule.require
        if remote not in self.ends and not self.rule.roams:
            return None
        if not (keys or fingerprints or self.psk):
            if not self.may_be_anybody:
                return None
            identity, worth = ANYBODY, Assurance.ENCRYPTED
        rules = (rule for rule in self.rules if not refuses((rule,)))
        inner = self.addresses[0] if self.gateway is not None else remote
        selectors = tuple(selector for rule in rules for selector in selectors_of(rule, own, inner))
        return PadEntry(
            self.name, identity, () if self.rule.roams else self.ends, keys, self.psk, worth,
            self.reqid, self.mode(self.rule), selectors, self._own_identity(own, remote), fingerprints,
            self.identities[1:],
            introduced=identity is not ANYBODY and not (self.born and self.rule.name is not None),
            null=identity is ANYBODY and self.rule.anonymous.peer, own_null=self.rule.anonymous.us,
        )  # fmt: skip

    def _own_identity(self, own: Sequence[IPAddress], remote: IPAddress) -> Identity | None:
        """What we say we are; where we know a peer by its address only, it may know us by ours."""
        by_address = self.rule.name is None and (self.born or self.lookup is not None)
        if self.rule.own_identity is not None or not by_address:
            return self.rule.own_identity
        local = nearest(own, remote)
        return Identity.address(local) if local is not None else None

    def wanted(self, flow: Flow, acquire: int = 0) -> Wanted | None:
        """The Child SA for a packet; None if no rule speaks of it."""
        for rule in self.rules:
            if refuses((rule,)):
                continue
            for selector in selectors_of(rule, (flow.local,), self._outer(flow.remote)):
                if selector.matches(flow) or (rule.mode is Mode.TRANSPORT and same_hosts(selector, flow)):
                    return Wanted((selector,), self.mode(rule), acquire)
        return None

    def _outer(self, remote: IPAddress) -> IPAddress:
        """The peer's own address for traffic with `remote`, which a tunnel may have behind it."""
        if remote in self.addresses:
            return remote
        return next((a for a in self.addresses if a.version == remote.version), remote)

    @property
    def protects(self) -> bool:
        """Whether some of its packets go protected, or are held until they can."""
        return any(self._action(rule) is Action.PROTECT for rule in self.rules)

    def _action(self, rule: Rule) -> Action | None:
        """What is to become of the packets of a rule; None: what would without us."""
        if refuses((rule,)):
            return Action.BLOCK
        if rule.below is Action.BLOCK:
            return Action.PROTECT
        if self.reached or self.is_trap:
            return Action.PROTECT
        if not self.held_first:
            return None
        if self.rule.start is Start.WAIT:
            # It is not sought: what it would prove itself by matters only when it begins.
            return Action.CLEAR
        # Law 3: as long as nothing is known, nothing goes in clear.
        return Action.CLEAR if self.denied or (self.fallen and self.known) else Action.PROTECT

    @property
    def held_first(self) -> bool:
        """Whether a packet of its own brought it in, and is held until there is something to be said of it."""
        return self.born and self.rule.name is None

    def failed_before(self, when: float) -> bool:
        """Whether the DNS failed when it was last asked, and that was before a monotonic time."""
        lookup = self.lookup
        failed = lookup is not None and lookup.unbound is not None and lookup.unbound.outcome is Outcome.ERROR
        return failed and lookup is not None and lookup.asked_at <= when

    @property
    def has_waiting(self) -> bool:
        """Whether packets wait that something can be done for."""
        return bool(self.waiting and self.known and self.addresses)

    @property
    def denied(self) -> bool:
        """Whether it is a signed statement that nothing can prove it: that there is no key, or no signed zone.

        Of who may be a stranger there is no such statement.
        """
        if self.lookup is None or self.lookup.binding is not None or self.lookup.unbound is None or self.rule.btns:
            return False
        return self.lookup.unbound.outcome is not Outcome.ERROR

    def desired(
        self, own: Sequence[IPAddress], clear: Callable[[Selector], bool] = lambda selector: True
    ) -> dict[tuple[Selector, Direction], Policy]:
        """The policies that ought to stand.

        `clear`: whether no rule about addresses has anything against clear packets, which a name cannot loosen.
        """
        found = {}
        for rule, selector, remote in self._scope(own):
            action = self._action(rule)
            if action is None:
                continue
            soft = permits_clear((rule,)) and not self.hardened and (rule.name is None or clear(selector))
            if action is Action.CLEAR and not soft:
                action = Action.PROTECT
            tunnel = None
            made = self.synthetic.get(remote)
            if made is not None:
                selector = replace(selector, remote=host_network(made))
            mode = self.mode(rule)
            if mode is Mode.TUNNEL and action is Action.PROTECT:
                far = self.end_for(selector.remote.network_address, own)
                local = nearest(own, far) if far is not None else None
                if far is None or local is None:
                    # It can only be reached in another IP version, in which we are not: so nothing leaves.
                    action, mode = Action.BLOCK, rule.mode
                else:
                    tunnel = local, far
            priority = PROTECT_PRIORITY - narrowness(selector)
            life = SHUNT_LIFE if action is Action.CLEAR else 0
            for direction in Direction:
                found[selector, direction] = Policy(
                    selector,
                    direction,
                    action,
                    priority,
                    self.reqid,
                    mode,
                    tunnel,
                    soft,
                    life,
                    remote if made is not None else None,
                )
        return found

    def _scope(self, own: Sequence[IPAddress]) -> Iterator[tuple[Rule, Selector, IPAddress]]:
        """What each rule says for each place, with the place."""
        for rule in self.rules:
            if self.is_trap and not isinstance(rule.peer, str):
                prefix = rule.peer
                for local in own:
                    if local.version == prefix.version:
                        near = host_network(local)
                        yield rule, Selector(near, prefix, rule.protocol, rule.local_port, rule.remote_port), local
                continue
            for remote in self.places:
                if nearest(own, remote) is not None:
                    for selector in selectors_of(rule, own, remote):
                        yield rule, selector, remote

    @property
    def may_loosen(self) -> bool:
        """Whether a soft policy that is no longer wanted may go, so that packets leave in clear.

        Law 3: not because of an error, nor of records that are not signed; only a signed statement may lead there.
        And what was reached does not sink: of that, only where the name has another address by now.
        """
        if not self._some_clear:
            return False
        if self.lookup is None or self.lookup.binding is not None:
            return True
        unbound = self.lookup.unbound
        return unbound is not None and unbound.outcome is Outcome.DENIED and not self.reached

    def yields_to(self, other: "Peer") -> bool:
        """Whether a policy of ours is rather the other's, who names the same address."""
        if not other.protects:
            return False
        if self.born is not other.born:
            # A rule about one peer is an administrator's own word: no name that was only asked for comes before it,
            # whoever answers there (ATTACKS row 36).
            return self.born
        if self.may_be_anybody is not other.may_be_anybody:
            # Who has proved that he is whom a name means comes before whoever is there.
            return self.may_be_anybody
        settled = other.reached or bool(other.proven) or self.failures > 0
        return not self.protects or (settled and not self.reached)

    def begun(self, now: float) -> None:
        """Packets are held for it from now on."""
        if self.held_first and self._some_clear and not self.reached and not self.fallen:
            self.fall_at = min(self.fall_at, now + FALL_AFTER)

    def fall(self) -> None:
        """It was held long enough, if there was somebody to answer; an error does not let it go (law 3)."""
        self.fallen, self.fall_at = self.known, NEVER

    def failed(self, why: str, now: float) -> None:
        """An attempt failed: wait longer before the next."""
        self.last_failure = why
        self.not_before = now + min(LAST_WAIT, FIRST_WAIT * 2 ** min(self.failures, 10))
        self.failures += 1

    def succeeded(self) -> None:
        self.last_failure, self.failures, self.not_before, self.reached = "", 0, 0.0, True
        self.fallen, self.fall_at = False, NEVER

    def is_everywhere(self, where: IPAddress) -> bool:
        """Whether it was at so many places of late that one more is too many."""
        return where not in self.proven and len(self.proven) >= MOST_ADDRESSES

    def proved(self, where: IPAddress, now: float) -> bool:
        """Its key was proved there; whether that may change what is to stand."""
        known = where in self.proven
        self.proven[where] = now
        return not known or self.rule.roams

    def seek(self, wanted: Selector, sought: Sought) -> None:
        """An attempt begins for a packet; one that is made again for the same packet is no news."""
        before = self.sought.pop(wanted, None)
        if before is not None and before.acquire == sought.acquire:
            sought = replace(sought, since=before.since)
        if len(self.sought) < MOST_ADDRESSES:
            self.sought[wanted] = sought

    def seek_again(self, where: IPAddress, now: float) -> None:
        """An attempt failed there: what it was for waits for the next, unless nobody can be waiting any more."""
        for wanted, sought in list(self.sought.items()):
            if sought.where != where:
                continue
            if now < sought.since + ACQUIRE_LIFE:
                self.waiting[wanted] = sought.acquire
                self.not_before = max(self.not_before, now + FIRST_WAIT)
            else:
                del self.sought[wanted]

    def found(self, where: IPAddress) -> list[Acquire]:
        """There is an SA with it there; those packets are returned for which none has been asked for yet."""
        there = {wanted: sought for wanted, sought in self.sought.items() if sought.where == where}
        self.sought = {wanted: sought for wanted, sought in self.sought.items() if wanted not in there}
        return [sought.acquire for sought in there.values() if not sought.begun]

    def forget_places(self, stands: Collection[IPAddress], now: float) -> list[IPAddress]:
        """Where one that roams was so long ago that somebody else may be there, and where nothing `stands`."""
        if not self.rule.roams:
            return []
        gone = [place for place, when in self.proven.items() if place not in stands and when + HELD_FOR <= now]
        for place in gone:
            del self.proven[place]
        return gone
