"""Which exchange is answered in which state, exhaustively (ATTACKS row 5), and message IDs (RFC 7296 s2.1 to s2.3)."""

import hashlib
from ipaddress import ip_address
from typing import Any

import pytest

from hushwire.ike.report import Closed
from hushwire.ike.state import ANSWERED, TRANSITIONS, Input, State
from hushwire.ike.window import LAST_MESSAGE_ID, Window
from hushwire.wire.address import Endpoint
from hushwire.wire.message import Header, read_message, write_message
from hushwire.wire.payload import Authentication, Delete, IDi, Nonce, Notify, Unknown
from hushwire.wire.registry import AuthMethod, ExchangeType, IDType, NotifyType, PayloadType, ProtocolID

INFORMATIONAL, CREATE = ExchangeType.INFORMATIONAL, ExchangeType.CREATE_CHILD_SA
EXCHANGES = (*ExchangeType, ExchangeType(240), ExchangeType(255))

# --- the tables ---

LEADS_TO = {
    Input.KEYED: {State.INITIAL: State.HALF_OPEN},
    Input.AUTHENTICATED: {State.HALF_OPEN: State.ESTABLISHED},
    Input.REPLACED: {State.ESTABLISHED: State.REKEYED},
    Input.CLOSE: {state: State.CLOSED for state in State if state is not State.CLOSED},
}


@pytest.mark.parametrize("what", Input)
@pytest.mark.parametrize("state", State)
def test_every_transition(state: State, what: Input) -> None:
    assert TRANSITIONS.get((state, what)) is LEADS_TO[what].get(state)


def test_nothing_leads_out_of_closed_and_nothing_skips_authentication() -> None:
    assert not [pair for pair in TRANSITIONS if pair[0] is State.CLOSED]
    assert [pair for pair, to in TRANSITIONS.items() if to is State.ESTABLISHED] == [
        (State.HALF_OPEN, Input.AUTHENTICATED)
    ]


@pytest.mark.parametrize("state", State)
def test_what_is_answered(state: State) -> None:
    assert set(ANSWERED) == set(State)
    assert not ANSWERED[State.CLOSED]
    if state in (State.INITIAL, State.HALF_OPEN):
        assert not ANSWERED[state] & {CREATE, INFORMATIONAL}


# --- the matrix: each state of each role, each exchange, keyed or in clear ---


def reach(pair: Any, state: State, role: str) -> Any:
    """An IKE SA in a state: Alice's as initiator, Bob's as responder."""
    me = pair.alice if role == "initiator" else pair.bob
    sa = pair.initiate()
    if state is State.INITIAL:
        return sa
    if state is State.HALF_OPEN:
        pair.bob.held = []
        pair.deliver()
        return me.sa
    pair.deliver()
    sa = me.sa
    if state is State.REKEYED:
        sa._advance(Input.REPLACED)
    if state is State.CLOSED:
        sa.close("by the test")
        pair.collect()
    return sa


def speaker(pair: Any, sa: Any) -> Any:
    """The other end's view of the same IKE SA."""
    other = pair.bob if pair.peer_of(sa) is pair.alice else pair.alice
    return next((view for view in other.sas if (view.spi_i, view.spi_r) == (sa.spi_i, sa.spi_r)), None)


MATRIX = [
    (state, role)
    for state in State
    for role in ("initiator", "responder")
    if (state, role) != (State.INITIAL, "responder")
]


