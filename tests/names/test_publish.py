"""names.publish: plans are run by a small model of RFC 2136, beside records of somebody else's."""

from collections.abc import Iterable
from ipaddress import IPv4Address, IPv6Address

import dns.rdataclass
import dns.rdatatype
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hushwire.crypto.keys import KeyKind, PrivateKey
from hushwire.events import Answered, Outcome
from hushwire.names.binding import AAAA, A, questions
from hushwire.names.ipseckey import IPSECKEY, KeyRecord, write_record
from hushwire.names.publish import (
    Own,
    Plan,
    Record,
    RecordSet,
    Unpublishable,
    missing,
    plan,
    read_published,
    records_of,
    write_published,
)
from hushwire.names.tlsa import TLSA, owner, write_fingerprint

NAME = "alice.example"
OLD, NEW, STRANGER = (PrivateKey.generate(KeyKind.ED25519).public for _ in range(3))
HERE, THERE = IPv4Address("192.0.2.1"), IPv4Address("192.0.2.2")
FOREIGN = (
    Record(NAME, A, IPv4Address("198.51.100.1").packed),
    Record(NAME, IPSECKEY, write_record(KeyRecord(10, None, STRANGER))),
    Record(owner(NAME), TLSA, write_fingerprint(STRANGER.fingerprint)),
)


class Zone:
    """RFC 2136 s3.2 and s3.4, as much as a plan uses: prerequisites in full, then changes, all or nothing."""

    def __init__(self, records: Iterable[Record] = (), ttl: int = 300) -> None:
        self.records = dict.fromkeys(records, ttl)

    def read(self) -> list[RecordSet]:
        return [
            RecordSet(name, rdtype, max(ttls.values(), default=0), frozenset(record.rdata for record in ttls))
            for name, rdtype in questions(NAME)
            for ttls in [{r: ttl for r, ttl in self.records.items() if (r.owner, r.rdtype) == (name, rdtype)}]
        ]

    def apply(self, plan: Plan) -> bool:
        message = plan.message()
        assert message.zone[0].name.to_text() == "example."
        required: dict[tuple[str, int], set[bytes]] = {}
        for rrset in message.prerequisite:
            name, rdtype = rrset.name.to_text(omit_final_dot=True), int(rrset.rdtype)
            if rrset.deleting == dns.rdataclass.NONE:
                required[name, rdtype] = set()
            else:
                assert rrset.ttl == 0, "RFC 2136 s2.4.2"
                required.setdefault((name, rdtype), set()).update(rdata.to_wire() for rdata in rrset)
        for (name, rdtype), rdatas in required.items():
            if {r.rdata for r in self.records if (r.owner, r.rdtype) == (name, rdtype)} != rdatas:
                return False
        for rrset in message.update:
            for rdata in rrset:
                record = Record(rrset.name.to_text(omit_final_dot=True), int(rrset.rdtype), rdata.to_wire())
                if rrset.deleting == dns.rdataclass.NONE:
                    self.records.pop(record, None)
                else:
                    assert rrset.deleting is None, "a whole set or name is never deleted"
                    self.records[record] = rrset.ttl
        return True


def planned(zone: Zone, wanted: tuple[Record, ...], own: Own | None = None, ttl: int | None = None) -> Plan:
    return plan("example", zone.read(), wanted, own or Own(), ttl)


def test_a_first_time() -> None:
    zone = Zone()
    wanted = records_of(NAME, [OLD], [HERE, IPv6Address("2001:db8::1")], fingerprints=True)
    first = planned(zone, wanted)
    assert zone.apply(first)
    assert zone.records == dict.fromkeys(wanted, 3600)
    assert not planned(zone, wanted).changes, "publishing again changes nothing"
    assert not planned(zone, wanted).prerequisites


def test_what_is_ours_is_replaced_and_what_is_not_stays() -> None:
    zone = Zone((*records_of(NAME, [OLD], [HERE], fingerprints=True), *FOREIGN))
    own = Own(frozenset({OLD.fingerprint}), frozenset({Record(NAME, A, HERE.packed)}))
    wanted = records_of(NAME, [NEW], [THERE], fingerprints=True)
    change = planned(zone, wanted, own)
    assert zone.apply(change)
    assert set(zone.records) == {*wanted, *FOREIGN}
    assert change.kept == tuple(record for record in FOREIGN if record.rdtype != A), "foreign keys are told of"


