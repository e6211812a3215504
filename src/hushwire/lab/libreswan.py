"""libreswan (pluto, told what to do by addconn and whack) as a peer that knows NULL authentication (RFC 7619).

It wants a kernel with ESP, so it runs in User-Mode Linux.  Its Debian package and strongSwan's exclude each other, so
tools/bootstrap.sh only unpacks it.  Everything it reads and writes is in a folder of its own.  It tells the SPIs of an
IKE SA nowhere but in its log, of which it therefore writes more than it would.
"""

import re
from base64 import b64encode
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey, RSAPublicKey
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import BestAvailableEncryption
from cryptography.hazmat.primitives.serialization.pkcs12 import serialize_key_and_certificates
from cryptography.x509.oid import NameOID

from hushwire.crypto.keys import PrivateKey, PublicKey
from hushwire.lab.daemon import Daemon
from hushwire.lab.namespaces import Host
from hushwire.lab.peer import Connection, PeerChildSA, PeerIkeSA, eventually

TOOLS = Path(__file__).parents[3] / "build/libreswan/usr/libexec/ipsec"
PASSWORD = "for the way into its key store"


class Libreswan(Daemon):
    """A context manager: inside it pluto runs in a host and knows its connections."""

    def __init__(self, host: Host, *connections: Connection, signs: bool = False, asks: bool = False) -> None:
        """Whether it signs with its key, which has to be RSA, and asks the peer to; else that side is anonymous."""
        super().__init__(host)
        self._signs = signs
        self._asks = asks
        self._connections = connections

    @property
    def log(self) -> Path:
        """Pluto's."""
        return self.folder / "pluto.log"

    def prepare(self) -> Sequence[str]:
        self._write()
        keys = f"sql:{self.folder / 'nss'}"
        self.host.run("certutil", "-N", "-d", keys, "--empty-password")
        for number, known in enumerate(self._connections if self._signs else ()):
            assert isinstance(known.key, PrivateKey)
            (self.folder / f"{number}.p12").write_bytes(_pkcs12(known.key, known.local_id))
            self.host.run("pk12util", "-d", keys, "-i", str(self.folder / f"{number}.p12"), "-W", PASSWORD)
        return "unshare", "--mount", "sh", "-c", _START, "sh", str(TOOLS), str(self._conf), str(self.folder)

    def is_ready(self) -> bool:
        # What it does last: before it has sockets on its addresses, all that is begun leads nowhere.
        return self.log.exists() and "no secrets filename matched" in self.log.read_text()

    def begin(self) -> None:
        for number in range(len(self._connections)):
            self._tell("addconn", "--config", str(self._conf), _name(number))

    def last_words(self) -> str:
        texts = (path.read_text() for path in (self.folder / "output", self.log) if path.exists())
        return "".join(line for text in texts for line in text.splitlines(keepends=True) if "| " not in line)[-3000:]

    def initiate(self, connection: int = 0) -> None:
        """Set up the SAs of a connection, counted from 0; returns when they stand, raises RuntimeError if not."""
        self._whack("--initiate", "", connection)
        if not eventually(lambda: any(sa.children for sa in self.sas())):
            raise RuntimeError(f"no SAs: {self.last_words()}")

    def rekey_child(self, connection: int = 0) -> None:
        """Begin to replace the Child SA."""
        self._whack("--rekey-ipsec", "--asynchronous", connection)

    def rekey_ike(self, connection: int = 0) -> None:
        """Begin to replace the IKE SA."""
        self._whack("--rekey-ike", "--asynchronous", connection)

    def terminate(self, connection: int = 0) -> None:
        """Delete the SAs of a connection."""
        self._whack("--terminate", "", connection)

    def sas(self) -> list[PeerIkeSA]:
        """What stands now."""
        return read_states(self._tell("whack", "--showstates"), self.log.read_text())

    def _whack(self, what: str, how: str, connection: int) -> None:
        self._tell("whack", what, *filter(None, [how]), "--name", _name(connection))

    def _tell(self, tool: str, *words: str) -> str:
        return self.host.run(str(TOOLS / tool), "--ctlsocket", str(self._socket), *words).stdout

    @property
    def _conf(self) -> Path:
        return self.folder / "ipsec.conf"

    @property
    def _socket(self) -> Path:
        return self.folder / "pluto.ctl"

    def _write(self) -> None:
        (self.folder / "nss").mkdir(mode=0o700)
        texts = [self._connection(number, known) for number, known in enumerate(self._connections)]
        self._conf.write_text(_SETUP.format(folder=self.folder) + "".join(texts))

    def _connection(self, number: int, known: Connection) -> str:
        left = right = "auth=null id=%null"
        if self._signs and isinstance(known.key, PrivateKey):
            left = f"auth=rsasig id=@{known.local_id} rsasigkey=0s{_rfc_3110(known.key.public)}"
        if self._asks and known.remote_key is not None:
            right = f"auth=rsasig id={known.remote} rsasigkey=0s{_rfc_3110(known.remote_key)}"
        ends = "".join(
            f"    {side}{word}\n" for side, end in (("left", left), ("right", right)) for word in end.split()
        )
        return _CONNECTION.format(name=_name(number), connection=known, ends=ends)