@pytest.mark.parametrize("response", [False, True])
@pytest.mark.parametrize("keyed", [False, True])
@pytest.mark.parametrize("exchange", EXCHANGES, ids=lambda exchange: str(int(exchange)))
@pytest.mark.parametrize(("state", "role"), MATRIX)
def test_every_exchange_in_every_state(
    pair: Any, state: State, role: str, exchange: ExchangeType, keyed: bool, response: bool
) -> None:
    sa = reach(pair, state, role)
    me, view = pair.peer_of(sa), speaker(pair, sa)
    if view is None and keyed:
        view = sa
    if state is State.HALF_OPEN:
        # Bob's Endpoint is in the midst of IKE_AUTH; the same must hold when it is not.
        me.held = None if role == "initiator" else me.held
    before = (sa.state, sa.window.expected, dict(sa.children))
    payloads = [Notify(NotifyType.INITIAL_CONTACT), Delete(ProtocolID.IKE)]
    number = sa.window.expected
    if response:
        number = sa.window.outstanding.message_id if sa.window.outstanding else 0
    if keyed and state is not State.INITIAL:
        data = pair.seal(view, exchange, payloads, response=response, message_id=number)
    else:
        header = Header(sa.spi_i, sa.spi_r, exchange, not sa.initiator, response, number)
        data = write_message(header, payloads)
    answers = [read_message(data) for data in pair.feed(me, data)]
    taken = keyed and not response and state in (State.ESTABLISHED, State.REKEYED) and exchange in ANSWERED[state]
    if taken:
        assert [answer.header.response for answer in answers] == [True]
        assert sa.window.expected == before[1] + 1
    else:
        assert not [answer for answer in answers if answer.header.response]
        # A keyed response to the outstanding IKE_AUTH is the one other thing that counts.
        awaited = keyed and response and sa.state is State.CLOSED
        assert awaited or (sa.state, sa.window.expected, dict(sa.children)) == before


@pytest.mark.parametrize("exchange", [ExchangeType.IKE_AUTH, ExchangeType.IKE_SA_INIT, CREATE, INFORMATIONAL])
def test_the_responder_asks_an_initiator_that_has_not_proved_it(pair: Any, exchange: ExchangeType) -> None:
    """A responder that nobody has authenticated has keys, and may say anything under them."""
    sa = reach(pair, State.HALF_OPEN, "initiator")
    payloads = [IDi(IDType.FQDN, b"bob.example"), Authentication(AuthMethod.DIGITAL_SIGNATURE, b"x")]
    sent = pair.feed(pair.alice, pair.seal(pair.bob.sa, exchange, payloads, message_id=0))
    assert not sent
    assert sa.state is State.HALF_OPEN


@pytest.mark.parametrize("role", ["initiator", "responder"])
@pytest.mark.parametrize("state", [State.HALF_OPEN, State.ESTABLISHED])
@pytest.mark.parametrize(
    "kind",
    [
        NotifyType.INVALID_IKE_SPI, NotifyType.INVALID_MAJOR_VERSION, NotifyType.INVALID_SYNTAX,
        NotifyType.INVALID_SPI, NotifyType.AUTHENTICATION_FAILED, NotifyType.NO_PROPOSAL_CHOSEN,
        NotifyType.UNSUPPORTED_CRITICAL_PAYLOAD,
    ],
)  # fmt: skip
def test_errors_in_clear_change_nothing(pair: Any, state: State, role: str, kind: NotifyType) -> None:
    """RFC 7296 s2.21.4 and ATTACKS row 63: what nobody has signed is a hint at most."""
    sa = reach(pair, state, role)
    me = pair.peer_of(sa)
    for exchange in (INFORMATIONAL, ExchangeType.IKE_AUTH, CREATE):
        for response in (False, True):
            number = sa.window.outstanding.message_id if response and sa.window.outstanding else sa.window.expected
            header = Header(sa.spi_i, sa.spi_r, exchange, not sa.initiator, response, number)
            assert not pair.feed(me, write_message(header, [Notify(kind)]))
    assert sa.state is state
    assert not me.told(Closed)


# --- message IDs ---


def test_an_answer_is_repeated_to_the_octet_and_only_for_the_same_octets(standing: Any) -> None:
    sa = standing.alice.sa
    request = standing.seal(sa, INFORMATIONAL)
    one = standing.feed(standing.bob, request)
    assert len(one) == 1
    for _ in range(3):
        assert standing.feed(standing.bob, request) == one
    # Validly sealed, with the same ID, but not the same octets.
    other = standing.seal(sa, INFORMATIONAL, [Notify(NotifyType.INITIAL_CONTACT)], message_id=sa.window.next_id)
    assert standing.feed(standing.bob, other) == []
    forged = request[:-1] + bytes([request[-1] ^ 1])
    assert standing.feed(standing.bob, forged) == []