def test_without_knowing_what_is_ours_nothing_is_deleted() -> None:
    before = (*records_of(NAME, [OLD], [HERE]), *FOREIGN)
    zone = Zone(before)
    change = planned(zone, records_of(NAME, [NEW], [THERE]))
    assert not change.deletions
    assert zone.apply(change)
    assert set(before) < set(zone.records)
    assert Record(NAME, IPSECKEY, write_record(KeyRecord(10, None, OLD))) in change.kept


def test_our_key_in_another_record_is_ours() -> None:
    zone = Zone(records_of(NAME, [OLD, NEW]))
    assert zone.apply(planned(zone, records_of(NAME, [NEW]), Own(frozenset({OLD.fingerprint}))))
    assert set(zone.records) == set(records_of(NAME, [NEW])), "it moves from precedence 20 to 10"


def test_keys_for_the_switch_are_side_by_side() -> None:
    zone = Zone(records_of(NAME, [OLD]))
    assert zone.apply(planned(zone, records_of(NAME, [OLD, NEW])))
    assert set(zone.records) == set(records_of(NAME, [OLD, NEW]))


def test_withdrawing() -> None:
    zone = Zone((*records_of(NAME, [OLD], [HERE], fingerprints=True), *FOREIGN))
    own = Own(frozenset({OLD.fingerprint}), frozenset(records_of(NAME, [], [HERE])))
    assert zone.apply(planned(zone, (), own))
    assert set(zone.records) == set(FOREIGN)


@pytest.mark.parametrize("change", ["another comes", "it goes", "it becomes another"])
@pytest.mark.parametrize("rdtype", [A, IPSECKEY, TLSA])
def test_what_came_in_between_is_not_overwritten(change: str, rdtype: int) -> None:
    """And control: the same update without its prerequisites does overwrite, or brings a ghost back."""
    zone = Zone(records_of(NAME, [OLD], [HERE], fingerprints=True))
    own = Own(frozenset({OLD.fingerprint}), frozenset(records_of(NAME, [], [HERE])))
    late = planned(zone, records_of(NAME, [NEW], [THERE], fingerprints=True), own)
    if change != "another comes":
        zone.records = {record: ttl for record, ttl in zone.records.items() if record.rdtype != rdtype}
    if change != "it goes":
        zone.records |= {record: 300 for record in FOREIGN if record.rdtype == rdtype}
    before = dict(zone.records)
    assert not zone.apply(late)
    assert zone.records == before
    blind = Plan("example", (), late.deletions, late.additions, late.wanted, late.gone, late.kept)
    assert zone.apply(blind)
    assert zone.records != before


def test_what_appears_where_nothing_was() -> None:
    zone = Zone()
    late = planned(zone, records_of(NAME, [NEW], [HERE]))
    zone.records[FOREIGN[0]] = 300
    assert not zone.apply(late)
    assert set(zone.records) == {FOREIGN[0]}


def test_a_name_that_became_an_alias() -> None:
    """RFC 2136 s3.4.2.2: without this prerequisite the addition would be ignored, and NOERROR said."""
    text = planned(Zone(), records_of(NAME, [NEW], fingerprints=True)).message().to_text()
    assert f"{NAME}. NONE CNAME" in text
    assert f"{owner(NAME)}. NONE CNAME" in text


@pytest.mark.parametrize(
    ("others", "asked", "expected"), [((), None, 300), ((), 60, 60), (FOREIGN, None, 300), (FOREIGN, 60, 300)]
)
def test_ttl(others: tuple[Record, ...], asked: int | None, expected: int) -> None:
    """A set's TTL is ours to change only where the whole set is."""
    zone = Zone((*records_of(NAME, [OLD], [HERE]), *others))
    wanted = records_of(NAME, [OLD], [HERE, THERE])
    assert zone.apply(planned(zone, wanted, ttl=asked))
    assert {zone.records[record] for record in wanted} == {expected}
    assert {zone.records[record] for record in others} <= {300}