def _name(connection: int) -> str:
    return f"conn{connection}"


def _rfc_3110(key: PublicKey) -> str:
    """An RSA key as libreswan reads it, in base64."""
    assert isinstance(key.key, RSAPublicKey)
    numbers = key.key.public_numbers()
    e, n = (number.to_bytes((number.bit_length() + 7) // 8) for number in (numbers.e, numbers.n))
    return b64encode(bytes([len(e)]) + e + n).decode()


def _pkcs12(key: PrivateKey, name: str) -> bytes:
    """A private key as its key store takes it: with a certificate, which nobody looks at."""
    own = key.key
    assert isinstance(own, RSAPrivateKey)
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    made = x509.CertificateBuilder(subject, subject, own.public_key(), 1, datetime(2020, 1, 1), datetime(2040, 1, 1))
    return serialize_key_and_certificates(
        name.encode(), own, made.sign(own, SHA256()), None, BestAvailableEncryption(PASSWORD.encode())
    )


def read_states(text: str, log: str) -> list[PeerIkeSA]:
    """What `whack --showstates` prints, with what only the log tells."""
    spis = {said["state"]: (said["i"], said["r"]) for said in _SPIS.finditer(log)}
    children: dict[str, list[PeerChildSA]] = {}
    parents = {child["state"]: child["parent"] for child in _CHILD.finditer(text)}
    for esp in _ESP.finditer(text):
        pair = PeerChildSA("INSTALLED", int(esp["in"], 16), int(esp["out"], 16))
        children.setdefault(parents.get(esp["state"], ""), []).append(pair)
    found = []
    for state in _IKE.findall(text):
        spi_i, spi_r = map(bytes.fromhex, spis[state])
        began = f"#{state}: initiating " in log
        found.append(PeerIkeSA("ESTABLISHED", spi_i, spi_r, began, "", tuple(children.get(state, ()))))
    return found


_IKE = re.compile(r'#(\d+): "\w+":\d+ STATE_V2_ESTABLISHED_IKE_SA ')
_CHILD = re.compile(r'#(?P<state>\d+): "\w+":\d+ STATE_V2_ESTABLISHED_CHILD_SA .* IKE SA #(?P<parent>\d+);')
_ESP = re.compile(r'#(?P<state>\d+): "\w+" esp[.:](?P<out>\w+)@\S+ esp[.:](?P<in>\w+)@\S+ ')
_SPIS = re.compile(r'ike_spis@\S+ "\w+" #(?P<state>\d+): (?P<i>(?:\w\w +){8})(?P<r>(?:\w\w +){8})added')

_START = """
mount -t tmpfs tmpfs /usr/libexec && mkdir /usr/libexec/ipsec && mount --bind "$1" /usr/libexec/ipsec &&
exec /usr/libexec/ipsec/pluto --config "$2" --nofork --rundir "$3"
"""
"""It looks for its other programs in the one place where they would be if it were installed."""

_SETUP = """
config setup
    logfile={folder}/pluto.log
    dumpdir={folder}
    ipsecdir={folder}
    nssdir={folder}/nss
    secretsfile={folder}/secrets
    plutodebug=base
    dnssec-enable=no
"""
_CONNECTION = """
conn {name}
    left={connection.local}
    right={connection.remote}
{ends}    leftupdown=%disabled
    type={connection.mode.value}
    keyingtries=1
    retransmit-timeout=15s
    auto=ignore
"""
