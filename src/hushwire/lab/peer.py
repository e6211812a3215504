"""What the lab's IKE daemons have in common: what they are told, and what they tell of their SAs."""

import os
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from ipaddress import ip_network
from pathlib import Path
from time import monotonic, sleep
from typing import Protocol, Self

from hushwire.crypto.keys import KeyKind, PrivateKey, PublicKey
from hushwire.crypto.secret import Secret
from hushwire.lab.namespaces import Host
from hushwire.wire.address import IPAddress


class Mode(Enum):
    """RFC 4301 s3.2."""

    TRANSPORT = "transport"
    TUNNEL = "tunnel"


@dataclass(frozen=True, slots=True)
class Proposal:
    """What one suite consists of, in strongSwan's words."""

    encr: str = "aes256gcm16"
    integ: str | None = None
    """None with an AEAD."""
    prf: str = "sha256"
    """Of the IKE SA."""
    ke: str = "x25519"
    esn: bool = False
    """Of the Child SA: extended sequence numbers."""


DEFAULT = Proposal("default")
"""What a daemon proposes and takes when nobody told it."""


@dataclass(frozen=True, slots=True)
class Connection:
    """All that a daemon is told of one peer."""

    local: IPAddress
    remote: IPAddress
    local_id: str
    """A domain name."""
    remote_id: str
    key: PrivateKey | Secret
    """Our private key, or the secret that both know (PSK)."""
    remote_key: PublicKey | None = None
    """The peer's raw public key; None with a PSK."""
    mode: Mode = Mode.TRANSPORT
    ike: Proposal = Proposal()
    esp: Proposal = Proposal()
    on_demand: bool = False
    """Whether the first packet starts IKE."""
    local_traffic: str = ""
    """In tunnel mode, the protected network; empty: the host itself."""
    remote_traffic: str = ""
    rekey_pfs: bool = True
    """Whether a Child SA's rekeying makes a key exchange of its own."""

    def traffic(self) -> tuple[str, str]:
        """The networks protected, local and remote."""
        return self.local_traffic or str(ip_network(self.local)), self.remote_traffic or str(ip_network(self.remote))


def introduced(
    alice: Host,
    bob: Host,
    kind: KeyKind | None = KeyKind.ED25519,
    *,
    version: int = 4,
    mode: Mode = Mode.TRANSPORT,
    ike: Proposal = Proposal(),
    esp: Proposal = Proposal(),
) -> tuple[Connection, Connection]:
    """What each of two hosts is told of the other: fresh keys, or, without a kind of key, a fresh shared secret."""
    a, b = (alice.v4, bob.v4) if version == 4 else (alice.v6, bob.v6)
    a_id, b_id = f"{alice.name}.example", f"{bob.name}.example"
    if kind is None:
        # As text, for a file of it may have white space at its ends that is not meant.
        secret = Secret(os.urandom(16).hex().encode())
        return (
            Connection(a, b, a_id, b_id, secret, None, mode, ike, esp),
            Connection(b, a, b_id, a_id, secret, None, mode, ike, esp),
        )
    own, its = PrivateKey.generate(kind), PrivateKey.generate(kind)
    return (
        Connection(a, b, a_id, b_id, own, its.public, mode, ike, esp),
        Connection(b, a, b_id, a_id, its, own.public, mode, ike, esp),
    )


@dataclass(frozen=True, slots=True)
class PeerChildSA:
    """A Child SA, as the daemon tells of it."""

    state: str
    spi_in: int
    spi_out: int
    mode: Mode | None = None
    """None, as below, when the daemon does not tell."""
    packets_in: int | None = None
    packets_out: int | None = None


@dataclass(frozen=True, slots=True)
class PeerIkeSA:
    """An IKE SA, as the daemon tells of it."""

    state: str
    spi_i: bytes
    spi_r: bytes
    initiator: bool
    """Whether the daemon itself began it."""
    remote_id: str
    children: tuple[PeerChildSA, ...] = ()


class Peer(Protocol):
    """A daemon that runs in a host of a Topology, as a context manager.  It counts its connections from 0."""

    @property
    def log(self) -> Path:
        """What it says."""

    @property
    def pid(self) -> int:
        """Of the daemon."""

    def __enter__(self) -> Self: ...

    def __exit__(self, *exception: object) -> None: ...

    def initiate(self, connection: int = 0) -> None:
        """Set up a connection's SAs; returns when they stand, raises RuntimeError if they do not."""

    def sas(self) -> list[PeerIkeSA]:
        """What stands now."""

    def terminate(self, connection: int = 0) -> None:
        """Delete a connection's SAs."""


def eventually(holds: Callable[[], object], seconds: float = 10, step: float = 0.05) -> bool:
    """Whether a condition came to hold in time."""
    end_at = monotonic() + seconds
    while not holds():
        if monotonic() >= end_at:
            return False
        sleep(step)
    return True
