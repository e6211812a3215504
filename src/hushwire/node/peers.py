"""All peers of a host: those that rules call by name or address, and those that rules about many brought in."""

import itertools
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from ipaddress import ip_address

from hushwire.config import Addressing, Config, Rule
from hushwire.crypto.keys import PublicKey
from hushwire.entropy import Entropy
from hushwire.names.binding import why_not_a_peer
from hushwire.names.lookup import AddressLookup, NameLookup
from hushwire.names.synthetic import SyntheticAddresses
from hushwire.node.peer import Peer
from hushwire.node.rulebook import Rulebook, Rules, refuses
from hushwire.node.scope import REQID_BASE
from hushwire.policy.assurance import Assurance
from hushwire.policy.pad import Identity
from hushwire.policy.sad import Direction
from hushwire.policy.selector import Selector
from hushwire.policy.spd import Action, Policy
from hushwire.policy.trust import TrustStore
from hushwire.timers import NEVER
from hushwire.wire.address import IPAddress

MOST_NUMBERS = 1 << 16
"""Peers that a host can number at once."""
MOST_BORN = 4096
"""Peers that rules about many have brought in, at once."""


@dataclass(frozen=True, slots=True)
class Secrets:
    """The public side of what the keeper holds, by the rule's peer."""

    key: PublicKey | None
    """The host's."""
    pinned: Mapping[str, PublicKey]
    """Peers' keys of local configuration."""
    shared: Mapping[str, bytes]
    """The keeper's names of shared keys."""
    trusted: TrustStore = field(default_factory=TrustStore)
    """Keys that an administrator trusts, whoever has them."""


class Crowded(Exception):
    """There is no room for one more peer."""


class Blocked(Exception):
    """No rule lets anything be protected there."""


