"""The two closed vocabularies of a Node: Event (what happens) and Effect (what is asked).

Whoever has read this file knows what a host can be told and what it can do.  Every value is frozen and of plain
types, so that the channel between processes, the flight recorder and the fuzzer need no other surface.
`request` fields tie an answer to its question; a Node numbers them itself, from 1.
"""

from dataclasses import dataclass
from enum import Enum

from hushwire.policy.assurance import Assurance
from hushwire.policy.known import Known
from hushwire.policy.sad import SA, Direction, SAName
from hushwire.policy.selector import Flow, Selector
from hushwire.policy.spd import Policy
from hushwire.policy.trust import Trusted
from hushwire.wire.address import Endpoint, IPAddress, IPNetwork

# --- Events: what happens -------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Timeout:
    """The deadline the Node gave has come."""


@dataclass(frozen=True, slots=True)
class Datagram:
    """An IKE message arrived.  On port 4500 the non-ESP marker (RFC 3948 s2.2) is already taken off."""

    local: Endpoint
    remote: Endpoint
    data: bytes


@dataclass(frozen=True, slots=True)
class Acquire:
    """A packet matched a PROTECT policy that has no SA (RFC 2367 s3.1.6's ACQUIRE)."""

    flow: Flow
    reqid: int
    """Of the policy that matched."""
    sequence: int
    """To be put into SA.acquire, so that the plane finds the packets it holds; 0: none held."""


@dataclass(frozen=True, slots=True)
class Expire:
    """A lifetime of an SA has passed in the plane."""

    sa: SAName
    hard: bool
    """False: replace it soon.  True: the plane has already dropped it."""


@dataclass(frozen=True, slots=True)
class Mapping:
    """A valid ESP-in-UDP packet came from a new address or port (RFC 3948, RFC 7296 s2.23)."""

    sa: SAName
    remote: Endpoint


@dataclass(frozen=True, slots=True)
class Installed:
    """A plane did what the InstallSA or InstallPolicy of that number asked."""

    request: int


@dataclass(frozen=True, slots=True)
class Refused:
    """The guard or the plane did not do what the request of that number asked."""

    request: int
    reason: str
    """One line, for people."""


@dataclass(frozen=True, slots=True)
class Signed:
    """The keeper's answer to Sign."""

    request: int
    signature: bytes


class Outcome(Enum):
    """The four outcomes of a DNS question (DESIGN.md law 3)."""

    SECURE = "secure"
    """Validated records."""
    DENIED = "denied"
    """A validated proof that there are none."""
    INSECURE = "insecure"
    """An answer, or a denial, from a zone that is provably not signed."""
    ERROR = "error"
    """Bogus, timed out, refused, SERVFAIL: we do not know."""


@dataclass(frozen=True, slots=True)
class Answered:
    """The resolver's answer to Lookup."""

    request: int
    name: str
    """As asked: lower case, absolute, no trailing dot."""
    rdtype: int
    """RR type number: 1 A, 28 AAAA, 45 IPSECKEY."""
    outcome: Outcome
    rdata: tuple[bytes, ...] = ()
    """RDATA in wire form, uncompressed; empty unless SECURE or INSECURE."""
    ttl: int = 0
    """Seconds, of the answer or of the denial; already capped by the RRSIG's life."""
    reason: str = ""
    """Why ERROR, in one line from the validator."""
    canonical: str = ""
    """The name that aliases (CNAME, DNAME) led to, in the same form; empty: none were followed."""


@dataclass(frozen=True, slots=True)
class Asked:
    """A program asked for the addresses of a name, and waits for the Release of that number (`names.capture`)."""

    request: int
    """The resolver's own."""
    name: str
    """Canonical."""


@dataclass(frozen=True, slots=True)
class AddressesChanged:
    """The host's own unicast addresses, all of them."""

    addresses: tuple[IPAddress, ...]


@dataclass(frozen=True, slots=True)
class Connect:
    """`hushwire connect NAME`: look the name up, set its policy, and make an SA now."""

    request: int
    name: str


@dataclass(frozen=True, slots=True)
class Disconnect:
    """`hushwire disconnect NAME`: delete its SAs.  Its policy stays."""

    request: int
    name: str


