"""The guard and rules about many: what may be clear, for how long, and what an intruder makes of that."""

from dataclasses import replace
from ipaddress import ip_address, ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hushwire.config import parse
from hushwire.daemon.guard import HELD_FOR, LONGEST_SHUNT, Forbidden, Guard, Request
from hushwire.events import DeletePolicy, InstallPolicy
from hushwire.node import idle
from hushwire.node.peer import SHUNT_LIFE
from hushwire.node.scope import PROTECT_PRIORITY, REQID_BASE, narrowness
from hushwire.policy.sad import Direction
from hushwire.policy.selector import Selector
from hushwire.policy.spd import Action, Policy
from hushwire.timers import Now
from hushwire.wire.address import IPAddress, host_network

OWN = ip_address("192.0.2.1")
BOB, SECRET, OPEN, ELSEWHERE = map(ip_address, ("192.0.2.2", "10.1.0.9", "10.2.0.9", "203.0.113.9"))
CLOSED, OPENED = ip_network("10.1.0.0/16"), ip_network("10.2.0.0/16")
RULES = """
[[rule]]
peer = "bob.example"
[[rule]]
peer = "10.1.0.0/16"
group = "private"
[[rule]]
peer = "10.2.0.0/16"
group = "private-or-clear"
"""
NAMES = """
[[rule]]
peer = "*.example"
group = "{}"
"""
BOB_NUMBER, CLOSED_NUMBER, OPENED_NUMBER, NAMES_NUMBER, BORN = range(1, 6)
"""Of the rules, in their order, and of somebody whom a rule about many brought in."""


def fresh(names: str = "private") -> Guard:
    guard = Guard(parse('[host]\nname = "alice.example"\n' + RULES + NAMES.format(names), "alice.toml"))
    guard.addresses((OWN,))
    return guard


def policy(
    remote: IPAddress, number: int, action: Action = Action.PROTECT, direction: Direction = Direction.OUT,
    *, soft: bool = False, lifetime: int = 0, prefix: object = None,
) -> Policy:  # fmt: skip
    selector = Selector(host_network(OWN), prefix or host_network(remote))  # type: ignore[arg-type]
    priority = PROTECT_PRIORITY - narrowness(selector)
    return Policy(selector, direction, action, priority, REQID_BASE + number, soft=soft, lifetime=lifetime)


def clear(remote: IPAddress, number: int = BORN, lifetime: int = SHUNT_LIFE) -> Policy:
    return policy(remote, number, Action.CLEAR, soft=True, lifetime=lifetime)


def ask(guard: Guard, *asked: Policy | Request) -> None:
    """As the parent does."""
    for each in asked:
        request = InstallPolicy(1, each) if isinstance(each, Policy) else each
        guard.judge(request)
        guard.done(request)


def delete(policy: Policy) -> DeletePolicy:
    return DeletePolicy(policy.selector, policy.direction)


# --- what a node rightly asks ---


def test_a_life_with_rules_about_many() -> None:
    guard = fresh("private-or-clear")
    trap, shunt = policy(OPEN, OPENED_NUMBER, prefix=OPENED, soft=True), clear(OPEN)
    held = policy(OPEN, BORN, soft=True)
    ask(guard, policy(SECRET, CLOSED_NUMBER, prefix=CLOSED), trap, held, shunt, shunt, held, delete(held), delete(trap))
    ask(guard, clear(ELSEWHERE), policy(ELSEWHERE, BORN, soft=True), policy(SECRET, BORN))


def test_what_the_node_asks_for_is_within_bounds() -> None:
    """Else a policy would be refused that ought to stand, or stay for good that ought to go."""
    assert SHUNT_LIFE <= LONGEST_SHUNT
    assert idle.HELD_FOR > HELD_FOR


# --- clear ---


@pytest.mark.parametrize("lifetime", [0, -1, LONGEST_SHUNT + 1, 1 << 40])
def test_clear_has_an_end(lifetime: int) -> None:
    with pytest.raises(Forbidden, match="clear for"):
        ask(fresh(), clear(OPEN, lifetime=lifetime))


@pytest.mark.parametrize("names", ["private", "private-or-clear"])
@pytest.mark.parametrize("number", [BOB_NUMBER, CLOSED_NUMBER, OPENED_NUMBER, NAMES_NUMBER, BORN])
def test_clear_is_where_the_rule_about_the_address_says_so(names: str, number: int) -> None:
    """Whatever names permit: they do not loosen what a rule about addresses closes."""
    for asked in (clear(SECRET, number), policy(SECRET, number, soft=True)):
        with pytest.raises(Forbidden):
            ask(fresh(names), asked)


def test_clear_elsewhere_is_as_names_say() -> None:
    ask(fresh("private-or-clear"), clear(ELSEWHERE), policy(BOB, BORN, soft=True))
    for asked in (clear(ELSEWHERE), policy(ELSEWHERE, BORN, soft=True)):
        with pytest.raises(Forbidden, match="of which no rule says that"):
            ask(fresh("private"), asked)


