"""What a configuration says: each table of the file is a dataclass, each key a field (with hyphens for underscores)."""

from dataclasses import dataclass, field
from enum import Enum
from pathlib import PurePosixPath

from hushwire.ike.proposals import EspOffer, IkeOffer
from hushwire.ike.settings import ESP_OFFERS, IKE_OFFERS
from hushwire.policy.assurance import Assurance
from hushwire.policy.pad import Identity
from hushwire.policy.sad import Mode
from hushwire.policy.spd import Action
from hushwire.wire.address import Endpoint, IPAddress, IPNetwork


class PlaneChoice(Enum):
    AUTO = "auto"
    """The kernel's where it has ESP, else the userspace one."""
    KERNEL = "kernel"
    USERSPACE = "userspace"


class Start(Enum):
    TRAP = "trap"
    """When the first packet leaves."""
    CONNECT = "connect"
    """As soon as hushwire runs."""
    WAIT = "wait"
    """When the peer begins; we do only for a packet that could not leave otherwise."""


class Group(Enum):
    """The classical policy groups: presets of `require`, `below` and `start`."""

    PRIVATE = "private"
    """Protected, or not at all."""
    PRIVATE_OR_CLEAR = "private-or-clear"
    """Protected where the peer can; else in clear."""
    CLEAR_OR_PRIVATE = "clear-or-private"
    """In clear until the peer asks for more."""
    CLEAR = "clear"
    """In clear."""
    BLOCK = "block"
    """Not at all."""


class Addressing(Enum):
    """What programs are told is the address of a name that a rule protects."""

    REAL = "real"
    """Its own.  A second name that claims the same address with another key is refused."""
    SYNTHETIC = "synthetic"
    """One made up for this name alone, so that whoever else claims the same address changes nothing."""


class Anonymous(Enum):
    """Who leaves himself unauthenticated (RFC 7619)."""

    NO = "no"
    PEER = "peer"
    """The peer, if it likes."""
    US = "us"
    """We do, and say nothing of who we are."""
    BOTH = "both"

    @property
    def peer(self) -> bool:
        return self in (Anonymous.PEER, Anonymous.BOTH)

    @property
    def us(self) -> bool:
        return self in (Anonymous.US, Anonymous.BOTH)


@dataclass(frozen=True, slots=True)
class Host:
    """`[host]`: this machine."""

    name: str
    """Its own full host name, as peers know it: what it says it is in IKE (ID_FQDN).  Must be given."""
    key: str = "/etc/hushwire/host.key"
    """File with its private key, as `hushwire key new` makes it; nobody but its owner may read it."""
    plane: PlaneChoice = PlaneChoice.AUTO
    """Who does ESP: "auto", "kernel" or "userspace"."""
    user: str = "nobody"
    """The user that the processes without privileges become.  One that nothing else runs as is better."""
    trusted: str = "/etc/hushwire/trusted"
    """File with the fingerprints of keys that are trusted, as `hushwire trust` keeps it.  It need not be there."""
    state: str = "/var/lib/hushwire"
    """Directory for what outlives a restart."""
    control: str = "/run/hushwire/control"
    """Socket on which the `hushwire` commands reach the daemon."""
    peer_socket: str = ""
    """Socket on which every program may ask who is at the other end of its connections.  Empty: peer.sock, in the
    directory of `control`."""
    port: int = 500
    """UDP port of IKE (RFC 7296 s2)."""
    nat_port: int = 4500
    """UDP port of IKE and ESP behind a NAT (RFC 7296 s2.23)."""
    addresses: tuple[IPAddress, ...] = ()
    """Its addresses to use.  Empty: every global one it has."""

    @property
    def questions(self) -> str:
        """The path of `peer_socket`."""
        return self.peer_socket or str(PurePosixPath(self.control).with_name("peer.sock"))


@dataclass(frozen=True, slots=True)
class NameServer(Endpoint):
    """Whom to ask."""

    tls: str = ""
    """The name in its certificate, where it is asked by TLS (RFC 7858); empty: in clear."""


@dataclass(frozen=True, slots=True)
class Dns:
    """`[dns]`: how names are looked up and validated."""

    trust_anchor: str = "/usr/share/dns/root.key"
    """File with the DNS key or digest that everything is validated from, as a zone file."""
    forward: tuple[NameServer, ...] = ()
    """Name servers to ask, each "address" or "address@port"; "address#name" or "address@port#name" by TLS, with a
    certificate of that name, and then all.  Empty: hushwire asks from the root down, itself."""
    roots: tuple[Endpoint, ...] = ()
    """Without `forward`: root servers, each "address" or "address@port", of a root of one's own with its own
    `trust_anchor`.  Empty: those of the Internet."""
    listen: tuple[Endpoint, ...] = ()
    """Where hushwire answers this host's own programs, each "address" or "address@port" of loopback.  Empty: nowhere.
    Whoever asks here for an address gets it when the policy for it stands."""
    ask: tuple[str, ...] = ()
    """Names, "alice.example" or "*.example", that a stranger who says he is one of them makes us look up.  Empty: none.
    Those that rules call by name need not be here."""