@pytest.mark.parametrize("number", [0, 1, 3, 4, 1000, LAST_MESSAGE_ID])
def test_only_the_expected_message_id_is_taken(standing: Any, number: int) -> None:
    """ATTACKS row 23: Bob expects 2."""
    assert standing.bob.sa.window.expected == 2
    data = standing.seal(standing.alice.sa, INFORMATIONAL, [Delete(ProtocolID.IKE)], message_id=number)
    assert standing.feed(standing.bob, data) == []
    assert standing.bob.sa.window.expected == 2


@pytest.mark.parametrize("control", [False, True])
def test_an_old_request_replayed_deletes_nothing(standing: Any, control: bool, monkeypatch: Any) -> None:
    """ATTACKS row 23: a Delete that was answered long ago comes again."""
    pair = standing
    gone = pair.alice.child
    request = pair.seal(pair.alice.sa, INFORMATIONAL, [Delete(ProtocolID.ESP, (gone.spi_in,))])
    assert len(pair.feed(pair.bob, request)) == 1
    pair.alice.sa.window.next_id += 1
    pair.ask(pair.alice.sa, INFORMATIONAL)
    # As if another Child SA had got that SPI since.
    child = pair.alice.child
    pair.bob.sa.children[child.spi_out] = child.__class__(
        child.outbound, child.inbound, False, child.nonces, child.created, child.rekey_at
    )
    if control:
        monkeypatch.setattr(Window, "repeated", lambda *_: None)
        pair.bob.sa.window.expected = read_message(request).header.message_id
    pair.feed(pair.bob, request)
    assert bool(pair.bob.sa.children) is not control


def test_a_repetition_from_elsewhere_is_answered_there_and_moves_nothing(standing: Any) -> None:
    request = standing.seal(standing.alice.sa, INFORMATIONAL)
    standing.feed(standing.bob, request)
    before = standing.bob.sa.remote
    standing.feed(standing.bob, request, Endpoint(ip_address("198.51.100.66"), 9))
    assert standing.seen[-1][1].remote == Endpoint(ip_address("198.51.100.66"), 9)
    assert standing.bob.sa.remote == before


def test_an_answer_to_nothing_is_passed_over(standing: Any) -> None:
    for number in range(4):
        data = standing.seal(standing.bob.sa, INFORMATIONAL, [Delete(ProtocolID.IKE)], response=True, message_id=number)
        assert standing.feed(standing.alice, data) == []
    assert standing.alice.sa.state is State.ESTABLISHED


def test_one_request_at_a_time(standing: Any) -> None:
    """The window is 1: what else there is to ask waits (RFC 7296 s2.3)."""
    sa = standing.alice.sa
    standing.alice.endpoint.rekey(sa, standing.now, ike=False)
    standing.alice.endpoint.rekey(sa, standing.now, ike=True)
    standing.alice.endpoint.delete(sa, standing.now)
    standing.collect()
    assert len(standing.wire) == 1
    standing.deliver()
    assert not standing.alice.plane
    assert not standing.bob.plane


def test_while_a_request_is_being_answered_another_waits_outside(standing: Any) -> None:
    standing.bob.held = []
    standing.alice.endpoint.rekey(standing.alice.sa, standing.now, ike=False)
    standing.deliver()
    expected = standing.bob.sa.window.expected
    data = standing.seal(standing.alice.sa, INFORMATIONAL, message_id=expected)
    assert standing.feed(standing.bob, data) == []
    standing.release(standing.bob)
    standing.deliver()
    standing.agree()


def test_a_lost_answer_is_asked_for_again(standing: Any) -> None:
    lost: list[Any] = []

    def lose(sender: Any, send: Any) -> list[Any]:
        if sender is standing.bob and len(lost) < 2:
            lost.append(send)
            return []
        return [send]

    standing.filter = lose
    standing.alice.endpoint.rekey(standing.alice.sa, standing.now, ike=False)
    standing.deliver()
    standing.wait(10)
    assert len(lost) == 2
    assert lost[0] == lost[1]
    standing.agree()


