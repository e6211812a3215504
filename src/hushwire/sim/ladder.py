"""sim: what went over a world's wire, as the RFCs draw exchanges (RFC 7296 s1.2), read with the hosts' own keys."""

from collections.abc import Sequence

from hushwire.crypto.cipher import IkeCipher
from hushwire.entropy import SeededEntropy
from hushwire.sim.host import Host, IkeView
from hushwire.sim.world import Frame, World
from hushwire.wire import esp, udp
from hushwire.wire.message import Message, read_message, read_payloads
from hushwire.wire.payload import (
    Authentication,
    Certificate,
    CertificateRequest,
    Delete,
    Encrypted,
    KeyExchange,
    Nonce,
    Notify,
    Payload,
    SecurityAssociation,
)  # fmt: skip
from hushwire.wire.registry import ExchangeType, ProtocolID

LETTERS = "abcdefghijklmnopqrstuvwxyz"
INDENT = 24 * " "
"""Before what the host on the right sends, as in the RFCs."""


def ladder(world: World, left: Host, right: Host) -> str:
    """Everything between two hosts, a line each: time, IKE SA, exchange and message ID, payloads, and which way."""
    views = left.views | right.views
    lines = [f"{left.name}  -->  {right.name}"]
    events: list[tuple[float, str | Frame]] = [*world.remarks, *((frame.time, frame) for frame in world.wire)]
    seen: set[bytes] = set()
    sas: dict[bytes, str] = {}
    for time, event in sorted(events, key=lambda event: event[0]):
        if isinstance(event, str):
            lines.append(f"{time:9.3f}  -- {event} --")
            continue
        title, text = _told(event, views, sas)
        again = " (again)" if event.data in seen else ""
        seen.add(event.data)
        lines.append(f"{time:9.3f}  {title:<19}{_drawn(text + again, event, left)}")
    return "\n".join(lines) + "\n"


def _drawn(text: str, frame: Frame, left: Host) -> str:
    """The text with its arrow; x where it got lost, and twice the head where it came twice."""
    head = {0: "x", 1: ">", 2: ">>"}[min(frame.copies, 2)]
    if frame.sender == left.name:
        return f"{text}  --{head}"
    return f"{INDENT}{head.replace('>', '<')}--  {text}"


def _told(frame: Frame, views: dict[tuple[bytes, bytes], IkeView], sas: dict[bytes, str]) -> tuple[str, str]:
    """Title and text.  `sas` gives each IKE SA a letter, by its initiator's SPI."""
    if frame.clear:
        return "  clear", f"{len(frame.data)} octets"
    data = frame.data
    if frame.source.port == udp.NAT_PORT:
        if udp.classify(data) is udp.Traffic.ESP:
            return f"  ESP {esp.read_header(data).sequence}", f"{len(data)} octets"
        data = data[len(udp.NON_ESP_MARKER) :]
    message = read_message(data)
    header = message.header
    letter = sas.setdefault(header.spi_i, LETTERS[len(sas) % len(LETTERS)])
    title = f"{letter} {TITLES.get(header.exchange, header.exchange.name)} {header.message_id}"
    sealed = message.payloads[-1] if message.payloads else None
    if not isinstance(sealed, Encrypted):
        return title, ", ".join(["HDR", *_names(message, message.payloads)])
    view = views[header.spi_i, header.spi_r]
    inner = read_payloads(sealed.first, open_sealed(view, message))
    return title, f"HDR, SK {{{', '.join(_names(message, inner))}}}"


def open_sealed(view: IkeView, message: Message) -> bytes:
    """The octets inside SK."""
    sealed = message.payloads[-1]
    assert isinstance(sealed, Encrypted)
    keys = (view.keys.ei, view.keys.ai) if message.header.initiator else (view.keys.er, view.keys.ar)
    return IkeCipher(view.suite, *keys, SeededEntropy(b"")).open(message.associated, sealed.body)


def _names(message: Message, payloads: Sequence[Payload]) -> list[str]:
    return [_name(message, payload) for payload in payloads]


def _name(message: Message, payload: Payload) -> str:
    """A payload as RFC 7296 s1.2 calls it."""
    header = message.header
    end = "r" if header.response else "i"
    match payload:
        case SecurityAssociation():
            return "SA" + {ExchangeType.IKE_SA_INIT: f"{end}1", ExchangeType.IKE_AUTH: f"{end}2"}.get(
                header.exchange, ""
            )
        case KeyExchange():
            return f"KE{end}"
        case Nonce():
            return f"N{end}"
        case Certificate():
            return "CERT"
        case CertificateRequest():
            return "CERTREQ"
        case Authentication():
            return "AUTH"
        case Notify():
            return f"N({payload.type.name})"
        case Delete():
            return "D" if payload.protocol == ProtocolID.IKE else f"D({payload.protocol.name})"
    return type(payload).__name__


TITLES = {ExchangeType.CREATE_CHILD_SA: "CREATE_CHILD", ExchangeType.INFORMATIONAL: "INFORMATIONAL"}
