"""The guard: the parent's judgement of everything the node asks of SAD and SPD (DESIGN.md section 3).

The node parses what strangers send, so it may be theirs one day.  It may tighten freely, and loosen only where a
configured rule already permits clear.  What the guard lets through is within these bounds whatever the node says.
"""

from collections import Counter
from collections.abc import Collection, Iterator

from hushwire.config import Config, Rule
from hushwire.crypto.suite import can_encrypt, encr_key_length, integ_key_length
from hushwire.events import CloseFlows, Count, CountFlows, DeletePolicy, DeleteSA, InstallPolicy, InstallSA
from hushwire.names.binding import why_not_a_peer
from hushwire.names.synthetic import is_synthetic
from hushwire.node.base import places
from hushwire.node.rulebook import Rulebook, Rules, permits_clear
from hushwire.node.scope import PROTECT_PRIORITY, REQID_BASE, narrowness
from hushwire.policy.assurance import Assurance
from hushwire.policy.sad import SA, Direction, Mode, SAName
from hushwire.policy.selector import Selector
from hushwire.policy.spd import Action, Policy
from hushwire.timers import NEVER, Now
from hushwire.wire.address import IPAddress, IPNetwork, host_network

Request = InstallSA | DeleteSA | InstallPolicy | DeletePolicy | Count | CloseFlows | CountFlows

MOST_PEERS = 1 << 16
"""Peers of one host."""
REQIDS = range(REQID_BASE + 1, REQID_BASE + MOST_PEERS + 1)
"""Those that are our own: of all that is in the kernel's tables, what has another is not touched."""
MOST_POLICIES = MOST_SAS = 1 << 17
"""Of each: what the kernel's memory is to bear."""
WIDEST_WINDOW = 4096
"""Packets of a replay window."""
RATE, BURST = 2000.0, 8000.0
"""Requests a second, and at once."""

LONGEST_SHUNT = 300
"""Seconds that a policy may live which lets packets go in clear."""
HELD_FOR = 3600.0
"""Seconds for which a policy that permits no clear stays, after it was last asked for, where a rule about many brought
the peer in.  Its name may have got another address meanwhile, and the address another host."""

NAMED_LATER: Rules = (Rule("a peer that hushwire connect named"),)
"""The rules of such a peer: they permit nothing but protection between two hosts."""


class Forbidden(Exception):
    """The node asked for what no rule allows; one line says what."""


