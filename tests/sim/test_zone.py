"""sim.zone: its answers are those of a validating resolver, so what is bound by them is what was published."""

from ipaddress import ip_address

import pytest

from hushwire.crypto.keys import PrivateKey
from hushwire.crypto.secret import Secret
from hushwire.events import Answered, Lookup, Outcome
from hushwire.names import binding
from hushwire.names.binding import AAAA, A, Binding, Unbound, bind, questions
from hushwire.names.ipseckey import IPSECKEY, KeyRecord
from hushwire.names.reverse import bind_address, reverse_name
from hushwire.names.tlsa import TLSA
from hushwire.sim.zone import Zone

NAME, TARGET = "alice.example", "host.example"
V4, GATEWAY = ip_address("192.0.2.1"), ip_address("192.0.2.254")
KEY, OTHER = (PrivateKey.from_seed(Secret(bytes((seed,)) * 32)).public for seed in (1, 2))


def answers(zone: Zone, name: str) -> list[Answered]:
    return [zone.answer(Lookup(number, owner, rdtype)) for number, (owner, rdtype) in enumerate(questions(name))]


def look_up(zone: Zone, name: str) -> Binding:
    a, aaaa, ipseckey, tlsa = answers(zone, name)
    return bind(name, a, aaaa, ipseckey, tlsa)


@pytest.fixture
def zone() -> Zone:
    zone = Zone()
    zone.publish(NAME, (V4,), KEY, vouched=(OTHER,))
    return zone


def test_keys_and_fingerprints(zone: Zone) -> None:
    bound = look_up(zone, NAME)
    assert (bound.addresses, bound.keys, bound.fingerprints) == ((V4,), (KEY,), (OTHER.fingerprint,))
    assert zone.published(NAME) == {KEY.fingerprint, OTHER.fingerprint}
    zone.publish(NAME, (V4,), OTHER)
    assert look_up(zone, NAME).fingerprints == ()
    assert zone.published(NAME) == {KEY.fingerprint, OTHER.fingerprint}, "every key that it ever had"


def test_a_name_that_nobody_has(zone: Zone) -> None:
    assert {answer.outcome for answer in answers(zone, "nobody.example")} == {Outcome.DENIED}


def test_an_alias(zone: Zone) -> None:
    zone.publish(TARGET, (V4,), KEY, vouched=(OTHER,))
    zone.publish_alias(NAME, TARGET)
    bound = look_up(zone, NAME)
    assert (bound.canonical, bound.addresses, bound.keys) == (TARGET, (V4,), (KEY,))
    # An alias is not one of the names below it.
    assert bound.fingerprints == ()
    assert zone.published(NAME) >= zone.published(TARGET)


def test_an_address(zone: Zone) -> None:
    question = Lookup(1, reverse_name(V4), IPSECKEY)
    assert zone.answer(question).outcome is Outcome.DENIED
    zone.publish_address(V4, KeyRecord(10, GATEWAY, KEY))
    bound = bind_address(V4, zone.answer(question))
    assert (bound.gateway, bound.keys_at(GATEWAY)) == (GATEWAY, (KEY,))
    assert zone.published(reverse_name(V4)) == {KEY.fingerprint}


@pytest.mark.parametrize("outcome", [Outcome.DENIED, Outcome.INSECURE, Outcome.ERROR])
def test_a_fault_of_a_name_is_one_of_all_that_is_asked_about_it(zone: Zone, outcome: Outcome) -> None:
    zone.faults[NAME] = outcome
    assert [answer.outcome for answer in answers(zone, NAME)] == [outcome] * 4
    with pytest.raises(Unbound) as caught:
        look_up(zone, NAME)
    assert caught.value.outcome is outcome


def test_what_is_not_signed_comes_with_its_records_and_is_not_believed(
    zone: Zone, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As from a validator: so whoever believes it is found out."""
    signed = [answer.rdata for answer in answers(zone, NAME)]
    zone.faults[NAME] = Outcome.INSECURE
    assert [answer.rdata for answer in answers(zone, NAME)] == signed
    with pytest.raises(Unbound):
        look_up(zone, NAME)
    monkeypatch.setattr(binding, "_signed", lambda answer: answer.rdata)
    monkeypatch.setattr(binding, "require_known", lambda *_: None)
    assert look_up(zone, NAME).keys == (KEY,)


@pytest.mark.parametrize("outcome", [Outcome.DENIED, Outcome.ERROR])
def test_no_other_fault_comes_with_records(zone: Zone, outcome: Outcome) -> None:
    zone.faults[NAME] = outcome
    assert not any(answer.rdata for answer in answers(zone, NAME))


@pytest.mark.parametrize("faulty", [A, AAAA, IPSECKEY, TLSA])
def test_a_fault_of_one_question_alone(zone: Zone, faulty: int) -> None:
    zone.faults[NAME, faulty] = Outcome.ERROR
    assert [answer.rdtype for answer in answers(zone, NAME) if answer.outcome is Outcome.ERROR] == [faulty]
