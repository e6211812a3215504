"""DNS Update on the wire: find the primary, read what is there, send, and see that it is published (RFC 2136).

Reading is not authenticated, and need not be: names.publish makes all that was read a prerequisite.  What counts at the
end is what a validator sees, whatever the server said.
"""

import socket
import time
from collections.abc import Iterable
from contextlib import closing
from dataclasses import dataclass
from ipaddress import ip_address

import dns.exception
import dns.flags
import dns.message
import dns.name
import dns.query
import dns.rcode
import dns.rdatatype
import dns.rrset
import dns.tsig

from hushwire.daemon.credential import Credential, Tsig
from hushwire.daemon.resolver import resolve
from hushwire.daemon.unbound import Configuration, UnboundError
from hushwire.events import Answered, Lookup, Outcome
from hushwire.names.binding import AAAA, A
from hushwire.names.name import BadName, read_name
from hushwire.names.publish import TYPES, Plan, RecordSet, missing, sets_of
from hushwire.wire.address import IPAddress, address_from_octets

SOA = 6
AGAIN = 0.25
"""Seconds until a validator is asked again; doubled each time, up to LONGEST_PAUSE."""
LONGEST_PAUSE = 5.0


class UpdateError(Exception):
    """Nothing was changed, or it cannot be seen; one clear line."""


class Changed(UpdateError):
    """A prerequisite does not hold: what is there is not what was read.  Nothing was changed."""


@dataclass(frozen=True, slots=True)
class Server:
    """Where a zone's primary server listens."""

    address: IPAddress
    port: int = 53

    @classmethod
    def read(cls, text: str) -> "Server":
        """From ADDRESS or ADDRESS@PORT; or ValueError."""
        address, _, port = text.partition("@")
        if port and not (port.isdecimal() and 0 < int(port) < 65536):
            raise ValueError(f"{port!a} is no port")
        return cls(ip_address(address), int(port or 53))

    def __str__(self) -> str:
        return f"{self.address}@{self.port}"


def find_primary(name: str, configuration: Configuration) -> Server:
    """The server that the SOA record of the zone of `name` names first (RFC 2136 s4.3).

    The SOA and the server's address are validated: nobody draws our updates elsewhere.
    """
    zone = name
    while zone:
        (answer,) = _resolve(configuration, [Lookup(SOA, zone, SOA)])
        if answer.outcome is Outcome.SECURE and answer.rdata:
            break
        if answer.outcome in (Outcome.ERROR, Outcome.INSECURE):
            because = answer.reason or "its zone is not signed, and unsigned keys are of no use"
            raise UpdateError(f"SOA of {zone}: {because}; or say the server with --server")
        zone = zone.partition(".")[2]
    else:
        raise UpdateError(f"no zone of {name} is known; say the server with --server")
    try:
        mname = read_name(answer.rdata[0])[0]
    except BadName as bad:
        raise UpdateError(f"the primary server of {zone}: {bad}; say it with --server") from None
    found = _resolve(configuration, [Lookup(rdtype, mname, rdtype) for rdtype in (AAAA, A)])
    for answer in found:
        if answer.outcome is Outcome.SECURE:
            return Server(address_from_octets(answer.rdata[0]))
    raise UpdateError(f"{mname}, the primary server of {zone}, has no secure address; say it with --server")


def zone_of(server: Server, name: str, timeout: float = 5.0) -> str:
    """The zone of the server that holds `name`."""
    response = _ask(server, name, SOA, timeout)
    for rrset in (*response.answer, *response.authority):
        # RFC 2308 s3: a denial carries the SOA of the zone that speaks.
        if rrset.rdtype == dns.rdatatype.SOA and dns.name.from_text(name).is_subdomain(rrset.name):
            return rrset.name.canonicalize().to_text(omit_final_dot=True)
    raise UpdateError(f"{server}: does not say which zone holds {name}; it should be its primary server")


def read_sets(server: Server, name: str, timeout: float = 5.0) -> tuple[RecordSet, ...]:
    """All that publishing `name` may change, as the server has it now."""
    return tuple(_read_set(server, owner, rdtype, timeout) for owner, rdtype in sets_of(name))


