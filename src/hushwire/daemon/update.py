"""DNS Update on the wire: find the primary, read what is there, send, and see that it is published (RFC 2136).

Reading is not authenticated, and need not be: names.publish makes all that was read a prerequisite.  What counts at the
end is what a validator sees, whatever the server said.
"""

import socket
import time
from collections.abc import Collection
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

from hushwire.daemon.credential import Credential, Sig0
from hushwire.daemon.resolver import resolve
from hushwire.daemon.unbound import Configuration, UnboundError
from hushwire.events import Answered, Lookup, Outcome
from hushwire.names.binding import AAAA, TYPE_NAMES, A, questions
from hushwire.names.name import BadName, read_name
from hushwire.names.publish import Own, Plan, Record, RecordSet, missing, plan
from hushwire.wire.address import IPAddress, address_from_octets


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
        address, at, port = text.partition("@")
        if at and not (port.isdecimal() and 0 < int(port) < 65536):
            raise ValueError(f"{port!a} is no port")
        return cls(ip_address(address), int(port or 53))

    def __str__(self) -> str:
        return f"{self.address}@{self.port}"


@dataclass(frozen=True, slots=True)
class Primary:
    """A zone's primary server and all that it takes to change the zone there."""

    server: Server
    credential: Credential | None
    """None: nothing is ever sent."""
    configuration: Configuration
    """Of the validator that has the last word."""
    zone: str | None = None
    """None: the server is asked."""
    timeout: float = 5.0
    """Seconds for each question and for the update."""
    patience: float = 60.0
    """Seconds until what was published must be seen."""
    udp: bool = False

    def plan(self, name: str, wanted: Collection[Record], own: Own, ttl: int | None = None) -> Plan:
        """Read what is there, and plan so that of what is ours `wanted` is there."""
        zone = self.zone or zone_of(self.server, name, self.timeout)
        return plan(zone, read_sets(self.server, name, self.timeout), wanted, own, ttl)

    def publish(self, plan: Plan) -> None:
        """Carry a plan out and see that it is published; or UpdateError."""
        # A validator that cannot be had is found out now, while nothing has been done.
        validated(self.configuration, [])
        if plan.changes:
            if self.credential is None:
                raise UpdateError("there is no key to sign the update with; say --tsig or --sig0")
            try:
                send(self.server, plan, self.credential, self.timeout, self.udp)
            except Changed as changed:
                raise Changed(f"{changed}; {self._what_changed(plan)}") from None
            self._check_done(plan)
        read_back(plan, self.configuration, self.patience)

    def _check_done(self, plan: Plan) -> None:
        """A server that said yes may still have left records out that its policy forbids: PowerDNS does.

        One that signs a copy of the zone (BIND's inline-signing) shows the change a moment later.
        """
        end = time.monotonic() + self.timeout
        while left := [was for was in plan.prerequisites if not self._is_done(plan, was)]:
            if time.monotonic() + AGAIN >= end:
                raise UpdateError(
                    f"{self.server}: said NOERROR and left {TYPE_NAMES[left[0].rdtype]} of {left[0].owner} as it was; "
                    f"grant {self.credential} that name and type"
                )
            time.sleep(AGAIN)

    def _is_done(self, plan: Plan, was: RecordSet) -> bool:
        now = _read_set(self.server, was.owner, was.rdtype, self.timeout)
        there = {Record(was.owner, was.rdtype, rdata) for rdata in now.rdatas}
        added = {record for record, _ in plan.additions if (record.owner, record.rdtype) == (was.owner, was.rdtype)}
        return added <= there and not (set(plan.deletions) - added) & there

    def _what_changed(self, plan: Plan) -> str:
        for was in plan.prerequisites:
            now = _read_set(self.server, was.owner, was.rdtype, self.timeout)
            if now.rdatas != was.rdatas:
                records = ", ".join(str(Record(was.owner, was.rdtype, rdata)) for rdata in sorted(now.rdatas))
                what = f"{TYPE_NAMES[was.rdtype]} of {was.owner}"
                return f"{what} is now: {records or 'none'}; nothing was changed, run it again"
        return "it answers questions from elsewhere (a view, a wildcard, another primary); nothing was changed"


