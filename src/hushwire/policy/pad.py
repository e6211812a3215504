"""The peer authorization database (RFC 4301 s4.4.3): who may be there, and what he may speak for."""

from base64 import b64encode
from dataclasses import dataclass, replace

from hushwire.crypto.keys import PublicKey
from hushwire.policy.assurance import Assurance
from hushwire.policy.sad import Mode
from hushwire.policy.selector import Selector
from hushwire.wire.address import IPAddress, address_from_octets, host_network
from hushwire.wire.registry import IDType

PUBLICKEY = IDType(256)
"""RFC 5386 s2: the identity of who is known by nothing but a key.  On the wire types have one octet: nobody says so."""
NOBODY = IDType(257)
"""Of who is known by nothing at all, with what tells him from others like him.  Nobody says so either."""


@dataclass(frozen=True, slots=True)
class Identity:
    """An IKE identity (RFC 7296 s3.5).  Two are the same when type and octets are; names are kept in lower case."""

    type: IDType
    data: bytes

    @classmethod
    def fqdn(cls, name: str) -> "Identity":
        """The identity of a host name, made canonical: lower case, no trailing dot."""
        return cls(IDType.FQDN, name.rstrip(".").lower().encode("ascii"))

    @classmethod
    def address(cls, address: IPAddress) -> "Identity":
        return cls(IDType.IPV4_ADDR if address.version == 4 else IDType.IPV6_ADDR, address.packed)

    @classmethod
    def public_key(cls, key: PublicKey) -> "Identity":
        """What the identity that a BTNS peer asserts is coerced to (RFC 5386 s2)."""
        return cls(PUBLICKEY, key.fingerprint)

    @classmethod
    def received(cls, kind: IDType, data: bytes) -> "Identity":
        """A peer's claim.  Case is folded for names; nothing else is mended, so NUL or a trailing dot never match."""
        return cls(kind, data.lower() if kind in (IDType.FQDN, IDType.RFC822_ADDR) else data)

    @classmethod
    def nobody(cls, mark: bytes) -> "Identity":
        """Whom an unauthenticated peer is taken for; `mark` is of his IKE SA alone, so nobody else is the same."""
        return cls(NOBODY, mark)

    def __str__(self) -> str:
        """For people and logs: a peer's octets are escaped and cut."""
        if self.type in (IDType.IPV4_ADDR, IDType.IPV6_ADDR) and len(self.data) in (4, 16):
            return str(address_from_octets(self.data))
        if self.type == PUBLICKEY:
            return fingerprint_text(self.data) if self.data else "anybody"
        if self.type in (NOBODY, IDType.NULL):
            return "anonymous"
        text = self.data[:128].decode("latin-1")
        return "".join(c if c.isascii() and c.isprintable() and c != "\\" else f"\\x{ord(c):02x}" for c in text)


ANYBODY = Identity(PUBLICKEY, b"")
"""What the wildcard BTNS entry matches (RFC 5386 s2)."""

ANONYMOUS = Identity(IDType.NULL, b"")
"""What is said by who does not say who he is (RFC 7619 s2.2)."""


def fingerprint_text(fingerprint: bytes) -> str:
    """SHA-256 of a SubjectPublicKeyInfo as people compare them: as OpenSSH writes its own."""
    return "SHA256:" + b64encode(fingerprint).decode().rstrip("=")


@dataclass(frozen=True, slots=True)
class PadEntry:
    """One peer, as far as this host is concerned."""

    name: str
    """The rule's word for it."""
    identity: Identity
    """What it must say it is; of a BTNS entry, the key that it must prove, or ANYBODY."""
    addresses: tuple[IPAddress, ...]
    """Where it may speak from; empty: anywhere (a rule that roams)."""
    keys: tuple[PublicKey, ...]
    """Any of which proves it."""
    psk: bytes | None
    """Name of a shared key that proves it instead; the key itself is with the keeper."""
    assurance: Assurance
    """What a verified AUTH is worth."""
    reqid: int
    """Of its policies and SAs."""
    mode: Mode
    selectors: tuple[Selector, ...]
    """What its Child SAs may cover, and no more (ATTACKS rows 21, 51)."""
    own_identity: Identity | None = None
    """What we say to this peer that we are, where that is not the host's own."""
    fingerprints: tuple[bytes, ...] = ()
    """SHA-256 of the SubjectPublicKeyInfo of keys that prove it as well as `keys`, if it sends them."""
    also: tuple[Identity, ...] = ()
    """What else it may say it is: the name that the one it is known by is an alias of."""

    introduced: bool = True
    """An administrator named it.  Else a name that anybody may have made brought it in, and led us who knows where."""
    null: bool = False
    """It may leave itself unauthenticated (RFC 7619 s2.4)."""
    own_null: bool = False
    """We leave ourselves unauthenticated, and say nothing of who we are."""

    @property
    def btns(self) -> bool:
        """Whether it matches on a key alone, whatever its peer says it is (RFC 5386 s2)."""
        return self.identity.type == PUBLICKEY

    @property
    def anonymous(self) -> bool:
        """Whether its peer stays unauthenticated."""
        return self.identity.type == NOBODY

    def met(self, key: PublicKey, worth: Assurance = Assurance.ENCRYPTED) -> "PadEntry":
        """Of a wildcard, the entry of who has sent this key and has yet to prove that he holds it."""
        return replace(self, identity=Identity.public_key(key), keys=(key,), assurance=worth)

    def nobodys(self, here: IPAddress, where: IPAddress, mark: bytes) -> "PadEntry":
        """What it comes to for a peer at `where` who has not authenticated himself, told from others by `mark`.

        RFC 7619 s2.5: he is kept apart from all others, and speaks for no address but the one that he speaks from, to
        no address of ours but the one that he speaks to, `here`.
        """
        ends = host_network(here), host_network(where)
        return replace(
            self,
            identity=Identity.nobody(mark),
            addresses=(where,),
            keys=(),
            psk=None,
            fingerprints=(),
            also=(),
            assurance=min(self.assurance, Assurance.ENCRYPTED),
            mode=Mode.TRANSPORT,
            selectors=tuple(selector for selector in self.selectors if (selector.local, selector.remote) == ends),
            introduced=False,
        )

    def speaks_from(self, address: IPAddress) -> bool:
        return not self.addresses or address in self.addresses
