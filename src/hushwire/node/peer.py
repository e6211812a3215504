"""A peer at work: what the rules about it and the DNS come to, as PAD entry and policies (RFC 4301 s4.4)."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from hushwire.config import Rule, Start
from hushwire.crypto.keys import PublicKey
from hushwire.events import Acquire, Outcome
from hushwire.ike.negotiation import Wanted
from hushwire.names.lookup import NameLookup
from hushwire.policy.assurance import Assurance
from hushwire.policy.pad import Identity, PadEntry
from hushwire.policy.sad import Direction, Mode
from hushwire.policy.selector import Flow, Selector
from hushwire.policy.spd import Action, Policy
from hushwire.wire.address import IPAddress, IPNetwork, host_network

REQID_BASE = 0x6877_0000
"""hushwire's reqids begin here, "hw" in ASCII: the guard lets no other be used (DESIGN.md section 3)."""
PROTECT_PRIORITY = 1000
"""Of a peer's policies; narrower ones come before wider ones, as config.check promises."""

MOST_ADDRESSES = 64
"""That one name may have had: whoever changes his without end shall not fill the SPD."""

FIRST_WAIT, LAST_WAIT = 1.0, 60.0
"""Seconds between attempts at a peer that fails; doubled each time."""


@dataclass(slots=True, eq=False)
class Peer:
    """Everything this host holds of one peer but its IKE SAs."""

    number: int
    """Of the peer within the host, from 1."""
    rules: tuple[Rule, ...]
    """All about the same peer, with the same proof."""
    lookup: NameLookup | None
    """None: the peer is not looked up in the DNS."""
    key: PublicKey | None = None
    """Its pinned key."""
    psk: bytes | None = None
    """The keeper's name of the key that we share with it."""
    policies: dict[tuple[Selector, Direction], Policy] = field(default_factory=dict)
    """What was last asked to be installed."""
    refused: bool = False
    """One of its policies was refused since they were last asked for."""
    contested: set[tuple[Selector, Direction]] = field(default_factory=set)
    """Policies that another peer has, who was first."""
    reached: bool = False
    """Whether the level that the rules require was ever reached; it never sinks silently after that."""
    failures: int = 0
    """Attempts since the last success."""
    not_before: float = 0.0
    """Monotonic time of the next attempt."""
    last_failure: str = ""
    waiting: dict[IPAddress, Acquire] = field(default_factory=dict)
    """By remote address, the last packet that came before the name was looked up or the next attempt was due."""
    admitted: set[IPAddress] = field(default_factory=set)
    """All addresses that the name ever had here: where nothing may go in clear, their policies stay."""
    connects: list[int] = field(default_factory=list)
    """Connect commands that wait for an answer."""

    @property
    def rule(self) -> Rule:
        """The one that says what holds for the peer as a whole."""
        return self.rules[0]

    @property
    def name(self) -> str:
        return str(self.rule.peer) if self.rule.name else str(self.rule.peer).split("/")[0]

    @property
    def identity(self) -> Identity:
        return self.rule.expected

    @property
    def reqid(self) -> int:
        return REQID_BASE + self.number

    @property
    def addresses(self) -> tuple[IPAddress, ...]:
        """Where it is, as far as is known now."""
        if self.lookup is not None:
            bound = self.lookup.binding.addresses if self.lookup.binding is not None else ()
            return tuple(address for address in bound if address in self.admitted)
        if self.rule.address is not None:
            return (self.rule.address,)
        return () if isinstance(self.rule.peer, str) else (self.rule.peer.network_address,)

    def admit(self) -> tuple[IPAddress, ...]:
        """Take in the addresses that the name has now; those for which there is no room any more are returned."""
        bound = self.lookup.binding.addresses if self.lookup is not None and self.lookup.binding is not None else ()
        if self.rule.below is Action.CLEAR:
            # Their policies go with them.
            self.admitted = set()
        for address in bound:
            if len(self.admitted) < MOST_ADDRESSES:
                self.admitted.add(address)
        return tuple(address for address in bound if address not in self.admitted)

    @property
    def starts_by_itself(self) -> bool:
        """Below the level in clear, nothing traps a packet: so the level is sought at once."""
        return self.rule.start is Start.CONNECT or self.rule.below is Action.CLEAR

    def keys_at(self, address: IPAddress) -> tuple[PublicKey, ...]:
        """The keys that may prove it at one address."""
        if self.lookup is not None:
            return self.lookup.binding.keys_at(address) if self.lookup.binding is not None else ()
        return (self.key,) if self.key is not None else ()

    def entry(self, remote: IPAddress, own: Sequence[IPAddress]) -> PadEntry | None:
        """Its PAD entry as seen at one of its addresses; None while nothing could prove it there."""
        keys = self.keys_at(remote)
        if remote not in self.addresses or not (keys or self.psk):
            return None
        selectors = tuple(selector for rule in self.rules for selector in _selectors(rule, own, remote))
        return PadEntry(
            self.name, self.identity, self.addresses, keys, self.psk, self.rule.require,
            self.reqid, self.rule.mode, selectors, self.rule.own_identity,
        )  # fmt: skip

    def wanted(self, flow: Flow, acquire: int = 0) -> Wanted | None:
        """The Child SA for a packet; None if no rule speaks of it."""
        for rule in self.rules:
            for selector in _selectors(rule, (flow.local,), self._outer(flow.remote)):
                if selector.matches(flow) or (rule.mode is Mode.TRANSPORT and _same_hosts(selector, flow)):
                    return Wanted((selector,), rule.mode, acquire)
        return None

    def _outer(self, remote: IPAddress) -> IPAddress:
        """The peer's own address for traffic with `remote`, which a tunnel may have behind it."""
        if remote in self.addresses:
            return remote
        return next((a for a in self.addresses if a.version == remote.version), remote)

    def desired(self, own: Sequence[IPAddress]) -> dict[tuple[Selector, Direction], Policy]:
        """The policies that ought to stand."""
        if self.rule.below is Action.CLEAR and not self.reached:
            return {}
        found = {}
        for remote in self.addresses:
            for rule in self.rules:
                local = nearest(own, remote)
                if local is None:
                    continue
                tunnel = (local, remote) if rule.mode is Mode.TUNNEL else None
                for selector in _selectors(rule, own, remote):
                    for direction in Direction:
                        priority = PROTECT_PRIORITY - narrowness(selector)
                        policy = Policy(selector, direction, Action.PROTECT, priority, self.reqid, rule.mode, tunnel)
                        found[selector, direction] = policy
        return found

    @property
    def may_loosen(self) -> bool:
        """Whether a policy that is no longer wanted may go, so that packets leave in clear.

        Law 3: not because of an error, nor of records that are not signed; only a signed statement may lead there.
        """
        if self.rule.below is not Action.CLEAR:
            return False
        if self.lookup is None or self.lookup.binding is not None:
            return True
        return self.lookup.unbound is not None and self.lookup.unbound.outcome is Outcome.DENIED

    def yields_to(self, other: "Peer") -> bool:
        """Whether a policy of ours is rather the other's, who names the same address."""
        return not self.reached and (other.reached or self.failures > 0)

    def failed(self, why: str, now: float) -> None:
        """An attempt failed: wait longer before the next."""
        self.last_failure = why
        self.not_before = now + min(LAST_WAIT, FIRST_WAIT * 2 ** min(self.failures, 10))
        self.failures += 1

    def succeeded(self) -> None:
        self.last_failure, self.failures, self.not_before, self.reached = "", 0, 0.0, True