class Peers:
    """The register.  Numbers, and so reqids, are the peers' own for as long as they are here."""

    def __init__(
        self, config: Config, secrets: Secrets, entropy: Entropy, number: Callable[[], int],
        needed: Callable[[], Collection[int]] = tuple,
    ) -> None:  # fmt: skip
        """`number` gives the next request number; `needed`: the reqids of those with whom something is being done."""
        self.rulebook = Rulebook(config.rules)
        self.own: tuple[IPAddress, ...] = config.host.addresses
        """This host's addresses; names may lead to none of them."""
        self._secrets = secrets
        self._entropy = entropy
        self._number = number
        self._needed = needed
        self.touched: dict[Peer, None] = {}
        """Those to whom something may have happened: whoever does something to a peer has it from here."""
        self._by_reqid: dict[int, Peer] = {}
        self._by_name: dict[str, Peer] = {}
        self._configured: list[Peer] = []
        """Those that rules call by name or address."""
        self._traps: list[Peer] = []
        self._wide: dict[Peer, None] = {}
        """Those with whole networks behind them."""
        self._at: dict[IPAddress, dict[Peer, None]] = {}
        """The others, by where they were, or had policies, when somebody last asked."""
        self._filed: dict[Peer, set[IPAddress]] = {}
        """Under what each is there."""
        self._unfiled: dict[Peer, None] = {}
        """Those to whom something may have happened since."""
        self._born = 0
        self._synthetic = SyntheticAddresses(lambda: int.from_bytes(entropy.public(4)))
        groups = self.rulebook.groups
        self._free = itertools.cycle(range(len(groups) + 1, MOST_NUMBERS))
        for position, rules in enumerate(groups, 1):
            rule = rules[0]
            # Names without end make no peer by themselves, nor does what wants nothing protected.
            if rule.require is Assurance.CLEAR or refuses(rules) or (rule.many and rule.name is not None):
                continue
            peer = self._add(position, rules, str(rule.peer))
            (self._traps if peer.is_trap else self._configured).append(peer)

    def __iter__(self) -> Iterator[Peer]:
        return iter([self.touch(peer) for peer in self._by_reqid.values()])

    def by_reqid(self, reqid: int) -> Peer | None:
        return self._found(self._by_reqid.get(reqid))

    def by_name(self, name: str) -> Peer | None:
        """The peer of a canonical name, or of an address as text."""
        return self._found(self._by_name.get(name))

    def touch(self, peer: Peer) -> Peer:
        """Something happens to a peer."""
        self.touched[peer] = self._unfiled[peer] = None
        return peer

    def _found(self, peer: Peer | None) -> Peer | None:
        return self.touch(peer) if peer is not None else None

    def claiming(self, identity: Identity, remote: IPAddress) -> Peer | None:
        """The peer that says it is `identity`; of several names for one, the one that has policies there."""
        # Of those that rules about many brought in there may be thousands, each known by its own name only.
        born = self._by_name.get(str(identity))
        peers = (*self._configured, *([born] if born is not None and born.born and not born.is_alias else ()))
        found = [peer for peer in peers if identity in peer.identities and (not peer.rule.btns or remote in peer.ends)]
        return self._found(
            max(found, key=lambda peer: any(remote in key[0].remote for key in peer.policies), default=None)
        )

    def introduced_at(self, address: IPAddress, but: Peer) -> Peer | None:
        """Which peer, `but` apart, has an address that no stranger may speak for: it has more to prove than a key."""
        for peer in self.about(address):
            networks = (network for rule in peer.rules for network in rule.remote_networks)
            if peer is not but and not peer.rule.btns and (
                address in peer.addresses or any(address in network for network in networks)
            ):  # fmt: skip
                return peer
        return None

    def holding(self, address: IPAddress, but: Peer | None = None) -> Peer | None:
        """Which peer, `but` apart, has a policy that protects packets to this one address."""
        for peer in self.about(address):
            if peer is not but and any(
                address in selector.remote and policy.action is Action.PROTECT
                for (selector, _), policy in peer.policies.items()
            ):  # fmt: skip
                return peer
        return None

    def governing(self, remote: IPAddress, speaks: Callable[[Selector], bool]) -> tuple[Peer, Policy] | None:
        """The policy that counts for what leaves to an address, of those whose selector `speaks` of it."""
        found = [
            (policy.priority, peer.reqid, peer, policy)
            for peer in (*self.about(remote), *self._traps)
            for (selector, direction), policy in peer.policies.items()
            if direction is Direction.OUT and speaks(selector)
        ]
        return min(found, key=lambda each: each[:2])[2:] if found else None

    def about(self, address: IPAddress) -> list[Peer]:
        """All peers that may have to do with an address, and maybe others, whatever their number in all."""
        for peer in self._unfiled:
            self._file(peer, {*peer.addresses, *(selector.remote.network_address for selector, _ in peer.policies)})
        # What happens to these in this step may not be over.
        self._unfiled = self.touched.copy()
        return [*self._at.get(address, ()), *self._wide]

    def _file(self, peer: Peer, places: set[IPAddress]) -> None:
        if peer.is_trap or peer in self._wide:
            return
        before = self._filed.pop(peer, set())
        for place in before - places:
            del self._at[place][peer]
            if not self._at[place]:
                del self._at[place]
        for place in places - before:
            self._at.setdefault(place, {})[peer] = None
        if places:
            self._filed[peer] = places

    def alias_of(self, peer: Peer) -> Peer | None:
        """The peer that a rule calls by a signed alias of the name that one without a rule of its own leads to.

        They are one host, with one key; and the other, whom an administrator named, has its policies.
        """
        end = peer.canonical or peer.name
        found = (each for each in self._configured if peer.born and each.rule.name not in (None, end))
        return self._found(next((each for each in found if each.canonical == end), None))

    def rival_of(self, peer: Peer) -> Peer | None:
        """Which other peer has one of its addresses."""
        return next(filter(None, (self.holding(address, peer) for address in peer.addresses)), None)

    def called(self, name: str) -> Peer:
        """The peer of a name or an address, whom `hushwire connect` names.  Raises Crowded, Blocked."""
        with suppress(ValueError):
            return self._called_at(ip_address(name))
        # What proves a name is in the DNS: it needs no rule.
        rules = self.rulebook.for_name(name)
        if rules is not None and refuses(rules):
            raise Blocked(f"{name}: a rule blocks it")
        peer = self.by_name(name) or self._bear((Rule(name),) if rules is None else rules)
        if peer.born:
            # An administrator's own word, from now on: it has policies where it is, and stays.
            peer.born, peer.idle_at = False, NEVER
            self._born -= 1
        return peer

    def _called_at(self, address: IPAddress) -> Peer:
        if (reason := why_not_a_peer(address, self.own)) is not None:
            raise Blocked(f"{address} cannot be a peer's: {reason}")
        # Whoever has the policy there is meant, by whatever name.
        peer = self._found(self.holding(address)) or self.of_address(address)
        if peer is None:
            rules = self.rulebook.for_address(address)
            wants = "a rule blocks it" if rules is not None and refuses(rules) else "no rule protects it"
            raise Blocked(f"{address}: {wants}")
        return peer

    def of_name(self, name: str, rules: Rules) -> Peer:
        """The peer of a name that rules about many speak of.  Raises Crowded."""
        return self.by_name(name) or self._bear(rules)

    def of_address(self, address: IPAddress) -> Peer | None:
        """The peer of an address that rules about many speak of; None if none does.  Raises Crowded."""
        rules = self.rulebook.for_address(address)
        if rules is None or rules[0].require is Assurance.CLEAR or refuses(rules):
            return None
        return self.by_name(str(address)) or self._bear(rules)

    def make_synthetic(self, peer: Peer) -> None:
        """An address for each that its name has now, if its rule says so.  Raises PoolEmpty."""
        if peer.rule.addressing is Addressing.SYNTHETIC and not peer.is_alias:
            for address in peer.addresses:
                peer.synthetic[address] = self._synthetic.take(peer.name, address)

    def give_back_synthetic(self, peer: Peer) -> None:
        """Those for which no policy of its stands any more."""
        kept = {policy.real for policy in peer.policies.values()} | peer.admitted
        for address in peer.synthetic.keys() - kept:
            del peer.synthetic[address]
            self._synthetic.give_back(peer.name, address)

    def forget(self, peer: Peer) -> None:
        """A peer that a rule about many brought in is not needed any more."""
        for address in peer.synthetic:
            self._synthetic.give_back(peer.name, address)
        del self._by_reqid[peer.reqid]
        del self._by_name[peer.name]
        self.touched.pop(peer, None)
        self._unfiled.pop(peer, None)
        self._file(peer, set())
        self._born -= 1

    def _bear(self, rules: Rules) -> Peer:
        if self._born >= MOST_BORN:
            self._make_room()
        if self._born >= MOST_BORN:
            raise Crowded(f"more than {MOST_BORN} peers at once")
        number = next(number for number in self._free if REQID_BASE + number not in self._by_reqid)
        self._born += 1
        peer = self._add(number, rules, self._pattern_of(rules[0]))
        peer.born = True
        return peer

    def _make_room(self) -> None:
        """Of names for which nothing stands, and nothing is being done, the least used go.

        Else whoever has a program ask for random names would keep all others out (ATTACKS row 45).
        """
        needed = self._needed()
        spare = [
            peer for peer in self._by_reqid.values()
            if peer.born and not peer.policies and peer.lookup is not None and not peer.lookup.asking
            and peer.reqid not in needed
        ]  # fmt: skip
        for peer in sorted(spare, key=lambda peer: peer.used_at)[: MOST_BORN // 16]:
            self.forget(peer)

    def _pattern_of(self, made_out: Rule) -> str:
        """What the configuration calls those whom a rule is about, that is made out to one of them here."""
        if isinstance(made_out.peer, str):
            return made_out.peer
        group = self.rulebook.group_of(made_out.peer.network_address)
        return str(group[0].peer if group is not None else made_out.peer)

    def _add(self, number: int, rules: Rules, secret: str) -> Peer:
        rule = rules[0]
        lookup: NameLookup | AddressLookup | None = None
        if rule.require is Assurance.NAMED or rule.btns:
            # RFC 5386 s2: strangers come last.  Who has a key in the DNS has to prove that one.
            if rule.name is not None:
                lookup = NameLookup(rule.name, self._number, self._entropy, self.own, roams=rule.roams)
            elif not rule.many and not isinstance(rule.peer, str):
                lookup = AddressLookup(rule.peer.network_address, self._number, self._entropy, self.own)
        peer = Peer(number, rules, lookup, self._secrets.pinned.get(secret), self._secrets.shared.get(secret))
        if any(rule.remote_networks for rule in rules) and not peer.is_trap:
            self._wide[peer] = None
        self._by_reqid[peer.reqid] = peer
        self._by_name[peer.name] = self.touch(peer)
        return peer