@dataclass(frozen=True, slots=True)
class Rekey:
    """`hushwire rekey NAME [--ike]`: replace the Child SAs, or the IKE SA."""

    request: int
    name: str
    ike: bool


@dataclass(frozen=True, slots=True)
class Status:
    """`hushwire status`."""

    request: int


@dataclass(frozen=True, slots=True)
class Why:
    """`hushwire why NAME|ADDRESS`: what is known and what a packet would do now."""

    request: int
    subject: str
    """A name or an address, as typed."""


@dataclass(frozen=True, slots=True)
class Capture:
    """A resolver of somebody else's is about to answer for a name: set its policy first (unbound's ipsecmod)."""

    request: int
    name: str


@dataclass(frozen=True, slots=True)
class SwitchKey:
    """The host's key file holds another key: prove ourselves with it from now on, to every peer."""

    request: int


@dataclass(frozen=True, slots=True)
class TrustChanged:
    """`hushwire trust add` or `remove`: the trust store's file is another."""

    request: int


@dataclass(frozen=True, slots=True)
class TrustRead:
    """The parent's answer to ReadTrusted, in parts."""

    request: int
    keys: tuple[Trusted, ...]
    complete: bool
    """There are no more."""


@dataclass(frozen=True, slots=True)
class HostKey:
    """The keeper holds the key that ReadKey asked for."""

    request: int
    public: bytes
    """SubjectPublicKeyInfo in DER."""


@dataclass(frozen=True, slots=True)
class Counted:
    """The plane's answer to Count."""

    request: int
    packets: int
    """Of all the SAs together, since they were installed; of one that is gone, none."""


@dataclass(frozen=True, slots=True)
class FlowsFound:
    """The answer to CloseFlows and CountFlows."""

    request: int
    flows: int


@dataclass(frozen=True, slots=True)
class Began:
    """What the host is like, before anything else: an earlier run may have ended in any way."""

    sealed: tuple[IPAddress, ...]
    """Addresses with which that had SAs or policies, so that programs may still have flows with them."""
    closes_flows: bool
    """Whether CloseFlows does anything here."""


@dataclass(frozen=True, slots=True)
class Recalled:
    """What was remembered of peers before a restart, in parts; the longest unseen first."""

    known: tuple[Known, ...]
    complete: bool
    """There are no more."""


@dataclass(frozen=True, slots=True)
class KnownList:
    """`hushwire known list`: a part of what is remembered, in the order of the subjects."""

    request: int
    after: str
    """The subject that the part before ended with; empty: from the first."""


@dataclass(frozen=True, slots=True)
class KnownShow:
    """`hushwire known show SUBJECT`."""

    request: int
    subject: str
    """Canonical, as of the next two."""


@dataclass(frozen=True, slots=True)
class KnownPin:
    """`hushwire known pin SUBJECT [FINGERPRINT]`."""

    request: int
    subject: str
    fingerprint: bytes
    """Empty: the one that is remembered."""


@dataclass(frozen=True, slots=True)
class KnownForget:
    """`hushwire known forget SUBJECT`."""

    request: int
    subject: str


@dataclass(frozen=True, slots=True)
class Whois:
    """A program's question (`hushwire.peer`, `hushwire.require`, `hushwire whois`): who is at a flow's other end?"""

    request: int
    flow: Flow
    require: Assurance = Assurance.CLEAR
    """The Reply is ok if there is at least that."""
    patience: float = 0.0
    """Seconds that the program waits for what it requires."""


@dataclass(frozen=True, slots=True)
class Stop:
    """The daemon is to end: tell the peers.  Policies stay (DESIGN.md law 1)."""


Event = (
    Timeout | Datagram | Acquire | Expire | Mapping | Installed | Refused | Signed | Answered | AddressesChanged
    | Asked | HostKey | TrustRead | Counted | FlowsFound | Began
    | Connect | Disconnect | Rekey | Status | Why | Whois | Capture | SwitchKey | TrustChanged | Stop
    | Recalled | KnownList | KnownShow | KnownPin | KnownForget
)  # fmt: skip

# --- Effects: what is asked -----------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Send:
    """Send an IKE message.  From port 4500 the sender puts the non-ESP marker before it."""

    local: Endpoint
    remote: Endpoint
    data: bytes