def test_message_ids_end_before_they_repeat(standing: Any) -> None:
    """RFC 7296 s2.2: an IKE SA whose IDs are used up is closed."""
    sa = standing.alice.sa
    sa.window.next_id = standing.bob.sa.window.expected = LAST_MESSAGE_ID
    standing.wait(40)
    standing.alice.endpoint.rekey(sa, standing.now, ike=False)
    standing.deliver()
    standing.wait(200)
    assert sa.state is State.CLOSED
    assert not standing.alice.plane


# --- what is not understood ---


@pytest.mark.parametrize("critical", [False, True])
def test_an_unknown_payload(standing: Any, critical: bool) -> None:
    """RFC 7296 s2.5: only a critical one is refused, and the refusal names its type."""
    answer = standing.ask(standing.alice.sa, INFORMATIONAL, [Unknown(PayloadType(200), critical, b"?")])
    (refusal,) = answer.payloads if critical else (None,)
    assert not critical or (refusal.type, refusal.data) == (NotifyType.UNSUPPORTED_CRITICAL_PAYLOAD, b"\xc8")
    assert standing.bob.sa.state is State.ESTABLISHED


@pytest.mark.parametrize("plaintext", [(41, b"\0\0\0\3"), (41, b"\0\0\0\x08\1"), (42, b"\0\0\0\4"), (46, b"\0\0\0\4")])
def test_what_does_not_decode_inside_ends_the_sa(standing: Any, plaintext: tuple[int, bytes]) -> None:
    """RFC 7296 s2.21.3."""
    answer = standing.ask(standing.alice.sa, INFORMATIONAL, plaintext=plaintext)
    assert [notify.type for notify in answer.payloads] == [NotifyType.INVALID_SYNTAX]
    assert not standing.bob.sas
    assert not standing.bob.plane


def test_what_does_not_decode_in_an_answer_ends_the_sa(standing: Any) -> None:
    standing.alice.endpoint.rekey(standing.alice.sa, standing.now, ike=False)
    standing.collect()
    number = standing.alice.sa.window.outstanding.message_id
    data = standing.seal(standing.bob.sa, CREATE, response=True, message_id=number, plaintext=(41, b"\0\0\0\3"))
    standing.wire.clear()
    standing.feed(standing.alice, data)
    assert not standing.alice.sas
    assert not standing.alice.plane


@pytest.mark.parametrize("who", ["alice", "bob"])
def test_invalid_syntax_from_the_peer_ends_the_sa(standing: Any, who: str) -> None:
    """RFC 7296 s2.21.3: whoever says so has forgotten it already."""
    me = getattr(standing, who)
    view = speaker(standing, me.sa)
    for start in ("child", "ike"):
        me.endpoint.rekey(me.sa, standing.now, ike=start == "ike")
        standing.collect()
        number = me.sa.window.outstanding.message_id
        refusal = [Notify(NotifyType.INVALID_SYNTAX)]
        standing.wire.clear()
        standing.feed(me, standing.seal(view, CREATE, refusal, response=True, message_id=number))
        assert not me.sas
        assert not me.plane
        break


# --- reflection (ATTACKS row 15) ---


@pytest.mark.parametrize("control", [False, True])
def test_our_own_sealed_words_come_back(standing: Any, control: bool) -> None:
    pair = standing
    if control:
        # Without the I flag and with one key for both directions, as some have had it.
        sa = pair.alice.sa
        sa._protection._open = pair._cipher(sa, True)
    data = pair.seal(pair.alice.sa, INFORMATIONAL, [Delete(ProtocolID.IKE)], message_id=0, initiator=control is False)
    pair.feed(pair.alice, data)
    assert bool(pair.alice.sas) is not control


def test_the_kept_digest_is_of_the_whole_datagram() -> None:
    window = Window()
    window.accept(b"one")
    window.respond(b"answer")
    assert window.repeated(0, b"one") == b"answer"
    assert window.repeated(0, b"two") is None
    assert window.repeated(1, b"one") is None
    assert hashlib.blake2b(b"one", digest_size=16).digest() == window._answered


def test_nonces_of_ours_are_never_the_same(pair: Any) -> None:
    host = pair.alice.endpoint._host
    assert len({Nonce(host.new_nonce()) for _ in range(100)}) == 100