def send(server: Server, plan: Plan, credential: Credential, timeout: float = 5.0, udp: bool = False) -> None:
    """Change the zone as planned, or raise UpdateError and have changed nothing.

    It is sent once.  Were it repeated because a response was lost, its own work would fail its prerequisites.
    """
    message = plan.message()
    octets = credential.sign(message)
    try:
        response = _exchange(server, octets, message, timeout, udp)
    except dns.tsig.PeerError as error:
        raise UpdateError(f"{server}: {_tsig_fault(error, credential)}") from None
    except (dns.tsig.BadSignature, dns.tsig.BadTime, dns.message.UnknownTSIGKey) as error:
        raise UpdateError(
            f"{server}: its response is not signed as {credential} should ({type(error).__name__}); "
            "whether anything was changed is not known"
        ) from None
    if response.id != message.id or response.opcode() != message.opcode():
        raise UpdateError(f"{server}: the response is to another message; whether anything was changed is not known")
    rcode = response.rcode()
    if rcode in (dns.rcode.NXRRSET, dns.rcode.YXRRSET, dns.rcode.NXDOMAIN, dns.rcode.YXDOMAIN):
        raise Changed(f"{server}: {dns.rcode.to_text(rcode)}: what is there has changed since it was read")
    if rcode != dns.rcode.NOERROR:
        what = RCODES.get(rcode, "the server's log tells more").format(credential=credential, zone=plan.zone)
        raise UpdateError(f"{server}: {dns.rcode.to_text(rcode)}: {what}")
    # RFC 8945 s5.3: a response without TSIG to a request with it is nobody's.  RFC 2931 asks for none, and the
    # validator has the last word anyhow.
    if isinstance(credential, Tsig) and not response.had_tsig:
        raise UpdateError(f"{server}: its response is not signed; whether anything was changed is not known")


def read_back(plan: Plan, configuration: Configuration, patience: float) -> None:
    """Ask through the validator until the plan's records are SECURE, `patience` seconds at most; or UpdateError."""
    questions = [
        Lookup(number, owner, rdtype)
        for number, (owner, rdtype) in enumerate(
            dict.fromkeys((record.owner, record.rdtype) for record in (*plan.wanted, *plan.gone))
        )
    ]
    end, pause = time.monotonic() + patience, AGAIN
    while True:
        faults = missing(plan, _resolve(configuration, questions))
        if not faults:
            return
        if time.monotonic() + pause >= end:
            raise UpdateError(f"not seen within {patience:g} s: {'; '.join(faults)}")
        time.sleep(pause)
        pause = min(2 * pause, LONGEST_PAUSE)


def differences(before: Iterable[RecordSet], after: Iterable[RecordSet]) -> tuple[str, ...]:
    """The sets that are not as they were, as they are now, a line each."""
    old = {(there.owner, there.rdtype): there for there in before}
    return tuple(
        f"{TYPES[there.rdtype]} of {there.owner} has {len(there.rdatas)} records now, not those that were read"
        for there in after
        if old[there.owner, there.rdtype].rdatas != there.rdatas
    )


def _read_set(server: Server, owner: str, rdtype: int, timeout: float) -> RecordSet:
    response = _ask(server, owner, rdtype, timeout)
    name, wanted = dns.name.from_text(owner), dns.rdatatype.RdataType(rdtype)
    answers: dict[tuple[int, int], dns.rrset.RRset] = {
        (rrset.rdtype, rrset.covers): rrset for rrset in response.answer if rrset.name == name
    }
    if (dns.rdatatype.CNAME, dns.rdatatype.NONE) in answers:
        raise UpdateError(f"{owner} is an alias (CNAME): publish under the name that it leads to")
    found = answers.get((wanted, dns.rdatatype.NONE))
    signatures = answers.get((dns.rdatatype.RRSIG, wanted))
    # RFC 4034 s3.1.3: fewer labels than the owner has say that a wildcard was expanded, and nothing is at the owner.
    if found is None or any(rrsig.labels < len(name) - 1 for rrsig in signatures or ()):
        return RecordSet(owner, rdtype)
    return RecordSet(owner, rdtype, found.ttl, frozenset(rdata.to_wire() or b"" for rdata in found))