def find_primary(name: str, configuration: Configuration) -> Server:
    """The server that the SOA record of the zone of `name` names first (RFC 2136 s4.3).

    The SOA and the server's address are validated: nobody draws our updates elsewhere.
    """
    zone = name
    while zone:
        (answer,) = validated(configuration, [Lookup(SOA, zone, SOA)])
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
    found = validated(configuration, [Lookup(rdtype, mname, rdtype) for rdtype in (AAAA, A)])
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
    return tuple(_read_set(server, owner, rdtype, timeout) for owner, rdtype in questions(name))


def send(server: Server, plan: Plan, credential: Credential, timeout: float = 5.0, udp: bool = False) -> None:
    """Have the server change the zone as planned, or raise UpdateError and, if nothing else is said, it did not.

    It is sent once.  Were it repeated because a response was lost, its own work would fail its prerequisites.
    """
    message = plan.message()
    octets = _exchange(server, credential.sign(message), timeout, udp)
    # RFC 2136 s2.2: the same ID, QR set, the same opcode.
    if len(octets) < 12 or octets[:2] != message.id.to_bytes(2, "big") or octets[2] & 0xF8 != 0x80 | UPDATE << 3:
        raise UpdateError(f"{server}: the response is to another message; {NOT_KNOWN}")
    rcode = dns.rcode.Rcode(octets[3] & 0x0F)
    try:
        dns.message.from_wire(octets, keyring=message.keyring, request_mac=message.mac)
    except dns.tsig.PeerError as error:
        raise UpdateError(f"{server}: {_tsig_fault(error, credential)}") from None
    except (dns.exception.DNSException, ValueError) as error:
        # RFC 8945 s5.3: an unsigned response to a signed request is nobody's.  But some servers do not sign when they
        # refuse, and somebody on the path who says no gains nothing over one who drops the packet.
        if rcode == dns.rcode.NOERROR:
            reason = f"its response is not signed as {credential} should ({type(error).__name__})"
            raise UpdateError(f"{server}: {reason}; {NOT_KNOWN}") from None
    if rcode in PREREQUISITES:
        raise Changed(f"{server}: {dns.rcode.to_text(rcode)}: what is there is not what was read")
    if rcode != dns.rcode.NOERROR:
        texts = RCODES | SIG0_RCODES if isinstance(credential, Sig0) else RCODES
        what = texts.get(rcode, "the server's log tells more").format(credential=credential, zone=plan.zone)
        raise UpdateError(f"{server}: {dns.rcode.to_text(rcode)}: {what}")


def read_back(plan: Plan, configuration: Configuration, patience: float) -> None:
    """Ask through the validator until the plan's records are SECURE, `patience` seconds at most; or UpdateError."""
    asked = [
        Lookup(number, owner, rdtype)
        for number, (owner, rdtype) in enumerate(
            dict.fromkeys((record.owner, record.rdtype) for record in (*plan.wanted, *plan.gone))
        )
    ]
    end, pause = time.monotonic() + patience, AGAIN
    while True:
        faults = missing(plan, validated(configuration, asked))
        if not faults:
            return
        if time.monotonic() + pause >= end:
            raise UpdateError(f"not seen within {patience:g} s: {'; '.join(faults)}")
        time.sleep(pause)
        pause = min(2 * pause, LONGEST_PAUSE)


def validated(configuration: Configuration, questions: list[Lookup]) -> list[Answered]:
    """The answers to questions, in their order; each with its outcome.  UpdateError: they could not be asked."""
    try:
        return resolve(configuration, questions)
    except UnboundError as error:
        raise UpdateError(str(error)) from None


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
    try:
        response = dns.message.from_wire(_exchange(server, query.to_wire(), timeout, udp=False))
    except (dns.exception.DNSException, ValueError) as error:
        raise UpdateError(f"{server}: its answer cannot be read ({type(error).__name__})") from None
    if not query.is_response(response):
        raise UpdateError(f"{server}: the response is to another question")
    rcode = response.rcode()
    if rcode not in (dns.rcode.NOERROR, dns.rcode.NXDOMAIN):
        raise UpdateError(f"{server}: asked for {name}: {dns.rcode.to_text(rcode)}; {NOT_PRIMARY}")
    if not response.flags & dns.flags.AA:
        raise UpdateError(f"{server}: has no authority over {name}; {NOT_PRIMARY}")
    return response