@dataclass(frozen=True, slots=True)
class Sign:
    """Ask the keeper to sign AUTH octets, or to compute a shared key's AUTH (RFC 7296 s2.15)."""

    request: int
    key: bytes
    """SHA-256 fingerprint of the public key's SubjectPublicKeyInfo; or the name of a shared key."""
    scheme: str
    """A crypto.auth.Scheme's name; or SHARED_KEY/ and the PRF's name."""
    octets: bytes


@dataclass(frozen=True, slots=True)
class Lookup:
    """Ask the resolver one validated DNS question."""

    request: int
    name: str
    rdtype: int


class Verdict(Enum):
    """What a program that asked for a name's addresses may be told."""

    PASS = "pass"
    """Whatever the DNS says: no rule speaks of the name, or its rule lets it go in clear."""
    ONLY = "only"
    """No addresses but these: policies stand for them."""
    REFUSE = "refuse"
    """Nothing: SERVFAIL (DESIGN.md law 3)."""


@dataclass(frozen=True, slots=True)
class Release:
    """The answer to Asked, to the resolver."""

    request: int
    verdict: Verdict
    addresses: tuple[IPAddress, ...] = ()
    """With ONLY: of both families; perhaps synthetic ones, which no DNS has."""
    ttl: int = 0
    """Seconds for which the answer may be kept; it holds for PASS, too, where it is not 0."""
    reason: str = ""
    """One line, of a refusal."""


@dataclass(frozen=True, slots=True)
class ReadKey:
    """Have the keeper read the host's key file again.  Answered by HostKey, or Refused."""

    request: int


@dataclass(frozen=True, slots=True)
class ReadTrusted:
    """Have the parent read the trust store again.  Answered by TrustRead, or Refused."""

    request: int


@dataclass(frozen=True, slots=True)
class Count:
    """How much have these SAs carried?"""

    request: int
    sas: tuple[SAName, ...]


@dataclass(frozen=True, slots=True)
class CloseFlows:
    """End all connections of local programs with these, visibly (RFC 5660 s2), before what is asked for next."""

    request: int
    remotes: tuple[IPNetwork, ...]


@dataclass(frozen=True, slots=True)
class CountFlows:
    """How many connections do local programs have with these?"""

    request: int
    remotes: tuple[IPNetwork, ...]


@dataclass(frozen=True, slots=True)
class InstallSA:
    request: int
    sa: SA


@dataclass(frozen=True, slots=True)
class DeleteSA:
    sa: SAName
    linger: float = 0.0
    """Seconds for which it may be put off: the inbound one of a pair that was replaced opens what was overtaken."""


@dataclass(frozen=True, slots=True)
class InstallPolicy:
    """Install, or update in place (DESIGN.md law 1: never delete and add)."""

    request: int
    policy: Policy


@dataclass(frozen=True, slots=True)
class DeletePolicy:
    selector: Selector
    direction: Direction


@dataclass(frozen=True, slots=True)
class Remember:
    """Have what is known of a subject outlive a restart, in place of what was."""

    known: Known


@dataclass(frozen=True, slots=True)
class Forget:
    """Nothing of a subject is to outlive a restart."""

    subject: str


@dataclass(frozen=True, slots=True)
class Notice:
    """Something worth telling: the one source of log lines, counters and the simulator's evidence."""

    kind: str
    """A dotted noun from a closed list in the emitting module, such as `ike.established`."""
    fields: tuple[tuple[str, str | int | float], ...] = ()
    """What it is about.  Peer-controlled text is escaped where it becomes a str; never a secret."""
    grave: bool = False
    """True: an administrator should look."""


@dataclass(frozen=True, slots=True)
class Reply:
    """The answer to a command event."""

    request: int
    ok: bool
    text: str = ""
    """One line for people; the reason when not ok."""
    body: str = ""
    """What was asked for, as JSON text: plain types only cross a channel."""


Effect = (
    Send | Sign | ReadKey | ReadTrusted | Lookup | Release | InstallSA | DeleteSA | InstallPolicy | DeletePolicy | Count
    | CloseFlows | CountFlows | Notice | Reply | Remember | Forget
)  # fmt: skip