def group_rules(rules: Iterable[Rule]) -> list[tuple[Rule, ...]]:
    """Rules by the peer they are about, in the order that numbers the peers.

    Those that want nothing protected make no peer.
    """
    groups: dict[str, list[Rule]] = {}
    for rule in rules:
        if rule.require is not Assurance.CLEAR:
            groups.setdefault(str(rule.peer), []).append(rule)
    return [tuple(group) for group in groups.values()]


def nearest(own: Iterable[IPAddress], remote: IPAddress) -> IPAddress | None:
    """The address of ours that shares most leading bits with a peer's (RFC 6724 s5, rule 8), and its being private."""

    def nearness(address: IPAddress) -> tuple[bool, int]:
        return address.is_private == remote.is_private, -(int(address) ^ int(remote)).bit_length()

    return max((address for address in own if address.version == remote.version), key=nearness, default=None)


def _selectors(rule: Rule, own: Sequence[IPAddress], remote: IPAddress) -> Iterator[Selector]:
    """What a rule says between this host's addresses and one address of the peer."""
    same_family: list[IPNetwork] = [host_network(address) for address in own if address.version == remote.version]
    locals_ = rule.local_networks or same_family
    remotes = rule.remote_networks or (host_network(remote),)
    for local in locals_:
        for far in remotes:
            if local.version == far.version:
                yield Selector(local, far, rule.protocol, rule.local_port, rule.remote_port)


def _same_hosts(selector: Selector, flow: Flow) -> bool:
    """The kernel's Acquire names a flow by its addresses alone when its policy does."""
    return flow.protocol == 0 and flow.local in selector.local and flow.remote in selector.remote


def narrowness(selector: Selector) -> int:
    """The narrower a selector, the sooner it counts."""
    ports = bool(selector.local_port) + bool(selector.remote_port)
    return selector.local.prefixlen + selector.remote.prefixlen + 100 * (ports + bool(selector.protocol))
