"""What must hold before a host can start: a user, keys, privileges, a plane, and nobody else of us."""

import contextlib
import hashlib
import os
import pwd
import socket
from pathlib import Path
from struct import Struct

from hushwire.config import Addressing, Config, PlaneChoice
from hushwire.daemon import keyfile
from hushwire.daemon.log import Log
from hushwire.daemon.synthetic import why_not
from hushwire.linux.kernel import esp_warning, has_esp
from hushwire.linux.sandbox import Capability
from hushwire.node import Secrets
from hushwire.node.rulebook import Rulebook
from hushwire.node.scope import REQID_BASE
from hushwire.policy.trust import TrustStore


class CannotStart(Exception):
    """One clear line: what is missing or wrong, and what would be right."""


def user_of(name: str) -> tuple[int, int]:
    """The user and group that a configuration names.  Raises CannotStart."""
    try:
        entry = pwd.getpwnam(name)
    except KeyError:
        raise CannotStart(f'host.user: there is no user "{name}" on this machine; make one or name another') from None
    return entry.pw_uid, entry.pw_gid


def psk_name(file: str) -> bytes:
    """What the node calls a shared key that it never sees."""
    return hashlib.sha256(b"hushwire shared key " + file.encode()).digest()


def public_secrets(config: Config) -> Secrets:
    """Peers' pinned public keys, names for the shared ones, and the trust store."""
    try:
        pinned = {str(rule.peer): keyfile.read_public(Path(rule.key)) for rule in config.rules if rule.key}
        trusted = read_trust_store(config)
    except keyfile.KeyFileError as error:
        raise CannotStart(str(error)) from None
    shared = {str(rule.peer): psk_name(rule.psk) for rule in config.rules if rule.psk}
    return Secrets(None, pinned, shared, trusted)


def read_trust_store(config: Config) -> TrustStore:
    """The keys that are trusted now: none where there is no file.  Raises KeyFileError."""
    store = Path(config.host.trusted)
    try:
        there = store.exists()
    except OSError as error:
        raise keyfile.KeyFileError(f"{store}: {error.strerror}") from None
    return keyfile.read_trusted(store) if there else TrustStore()


def choose_plane(config: Config, log: Log) -> PlaneChoice:
    if not _may_administer():
        raise CannotStart("hushwire needs CAP_NET_ADMIN to protect packets; run it as root")
    wanted = config.host.plane
    if wanted is PlaneChoice.USERSPACE:
        return wanted
    reason = has_esp().reason
    if not reason and has_synthetic(config) and (reason := why_not()):
        reason = f"it cannot have synthetic addresses here: {reason}"
    if wanted is PlaneChoice.KERNEL and reason:
        raise CannotStart(f'host.plane: "kernel", but {reason}; take "userspace" or "auto"')
    chosen = PlaneChoice.USERSPACE if reason else PlaneChoice.KERNEL
    if wanted is PlaneChoice.AUTO:
        log.line(f"plane: {chosen.value}" + (f", since {reason}" if reason else ""))
    warning = esp_warning() if chosen is PlaneChoice.KERNEL else None
    if warning:
        log.line(f"! {warning}")
    return chosen


def reqids_of_real(config: Config) -> frozenset[int]:
    """Of the peers that the configuration names, and that programs know by their own addresses."""
    groups = enumerate(Rulebook(config.rules).groups, REQID_BASE + 1)
    return frozenset(reqid for reqid, group in groups if group[0].addressing is Addressing.REAL)


def has_synthetic(config: Config) -> bool:
    return any(rule.addressing is Addressing.SYNTHETIC for rule in config.rules)


def _may_administer() -> bool:
    """CAP_NET_ADMIN is among our effective capabilities."""
    status = Path("/proc/self/status").read_text()
    effective = next(line.split()[1] for line in status.splitlines() if line.startswith("CapEff:"))
    return bool(int(effective, 16) >> Capability.NET_ADMIN & 1)


def be_alone() -> socket.socket:
    """One hushwire at a time: SAD, SPD and routes are the network namespace's, as is the name that is taken here."""
    lock = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    # Any local user may have taken the name, and listen or not, with room for us or not: we do not wait for that one.
    lock.setblocking(False)
    with contextlib.suppress(OSError):
        lock.bind("\0hushwire")
        lock.listen()
        return lock
    with contextlib.suppress(OSError):
        lock.connect("\0hushwire")
        _, holder, _ = Struct("3i").unpack(lock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
        if holder == os.geteuid():
            raise CannotStart("hushwire runs already on this host; stop it first, or see `hushwire status`")
    # Somebody else's name keeps nobody from starting.  Two of us then meet at ports and control socket.
    return lock


def said(error: Exception) -> str:
    strerror = getattr(error, "strerror", None)
    filename = getattr(error, "filename", None)
    if strerror and filename:
        return f"{filename}: {strerror}"
    return strerror or str(error)