@dataclass(frozen=True, slots=True)
class Ike:
    """`[ike]`: the IKE SAs."""

    proposals: tuple[IkeOffer, ...] = IKE_OFFERS
    """What we offer and take, best first, each a string such as "aes256gcm16-prfsha256-x25519".  `config.proposal`
    has the words."""
    lifetime: int = 4 * 3600
    """Seconds until an IKE SA is rekeyed."""
    liveness: int = 30
    """Seconds of silence from a peer until we ask whether it is there (RFC 7296 s2.4)."""
    retransmit: tuple[float, ...] = (0.5, 1.0, 2.0, 4.0, 8.0, 8.0)
    """Seconds to wait before each retransmission, and after the last before we give up (RFC 7296 s2.1)."""


@dataclass(frozen=True, slots=True)
class Esp:
    """`[esp]`: the Child SAs."""

    proposals: tuple[EspOffer, ...] = ESP_OFFERS
    """What we offer and take, best first, each a string such as "aes256gcm16-x25519-esn".  The key exchanges are for
    rekeying (RFC 7296 s1.3.1); with "nopfs" after them, a peer may have it without.  Without "esn" or "noesn", 64-bit
    sequence numbers are liked and 32-bit ones taken."""
    lifetime: int = 3600
    """Seconds until a Child SA is rekeyed."""
    packets: int = 1 << 31
    """Packets until a Child SA is rekeyed."""
    replay_window: int = 1024
    """Packets by which one may be late (RFC 4303 s3.4.3)."""


@dataclass(frozen=True, slots=True)
class Rule:
    """`[[rule]]`: what is required of the traffic with one peer."""

    peer: str | IPNetwork
    """Whom the rule is about: a name, "bob.example"; all names below one, "*.example", or all, "*"; an address or a
    prefix, "192.0.2.0/24".  Of several that speak of a peer, the narrowest counts."""
    require: Assurance = Assurance.NAMED
    """How sure we must be who is there (`policy.assurance`).  "trusted" where `key` or `psk` is given, else "named"."""
    below: Action = Action.BLOCK
    """What happens to packets while we are not that sure: "block", or "clear" to let them go unprotected."""
    mode: Mode = Mode.TRANSPORT
    """"transport" between the two hosts themselves, "tunnel" also for networks behind them."""
    key: str = ""
    """File with the peer's public key (PEM).  Pins it: the peer is trusted without the DNS."""
    psk: str = ""
    """File with a key that we share with the peer, of 16 octets or more.  Trusted, too."""
    address: IPAddress | None = None
    """Where a trusted peer is that is called by a name.  A named one's address comes from the DNS."""
    identity: Identity | None = None
    """What the peer says it is in IKE, where that is not `peer`: a name, an address, or user@name."""
    own_identity: Identity | None = None
    """What we say we are to this peer, where that is not `host.name`."""
    protocol: int = 0
    """Only this protocol: "tcp", "udp", "icmp" or any other's IANA number.  0: all."""
    local_port: int = 0
    """Only this port of ours.  0: all."""
    remote_port: int = 0
    """Only this port of the peer's.  0: all."""
    local_networks: tuple[IPNetwork, ...] = ()
    """Tunnel mode: prefixes on our side.  Empty: this host."""
    remote_networks: tuple[IPNetwork, ...] = ()
    """Tunnel mode: prefixes on the peer's side.  Empty: the peer."""
    start: Start = Start.TRAP
    """"trap": set up when the first packet leaves.  "connect": as soon as hushwire runs.  "wait": when the peer
    does."""
    group: Group | None = None
    """Of the classical ones, in place of `require`, `below` and `start`: "private", "private-or-clear",
    "clear-or-private", "clear" or "block"."""
    roams: bool = False
    """The peer may be anywhere: it is known by its key, and the DNS need not say where it is."""
    anonymous: Anonymous = Anonymous.NO
    """Who may be known by nothing at all, not even a key: "no" one; the "peer", where "encrypted" is enough; "us", who
    then prove nothing to it; or "both"."""
    addressing: Addressing = Addressing.REAL
    """For names that programs look up: "real", or "synthetic" addresses, one for each name."""

    @property
    def name(self) -> str | None:
        """The peer's name, where it is called by one."""
        return self.peer if isinstance(self.peer, str) else None

    @property
    def btns(self) -> bool:
        """Whether strangers may be who is there, each known by nothing but a key (BTNS_OK of RFC 5386 s2)."""
        return Assurance.CLEAR < self.require < Assurance.NAMED and not (self.key or self.psk)

    @property
    def many(self) -> bool:
        """Whether it speaks of more than one peer: of each by itself, when there is reason to."""
        return self.peer.startswith("*") if isinstance(self.peer, str) else self.peer.num_addresses > 1

    @property
    def expected(self) -> Identity:
        """What the peer must say it is."""
        if self.identity is not None:
            return self.identity
        return Identity.fqdn(self.peer) if isinstance(self.peer, str) else Identity.address(self.peer.network_address)


@dataclass(frozen=True, slots=True)
class Config:
    """A whole file."""

    host: Host
    dns: Dns = field(default_factory=Dns)
    ike: Ike = field(default_factory=Ike)
    esp: Esp = field(default_factory=Esp)
    rules: tuple[Rule, ...] = ()
    """The `[[rule]]` tables, in the file's order."""
