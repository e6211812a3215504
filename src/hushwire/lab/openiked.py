"""OpenIKED (iked and ikectl) as a peer: it wants PF_KEY, so it runs in User-Mode Linux.

Its folder is bound over /etc/iked in a mount namespace of its own.  It knows RSA and ECDSA keys, no Ed25519.  ESP has
to be AES-CBC with HMAC-SHA2-384 or -512: Linux's PF_KEY takes no AEAD, and cuts HMAC-SHA2-256 to 96 bits.
"""

import re
from base64 import encodebytes
from collections.abc import Sequence
from pathlib import Path

from hushwire.crypto.keys import KeyKind, PrivateKey, PublicKey
from hushwire.lab.daemon import Daemon
from hushwire.lab.namespaces import Host
from hushwire.lab.peer import DEFAULT, Connection, PeerChildSA, PeerIkeSA, Proposal, eventually


class OpenIked(Daemon):
    """A context manager: inside it iked runs in a host and knows its connections.  All have the same key of ours."""

    def __init__(self, host: Host, *connections: Connection, lifetime: int = 0, ike_lifetime: int = 0) -> None:
        """The lifetimes are seconds, after which it rekeys the SAs it began; 0: never."""
        super().__init__(host)
        self._connections = connections
        self._lifetimes = f"ikelifetime {ike_lifetime} lifetime {lifetime}"
        self._socket = Path(f"/run/{host.namespace}-iked.sock")

    def prepare(self) -> Sequence[str]:
        self._write_keys()
        self._write_conf(active=None)
        script = 'mount --bind "$1" /etc/iked && exec iked -d -vv -s "$2" -f "$3"'
        return "unshare", "--mount", "sh", "-c", script, "sh", str(self.folder), str(self._socket), str(self._conf)

    def is_ready(self) -> bool:
        # What it prints last of its settings and of its keys: an SA begun before either is dropped.
        log = self.log.read_text()
        return "stickyaddress" in log and "ca_reload: local cert type" in log and self._socket.exists()

    def __exit__(self, *exception: object) -> None:
        super().__exit__(*exception)
        self._socket.unlink(missing_ok=True)

    def initiate(self, connection: int = 0) -> None:
        """Set up the SAs of a connection, counted from 0; returns when they stand, raises RuntimeError if not."""
        self._write_conf(active=connection)
        self._ikectl("load", str(self._conf))
        wanted = self._connections[connection].remote_id
        if not eventually(lambda: any(sa.remote_id == wanted and sa.children for sa in self.sas())):
            raise RuntimeError(f"no SAs with {wanted}: {self.last_words()}")

    def terminate(self, connection: int = 0) -> None:
        """Delete the SAs of a connection, and do not begin it again."""
        self._write_conf(active=None)
        self._ikectl("load", str(self._conf))
        self._ikectl("reset", "id", f"FQDN/{self._connections[connection].remote_id}")
        eventually(lambda: not self.sas())

    def sas(self) -> list[PeerIkeSA]:
        """What stands now."""
        return read_sas(self._ikectl("show", "sa"))

    def _ikectl(self, *command: str) -> str:
        return self.host.run("ikectl", "-s", str(self._socket), *command).stdout

    @property
    def _conf(self) -> Path:
        return self.folder / "iked.conf"

    def _write_keys(self) -> None:
        for folder in ("ca", "certs", "crls", "private", "pubkeys/fqdn"):
            (self.folder / folder).mkdir(parents=True)
        # Its process that reads peers' keys is neither root nor outside of this folder.
        self.folder.chmod(0o755)
        # It wants a key even where it has nothing but shared secrets.
        own = next(
            (connection.key for connection in self._connections if isinstance(connection.key, PrivateKey)),
            PrivateKey.generate(KeyKind.ECDSA_P256),
        )
        private = self.folder / "private" / "local.key"
        private.touch(mode=0o600)
        private.write_bytes(own.write_pem().expose())
        (self.folder / "local.pub").write_text(pem(own.public))
        for connection in self._connections:
            if connection.remote_key is not None:
                (self.folder / "pubkeys/fqdn" / connection.remote_id).write_text(pem(connection.remote_key))

    def _write_conf(self, active: int | None) -> None:
        lines = [
            self._policy(number, connection, number == active) for number, connection in enumerate(self._connections)
        ]
        self._conf.touch(mode=0o600)
        self._conf.write_text("set nomobike\n" + "\n".join(lines) + "\n")

    def _policy(self, number: int, connection: Connection, active: bool) -> str:
        local_traffic, remote_traffic = connection.traffic()
        words = (
            f'ikev2 "ike{number}" {"active" if active else "passive"} {connection.mode.value} esp',
            f"from {local_traffic} to {remote_traffic}",
            f"local {connection.local} peer {connection.remote}",
            f"{_ike_words(connection.ike)} {_esp_words(connection.esp, connection.rekey_pfs)}",
            f"srcid {connection.local_id} dstid {connection.remote_id} {self._lifetimes}",
        )
        secret = "" if isinstance(connection.key, PrivateKey) else f" psk 0x{connection.key.expose().hex()}"
        return " ".join(words) + secret