@pytest.mark.parametrize("prefix", [CLOSED, OPENED, ip_network("0.0.0.0/0"), ip_network("10.2.0.0/17")])
def test_no_prefix_as_a_whole_is_clear_where_it_is_not(prefix: object) -> None:
    for number in (OPENED_NUMBER, BORN):
        asked = policy(OPEN, number, Action.CLEAR, soft=True, lifetime=60, prefix=prefix)
        if prefix == OPENED and number == OPENED_NUMBER:
            # It is what its rule permits, for each of its hosts.
            ask(fresh(), asked)
        else:
            with pytest.raises(Forbidden):
                ask(fresh(), asked)


@pytest.mark.parametrize("guard", ["in", "out"])
def test_what_is_held_for_one_peer_is_never_clear(guard: str) -> None:
    """Bob's rule is about him alone: an intruder cannot make him one of many, who may be clear."""
    one = fresh("private-or-clear")
    if guard == "in":
        ask(one, policy(BOB, BOB_NUMBER))
    loosenings = [clear(BOB), policy(BOB, BORN, soft=True)]
    for days in range(10):
        one.pace(Now(days * 86400.0, 0.0))
        for asked in loosenings:
            if guard == "out":
                ask(one, asked)
            else:
                with pytest.raises(Forbidden, match="no rule permits clear"):
                    ask(one, asked)
        with pytest.raises(Forbidden) if guard == "in" else pytest.MonkeyPatch.context():
            one.judge(delete(policy(BOB, BOB_NUMBER)))


def test_what_is_held_for_one_of_many_stays_an_hour() -> None:
    guard = fresh("private-or-clear")
    guard.pace(Now(1000.0, 0.0))
    hard = policy(ELSEWHERE, BORN)
    ask(guard, hard)
    guard.pace(Now(1000.0 + HELD_FOR - 1, 0.0))
    for loosening in (clear(ELSEWHERE), policy(ELSEWHERE, BORN, soft=True), delete(hard)):
        with pytest.raises(Forbidden, match="no rule permits clear"):
            ask(guard, loosening)
    # Asked for again, it is held from then on.
    ask(guard, hard)
    guard.pace(Now(1000.0 + HELD_FOR + 1, 0.0))
    with pytest.raises(Forbidden, match="no rule permits clear"):
        guard.judge(delete(hard))
    guard.pace(Now(1000.0 + 2 * HELD_FOR, 0.0))
    ask(guard, delete(hard))


def test_a_soft_trap_does_not_become_hard_to_be_taken_away() -> None:
    guard = fresh()
    trap = policy(OPEN, OPENED_NUMBER, prefix=OPENED, soft=True)
    ask(guard, trap, replace(trap, soft=False))
    with pytest.raises(Forbidden, match="no rule permits clear"):
        guard.judge(delete(trap))


def test_an_earlier_runs_policy_is_not_made_soft() -> None:
    guard = fresh("private-or-clear")
    left = policy(ELSEWHERE, BORN)
    guard.adopt(left)
    for day in range(3):
        guard.pace(Now(day * 86400.0, 0.0))
        for loosening in (clear(ELSEWHERE), replace(left, soft=True), delete(left)):
            with pytest.raises(Forbidden, match="no rule permits clear"):
                ask(guard, loosening)


# --- traps ---


@pytest.mark.parametrize("number", [BOB_NUMBER, BORN + 7])
def test_a_trap_is_for_a_prefix_that_a_rule_names(number: int) -> None:
    for prefix in ("0.0.0.0/0", "192.0.2.0/24", "10.0.0.0/8", "10.1.0.0/17"):
        with pytest.raises(Forbidden, match="a policy for"):
            ask(fresh(), policy(BOB, number, prefix=ip_network(prefix)))


# --- whatever is asked ---

PLACES = (BOB, SECRET, OPEN, ELSEWHERE)
wishes = st.builds(
    policy, st.sampled_from(PLACES), st.integers(0, BORN + 1), st.sampled_from(Action), st.sampled_from(Direction),
    soft=st.booleans(), lifetime=st.sampled_from((0, 1, 120, 300, 301)),
    prefix=st.sampled_from((None, None, CLOSED, OPENED, ip_network("0.0.0.0/0"))),
)  # fmt: skip
requests = st.one_of(wishes, wishes.map(delete), st.integers(1, 4000))


@given(st.lists(requests, max_size=40), st.sampled_from(("private", "private-or-clear")))
def test_whatever_is_asked_what_a_rule_closes_stays_closed(asked: list[Policy | Request | int], names: str) -> None:
    """No clear or soft policy where the address's rule closes, and none held is loosened before its time."""
    guard, now = fresh(names), 0.0
    hard: dict[object, float] = {}
    for each in asked:
        if isinstance(each, int):
            now += each
            guard.pace(Now(now, 0.0))
            continue
        try:
            ask(guard, each)
        except Forbidden:
            continue
        key = each.selector, each.direction  # type: ignore[union-attr]
        loosens = isinstance(each, DeletePolicy) or each.soft or each.action is Action.CLEAR  # type: ignore[union-attr]
        if loosens:
            assert hard.get(key, 0.0) <= now
            hard.pop(key, None)
        else:
            alone = each.reqid == REQID_BASE + BOB_NUMBER  # type: ignore[union-attr]
            hard[key] = max(hard.get(key, 0.0), float("inf") if alone else now + HELD_FOR)
        if isinstance(each, Policy) and (each.soft or each.action is Action.CLEAR):
            assert not each.selector.remote.overlaps(CLOSED)
            assert each.action is not Action.CLEAR or 0 < each.lifetime <= LONGEST_SHUNT