def _ask(server: Server, name: str, rdtype: int, timeout: float) -> dns.message.Message:
    """An authoritative answer."""
    query = dns.message.make_query(f"{name}.", dns.rdatatype.RdataType(rdtype), want_dnssec=True, flags=0)
    response = _exchange(server, query.to_wire(), query, timeout, udp=False)
    if not query.is_response(response):
        raise UpdateError(f"{server}: the response is to another question")
    rcode = response.rcode()
    if rcode not in (dns.rcode.NOERROR, dns.rcode.NXDOMAIN):
        raise UpdateError(f"{server}: asked for {name}: {dns.rcode.to_text(rcode)}; {NOT_PRIMARY}")
    if not response.flags & dns.flags.AA:
        raise UpdateError(f"{server}: has no authority over {name}; {NOT_PRIMARY}")
    return response


def _exchange(
    server: Server, octets: bytes, message: dns.message.Message, timeout: float, udp: bool
) -> dns.message.Message:
    """One message there, one back, within `timeout` seconds in all."""
    expiration, where = time.time() + timeout, (str(server.address), server.port)
    try:
        if udp:
            family = socket.AF_INET if server.address.version == 4 else socket.AF_INET6
            with socket.socket(family, socket.SOCK_DGRAM) as sock:
                sock.setblocking(False)
                sock.connect(where)
                sock.send(octets)
                response, _, _ = dns.query.receive_udp(
                    sock, None, expiration, keyring=message.keyring, request_mac=message.mac
                )
                assert isinstance(response, dns.message.Message)
                return response
        with closing(socket.create_connection(where, timeout)) as sock:
            sock.setblocking(False)
            dns.query.send_tcp(sock, octets, expiration)
            return dns.query.receive_tcp(sock, expiration, keyring=message.keyring, request_mac=message.mac)[0]
    except (TimeoutError, dns.exception.Timeout):
        raise UpdateError(f"{server}: no answer within {timeout:g} s") from None
    except EOFError:
        raise UpdateError(f"{server}: closed the connection without an answer") from None
    except OSError as error:
        raise UpdateError(f"{server}: {error.strerror or error}") from None
    except (dns.tsig.PeerError, dns.tsig.BadSignature, dns.tsig.BadTime, dns.message.UnknownTSIGKey):
        raise
    except (dns.exception.DNSException, ValueError) as error:
        raise UpdateError(f"{server}: its answer cannot be read ({type(error).__name__})") from None


def _resolve(configuration: Configuration, questions: list[Lookup]) -> list[Answered]:
    try:
        return resolve(configuration, questions)
    except UnboundError as error:
        raise UpdateError(str(error)) from None


def _tsig_fault(error: dns.tsig.PeerError, credential: Credential) -> str:
    """RFC 8945 s5.2: why the server did not take the signature."""
    for kind, text in TSIG_FAULTS.items():
        if isinstance(error, kind):
            return text.format(credential=credential)
    return f"it did not take {credential}'s signature ({type(error).__name__})"


NOT_PRIMARY = "is it the zone's primary server?"

RCODES = {
    dns.rcode.FORMERR: "the server does not understand the update",
    dns.rcode.SERVFAIL: "the server could not read the update, or write or sign the zone; its log tells more.  "
    "PowerDNS 4.7 fails so at keys in IPSECKEY that are not RSA: publish the fingerprint alone",
    dns.rcode.NOTIMP: "the server takes no updates; switch them on for {zone}, or say the primary with --server",
    dns.rcode.REFUSED: "{credential} may not change these records of {zone}; grant it the name and the types "
    "A, AAAA, IPSECKEY and TLSA",
    dns.rcode.NOTAUTH: "the server is not the primary of {zone}, or does not know {credential}; "
    "say the primary with --server, and give the server the key",
    dns.rcode.NOTZONE: "a name is not in {zone}; say its zone with --zone",
}
"""RFC 2136 s2.2: in plain words, with what would be right."""

TSIG_FAULTS: dict[type[dns.tsig.PeerError], str] = {
    dns.tsig.PeerBadKey: "BADKEY: it does not know {credential}; configure it there by just this name and algorithm",
    dns.tsig.PeerBadSignature: "BADSIG: its secret for {credential} is another; copy the key file again",
    dns.tsig.PeerBadTime: "BADTIME: its clock and this host's are more than 5 minutes apart; set them right",
    dns.tsig.PeerBadTruncation: "BADTRUNC: it wants a longer MAC",
}