def pem(key: PublicKey) -> str:
    """A public key as iked reads it."""
    return f"-----BEGIN PUBLIC KEY-----\n{encodebytes(key.spki).decode()}-----END PUBLIC KEY-----\n"


def read_sas(text: str) -> list[PeerIkeSA]:
    """What `ikectl show sa` prints."""
    found = []
    for block in re.split(r"^(?=iked_)", text, flags=re.MULTILINE):
        if ike := _IKE_SA.match(block):
            inbound = {child["address"]: child for child in _CHILD_SA.finditer(block) if child["direction"] == "in"}
            outbound = [child for child in _CHILD_SA.finditer(block) if child["direction"] == "out"]
            children = tuple(
                PeerChildSA("LOADED" if "L" in child["flags"] else "", int(own["spi"], 16), int(child["spi"], 16))
                for child in outbound
                if (own := inbound.get(child["peer"]))
            )
            spi_i, spi_r = bytes.fromhex(ike["spi_i"]), bytes.fromhex(ike["spi_r"])
            found.append(PeerIkeSA(ike["state"], spi_i, spi_r, ike["side"] == "i", ike["id"] or "", children))
    return found


_IKE_SA = re.compile(
    r"iked_sas: \S+ rspi 0x(?P<spi_r>\w+) ispi 0x(?P<spi_i>\w+) \S+?<(\w+/)?(?P<id>[^>]*)>\[.*?\] "
    r"(?P<state>\w+) (?P<side>[ir]) "
)
_CHILD_SA = re.compile(
    r"sa_childsas: (?P<address>\S+) ESP 0x(?P<spi>\w+) (?P<direction>in|out) .* \((?P<flags>\w*)\) .*P=(?P<peer>\S+) "
)


def _ike_words(proposal: Proposal) -> str:
    if proposal == DEFAULT:
        return ""
    auth = f"auth {_WORDS[proposal.integ]} " if proposal.integ else ""
    return f"ikesa {auth}enc {_WORDS[proposal.encr]} prf {_WORDS[proposal.prf]} group {_WORDS[proposal.ke]}"


def _esp_words(proposal: Proposal, pfs: bool) -> str:
    if proposal == DEFAULT:
        return ""
    auth = f"auth {_WORDS[proposal.integ]} " if proposal.integ else ""
    group = f" group {_WORDS[proposal.ke]}" if pfs else ""
    return f"childsa {auth}enc {_WORDS[proposal.encr]}{group} {'esn' if proposal.esn else 'noesn'}"


_WORDS = {
    "aes128gcm16": "aes-128-gcm", "aes256gcm16": "aes-256-gcm", "aes128": "aes-128", "aes256": "aes-256",
    "chacha20poly1305": "chacha20-poly1305",
    "sha256": "hmac-sha2-256", "sha384": "hmac-sha2-384", "sha512": "hmac-sha2-512",
    "x25519": "curve25519", "ecp256": "ecp256", "ecp384": "ecp384", "modp2048": "modp2048",
}  # fmt: skip
"""strongSwan's words -> iked's."""