class Guard:
    """A reference monitor: judge() returns or raises Forbidden; done() tells it what came of a request.

    It outlives the node, since a new one may be as bad as the last.
    """

    def __init__(self, config: Config) -> None:
        self._rulebook = Rulebook(config.rules)
        self._groups = self._rulebook.groups
        many = [group for group in self._groups if group[0].many]
        self._of_many: Rules = tuple(rule for group in (*many, NAMED_LATER) for rule in group)
        """What a peer may be given that rules about many brought in: which of them did is not known here."""
        self._names_may_be_clear = any(
            permits_clear((rule,)) for group in many for rule in group if rule.name is not None
        )
        self._longest_life = 2 * config.esp.lifetime
        self._nat_port = config.host.nat_port
        self._own: Collection[IPAddress] = ()
        self._sas: set[SAName] = set()
        self._policies: dict[tuple[Selector, Direction], Action] = {}
        """What each does with packets."""
        self._remotes: Counter[IPNetwork] = Counter()
        """How many of them speak of each."""
        self._held: dict[tuple[Selector, Direction], float] = {}
        """Those of the policies that a rule which permits no clear has asked for, and the monotonic time until which
        they stay: for good, if the rule speaks of that peer alone."""
        self._now = 0.0
        self._tokens = BURST
        self._filled = 0.0

    @property
    def sas(self) -> frozenset[SAName]:
        """The SAs that were installed and not deleted."""
        return frozenset(self._sas)

    @property
    def sealed(self) -> tuple[IPAddress, ...]:
        """Hosts with which programs may have flows that are protected."""
        return tuple({
            selector.remote.network_address: None
            for (selector, _), action in self._policies.items()
            if action is Action.PROTECT and selector.remote.num_addresses == 1
        })  # fmt: skip

    def addresses(self, own: Collection[IPAddress]) -> None:
        """The host's own addresses, from the kernel."""
        self._own = frozenset(own)

    def adopt(self, policy: Policy) -> None:
        """A policy that an earlier run of ours left standing.  Which rule it was for is not known, so it stays."""
        self._stands(policy)
        self._held[policy.selector, policy.direction] = NEVER

    def forget_sas(self) -> None:
        """The plane has none of them any more."""
        self._sas.clear()

    def pace(self, now: Now) -> float:
        """Count one request.  Seconds to let pass before it is judged: to refuse it might leave a peer in clear."""
        self._tokens = min(BURST, self._tokens + (now.monotonic - self._filled) * RATE) - 1
        self._filled = self._now = now.monotonic
        return max(0.0, -self._tokens / RATE)

    def judge(self, request: Request) -> None:
        """Raise Forbidden unless the request is within bounds."""
        match request:
            case InstallSA(_, sa):
                self._judge_sa(sa)
            case DeleteSA(name):
                if name not in self._sas:
                    raise Forbidden(f"SA {name.spi:08x} is not ours to delete")
            case Count(_, sas):
                if not self._sas.issuperset(sas):
                    raise Forbidden("to count what SAs carry that are not ours")
            case CloseFlows(_, remotes) | CountFlows(_, remotes):
                # Whoever may block packets may end what they are of.
                if not all(self._remotes[remote] for remote in remotes):
                    raise Forbidden("connections with hosts that no policy of ours speaks of")
            case InstallPolicy(_, policy):
                self._judge_policy(policy)
            case DeletePolicy(selector, direction):
                if (selector, direction) not in self._policies:
                    raise Forbidden(f"the policy for {selector} is not ours to delete")
                self._judge_loosening(selector, direction)

    def done(self, request: Request) -> None:
        """The plane does, or did, what was asked."""
        match request:
            case InstallSA(_, sa):
                self._sas.add(SAName(sa.spi, sa.destination))
            case DeleteSA(name):
                self._sas.discard(name)
            case InstallPolicy(_, policy):
                self._stands(policy)
                if not policy.soft and policy.action is not Action.CLEAR:
                    until = NEVER if self._is_configured(policy) else self._now + HELD_FOR
                    key = policy.selector, policy.direction
                    self._held[key] = max(until, self._held.get(key, 0.0))
            case DeletePolicy(selector, direction):
                if self._policies.pop((selector, direction), None) is not None:
                    self._remotes[selector.remote] -= 1
                self._held.pop((selector, direction), None)

    def _stands(self, policy: Policy) -> None:
        key = policy.selector, policy.direction
        self._remotes[policy.selector.remote] += key not in self._policies
        self._policies[key] = policy.action

    def _judge_sa(self, sa: SA) -> None:
        rules = self._rules_of(sa.reqid)
        out = sa.direction is Direction.OUT
        ours, theirs = (sa.source, sa.destination) if out else (sa.destination, sa.source)
        self._judge_ends(ours, theirs, rules)
        by_gateway = sa.mode is Mode.TUNNEL and self._may_have_gateway(sa.selector, rules)
        if all(rule.mode is not sa.mode for rule in rules) and not by_gateway:
            raise Forbidden(f"an SA in {sa.mode.value} mode")
        inner = sa.selector.remote.network_address if by_gateway else theirs
        if not (_one_family(sa.selector) and any(scope.covers(sa.selector) for scope in self._scopes(rules, inner))):
            raise Forbidden(f"an SA for {sa.selector}")
        if sa.mode is Mode.TRANSPORT and not Selector.between(ours, theirs).covers(sa.selector):
            raise Forbidden(f"an SA between {ours} and {theirs} for {sa.selector}")
        if not 255 < sa.spi < 1 << 32:
            raise Forbidden(f"SPI {sa.spi:#x}")
        self._judge_suite(sa)
        if sa.encapsulation is not None:
            ports = (sa.encapsulation.source_port, sa.encapsulation.destination_port)
            near, far = ports if out else ports[::-1]
            if near != self._nat_port or not 0 < far < 1 << 16:
                raise Forbidden(f"ESP in UDP between our port {near} and {far}")
        if SAName(sa.spi, sa.destination) in self._sas:
            # Its keys again would be its nonces again (DESIGN.md law 5).
            raise Forbidden(f"SA {sa.spi:08x} stands already")
        if len(self._sas) >= MOST_SAS:
            raise Forbidden(f"more than {MOST_SAS} SAs")

    def _judge_suite(self, sa: SA) -> None:
        """Keys, limits and window: what would weaken an SA, or what a plane could not take."""
        suite, life = sa.suite, sa.lifetime
        if not can_encrypt(suite.encr, suite.key_bits, suite.integ):
            raise Forbidden(f"an SA with {suite}")
        lengths = encr_key_length(suite.encr, suite.key_bits), integ_key_length(suite.integ)
        if (len(sa.encr_key), len(sa.integ_key)) != lengths:
            raise Forbidden(f"an SA with {suite} and keys of {len(sa.encr_key)} and {len(sa.integ_key)} octets")
        if not 0 <= life.soft_seconds <= life.hard_seconds <= self._longest_life or not life.hard_seconds:
            raise Forbidden(f"an SA that lives {life.hard_seconds} s")
        amounts = (life.soft_bytes, life.hard_bytes, life.soft_packets, life.hard_packets)
        if not all(0 <= amount < 1 << 64 for amount in amounts):
            raise Forbidden("an SA with limits that are no numbers of octets or packets")
        if not suite.esn and not 0 < life.hard_packets < 1 << 32:
            # RFC 4303 s3.3.3: a sequence number must not come round.
            raise Forbidden("an SA of 32-bit sequence numbers without a limit of packets")
        if not 0 < sa.replay_window <= WIDEST_WINDOW:
            raise Forbidden(f"an SA with a replay window of {sa.replay_window}")
        if not 0 <= sa.acquire < 1 << 32:
            raise Forbidden(f"an SA for Acquire {sa.acquire}")

    def _judge_policy(self, policy: Policy) -> None:
        selector = policy.selector
        # With any other a policy would come before, or behind, one that the configuration puts elsewhere.
        if policy.priority != PROTECT_PRIORITY - narrowness(selector):
            raise Forbidden(f"a policy of priority {policy.priority} for {selector}")
        blocks = policy.action is Action.BLOCK and not policy.reqid
        rules = NAMED_LATER if blocks else self._rules_of(policy.reqid)
        self._judge_scope(selector, rules)
        self._judge_synthetic(policy)
        if policy.action is Action.CLEAR and not 0 < policy.lifetime <= LONGEST_SHUNT:
            raise Forbidden(f"clear for {selector} for {policy.lifetime} s")
        if policy.action is Action.CLEAR or policy.soft:
            self._judge_softness(selector, rules)
            self._judge_loosening(selector, policy.direction)
        if policy.action is Action.PROTECT:
            by_gateway = policy.mode is Mode.TUNNEL and self._may_have_gateway(selector, rules)
            if all(rule.mode is not policy.mode for rule in rules) and not by_gateway:
                raise Forbidden(f"a policy in {policy.mode.value} mode")
            if (policy.mode is Mode.TUNNEL) != (policy.tunnel is not None):
                raise Forbidden("a tunnel without end points, or end points without a tunnel")
            if policy.tunnel is not None:
                self._judge_ends(*policy.tunnel, rules)
        if len(self._policies) >= MOST_POLICIES and (selector, policy.direction) not in self._policies:
            raise Forbidden(f"more than {MOST_POLICIES} policies")

    def _judge_synthetic(self, policy: Policy) -> None:
        """A synthetic address leads where it stands for, and an address of somebody's nowhere else."""
        made = is_synthetic(policy.selector.remote.network_address)
        if made != (policy.real is not None) or (policy.real is not None and policy.action is not Action.PROTECT):
            raise Forbidden(f"a policy for {policy.selector} that stands for {policy.real or 'nothing'}")
        if policy.real is not None:
            if policy.real.version != policy.selector.remote.version or is_synthetic(policy.real):
                raise Forbidden(f"a policy for {policy.selector} that stands for {policy.real}")
            self._judge_remote(policy.real, NAMED_LATER)

    def _judge_loosening(self, selector: Selector, direction: Direction) -> None:
        """Of a policy that is to go, or to let packets go in clear."""
        if self._held.get((selector, direction), 0.0) > self._now:
            raise Forbidden(f"no rule permits clear for {selector}")

    def _judge_softness(self, selector: Selector, rules: Rules) -> None:
        """Whether a rule permits clear there: its own, and what there is about the address; names only tighten."""
        remote = selector.remote.network_address
        about = self._rulebook.for_address(remote) or ()
        # The narrowest counts: one about another prefix, or a wider one, has nothing to say here.
        mine = rules[0].peer == selector.remote or self._rulebook.group_of(remote) == rules
        of_address = bool(about) if rules is self._of_many else rules[0].name is None and mine
        if of_address and self._says_clear(about if rules is self._of_many else rules, selector):
            return
        if not self._rulebook.permits_clear(selector):
            raise Forbidden(f"clear for {selector}, where a rule permits none")
        permitted = self._names_may_be_clear if rules is self._of_many else self._says_clear(rules, selector)
        if not permitted:
            raise Forbidden(f"clear for {selector}, of which no rule says that")

    def _says_clear(self, rules: Rules, selector: Selector) -> bool:
        """Whether one of the rules speaks of just these packets, and permits clear."""
        remote = selector.remote.network_address
        return any(permits_clear((rule,)) and selector in self._scopes((rule,), remote) for rule in rules)

    def _is_configured(self, policy: Policy) -> bool:
        """Whether it is for a peer that a rule speaks of alone, and not for one that roams."""
        number = policy.reqid - REQID_BASE
        return 1 <= number <= len(self._groups) and not self._groups[number - 1][0].roams

    def _rules_of(self, reqid: int) -> Rules:
        """The rules of a peer by its number; beyond the configured ones come those of rules about many."""
        if reqid not in REQIDS:
            raise Forbidden(f"reqid {reqid:#x}, which is not ours")
        number = reqid - REQID_BASE
        return self._groups[number - 1] if number <= len(self._groups) else self._of_many

    def _judge_scope(self, selector: Selector, rules: tuple[Rule, ...]) -> None:
        """Exactly what a rule says, between two hosts or its networks.  To break other traffic is an attack, too."""
        remote = selector.remote.network_address
        if not _one_family(selector) or selector not in self._scopes(rules, remote):
            raise Forbidden(f"a policy for {selector}")
        if not any(selector.remote in rule.remote_networks or selector.remote == _prefix(rule) for rule in rules):
            self._judge_remote(remote, rules)

    def _may_have_gateway(self, selector: Selector, rules: Rules) -> bool:
        """Whether the DNS may say who speaks for an address: a rule looks its key up, in its own reverse zone."""
        about = self._rulebook.for_address(selector.remote.network_address) or ()
        ours = rules is self._of_many or rules[0].name is None
        one = selector.remote.prefixlen == selector.remote.max_prefixlen
        return ours and one and any(rule.require is Assurance.NAMED for rule in about)

    def _scopes(self, rules: tuple[Rule, ...], remote: IPAddress) -> Iterator[Selector]:
        """The selectors that the rules come to for a peer at `remote`."""
        for rule in rules:
            for local in rule.local_networks or map(host_network, self._own):
                for far in rule.remote_networks or (host_network(remote), _prefix(rule)):
                    if far is not None and local.version == far.version:
                        yield Selector(local, far, rule.protocol, rule.local_port, rule.remote_port)

    def _judge_ends(self, ours: IPAddress, theirs: IPAddress, rules: tuple[Rule, ...]) -> None:
        if ours not in self._own or ours.version != theirs.version:
            raise Forbidden(f"{ours} to {theirs}: the first is no address of this host, or of another family")
        self._judge_remote(theirs, rules)

    def _judge_remote(self, remote: IPAddress, rules: tuple[Rule, ...]) -> None:
        reason = why_not_a_peer(remote, self._own)
        if reason is not None:
            raise Forbidden(f"{remote} is {reason}")
        if all(rule.require is Assurance.TRUSTED for rule in rules) and not any(
            remote in place for rule in rules for place in places(rule)
        ):
            raise Forbidden(f"{remote}, where {rules[0].peer} is not")


def _one_family(selector: Selector) -> bool:
    return selector.local.version == selector.remote.version


def _prefix(rule: Rule) -> IPNetwork | None:
    """What a rule about all addresses of a prefix traps."""
    return rule.peer if rule.many and not isinstance(rule.peer, str) else None