def _exchange(server: Server, octets: bytes, timeout: float, udp: bool) -> bytes:
    """One message there, one back, within `timeout` seconds in all."""
    kind, end = socket.SOCK_DGRAM if udp else socket.SOCK_STREAM, time.monotonic() + timeout
    family = socket.AF_INET if server.address.version == 4 else socket.AF_INET6
    try:
        with socket.socket(family, kind) as sock:
            sock.settimeout(timeout)
            # A connected UDP socket takes datagrams from this server only.
            sock.connect((str(server.address), server.port))
            if udp:
                sock.sendall(octets)
                return sock.recv(65535)
            # RFC 1035 s4.2.2: two octets of length come first.
            sock.sendall(len(octets).to_bytes(2, "big") + octets)
            return _read(sock, int.from_bytes(_read(sock, 2, end), "big"), end)
    except TimeoutError:
        raise UpdateError(f"{server}: no answer within {timeout:g} s") from None
    except EOFError:
        raise UpdateError(f"{server}: closed the connection without an answer") from None
    except OSError as error:
        raise UpdateError(f"{server}: {error.strerror or error}") from None


def _read(sock: socket.socket, size: int, end: float) -> bytes:
    octets = b""
    while len(octets) < size:
        if (left := end - time.monotonic()) <= 0:
            raise TimeoutError
        sock.settimeout(left)
        if not (more := sock.recv(size - len(octets))):
            raise EOFError
        octets += more
    return octets


def _tsig_fault(error: dns.tsig.PeerError, credential: Credential) -> str:
    """RFC 8945 s5.2: why the server did not take the signature."""
    for kind, text in TSIG_FAULTS.items():
        if isinstance(error, kind):
            return text.format(credential=credential)
    return f"it did not take {credential}'s signature ({type(error).__name__})"


SOA, UPDATE = 6, 5
AGAIN, LONGEST_PAUSE = 0.25, 5.0
"""Seconds until a validator is asked again: at first, doubled each time, and at most."""

PREREQUISITES = (dns.rcode.NXRRSET, dns.rcode.YXRRSET, dns.rcode.NXDOMAIN, dns.rcode.YXDOMAIN)
"""RFC 2136 s3.2: a prerequisite does not hold."""

NOT_KNOWN = "whether anything was changed is not known"
NOT_PRIMARY = "is it the zone's primary server?"

RCODES = {
    dns.rcode.FORMERR: "the server does not understand the update",
    dns.rcode.SERVFAIL: "the server could not read the update, or write or sign the zone; its log tells more.  "
    "PowerDNS 4.7 fails so at keys in IPSECKEY that are not RSA: publish the fingerprint alone",
    dns.rcode.NOTIMP: "the server takes no updates; switch them on for {zone}, or say the primary with --server",
    dns.rcode.REFUSED: "{credential} may not change these records of {zone}; grant it the name and the types "
    "A, AAAA, IPSECKEY and TLSA (PowerDNS says the same of a wrong secret and of a key it does not know)",
    dns.rcode.NOTAUTH: "the server is not the primary of {zone}, or does not know {credential}; "
    "say the primary with --server, and give the server the key",
    dns.rcode.NOTZONE: "a name is not in {zone}; say its zone with --zone",
}
"""RFC 2136 s2.2: in plain words, with what would be right."""

SIG0_RCODES = {
    dns.rcode.SERVFAIL: "the zone may lack the KEY record of {credential.name}, or have another key's: BIND 9.20 then "
    "logs 'request has invalid signature'; or the server could not write or sign the zone",
    dns.rcode.REFUSED: "{credential} may not change these records of {zone}; grant it the name and the types A, AAAA, "
    "IPSECKEY and TLSA; of BIND 9.18, only versions before 9.18.28 take SIG(0), and 9.20 does again (CVE-2024-1975)",
}
"""What is said otherwise of an update with SIG(0), which PowerDNS does not have."""

TSIG_FAULTS: dict[type[dns.tsig.PeerError], str] = {
    dns.tsig.PeerBadKey: "BADKEY: it does not know {credential}, or, being Knot, does not let it change "
    "these records; configure it there by just this name and algorithm, and for this owner and these types",
    dns.tsig.PeerBadSignature: "BADSIG: its secret for {credential} is another; copy the key file again",
    dns.tsig.PeerBadTime: "BADTIME: its clock and this host's are more than 5 minutes apart; set them right",
    dns.tsig.PeerBadTruncation: "BADTRUNC: it wants a longer MAC",
}