RECORDS = st.sets(
    st.sampled_from(
        (*records_of(NAME, [OLD, NEW], [HERE, THERE], fingerprints=True), *records_of(NAME, [NEW]), *FOREIGN)
    )
)


@given(RECORDS, RECORDS, RECORDS, st.sets(st.sampled_from([OLD.fingerprint, NEW.fingerprint])))
def test_any_zone(before: set[Record], wanted: set[Record], known: set[Record], keys: set[bytes]) -> None:
    zone, own = Zone(before), Own(frozenset(keys), frozenset(known))
    assert zone.apply(planned(zone, tuple(wanted), own))
    ours = {r for r in before if r in own or (r.fingerprint and r.fingerprint in {w.fingerprint for w in wanted})}
    assert set(zone.records) == wanted | (before - ours)
    assert not planned(zone, tuple(wanted), own).changes


def test_planning_blind_is_our_own_mistake() -> None:
    with pytest.raises(ValueError, match="without having read"):
        plan("example", [], records_of(NAME, [NEW]), Own())


def answers(*records: Record, outcome: Outcome = Outcome.SECURE) -> list[Answered]:
    sets = {
        (name, rdtype): tuple(r.rdata for r in records if (r.owner, r.rdtype) == (name, rdtype))
        for name, rdtype in questions(NAME)
    }
    return [
        Answered(1, name, rdtype, outcome if rdatas else Outcome.DENIED, rdatas)
        for (name, rdtype), rdatas in sets.items()
    ]


def test_read_back() -> None:
    zone = Zone((*records_of(NAME, [OLD], [HERE]), *FOREIGN))
    new = records_of(NAME, [NEW], [HERE])
    change = planned(zone, new, Own(frozenset({OLD.fingerprint})))
    assert missing(change, answers(*new, *FOREIGN)) == ()
    for seen, outcome, reason in (
        (records_of(NAME, [OLD], [HERE]), Outcome.SECURE, "IPSECKEY of alice.example: the new records are not seen"),
        (records_of(NAME, [NEW], [HERE]) + records_of(NAME, [OLD]), Outcome.SECURE, "old records are still seen"),
        (new, Outcome.INSECURE, "insecure"),
        (new, Outcome.ERROR, "error"),
        ((), Outcome.SECURE, "denied"),
    ):
        assert reason in "; ".join(missing(change, answers(*seen, outcome=outcome)))


def test_read_back_of_a_withdrawal() -> None:
    change = planned(Zone(records_of(NAME, [OLD])), (), Own(frozenset({OLD.fingerprint})))
    assert missing(change, answers()) == ()
    assert missing(change, answers(*FOREIGN)) == ()
    assert missing(change, answers(*records_of(NAME, [OLD])))


def test_what_was_published_is_written_and_read() -> None:
    records = frozenset(
        (*records_of(NAME, [OLD, NEW], [HERE, IPv6Address("2001:db8::1")], fingerprints=True), *FOREIGN)
    )
    assert read_published(write_published(records)) == records


@pytest.mark.parametrize("text", ["nonsense", "alice.example. MX 10 mail.example.", "alice.example. A 192.0.2.999"])
def test_what_is_not_published(text: str) -> None:
    with pytest.raises(Unpublishable):
        read_published(text)


def test_a_key_that_ipseckey_cannot_say() -> None:
    public = PrivateKey.generate(KeyKind.ECDSA_P521).public
    with pytest.raises(Unpublishable, match="fingerprint"):
        records_of(NAME, [public], fingerprints=True)
    (record,) = records_of(NAME, [public], whole=False, fingerprints=True)
    assert record.fingerprint == public.fingerprint


def test_types_have_one_number() -> None:
    assert [int(dns.rdatatype.from_text(text)) for text in ("A", "AAAA", "IPSECKEY", "TLSA")] == [
        A,
        AAAA,
        IPSECKEY,
        TLSA,
    ]
