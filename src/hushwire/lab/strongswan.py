"""strongSwan (charon-systemd and swanctl) as a peer, with ESP of the kernel or of its own.

Everything it reads and writes is in a folder of its own: settings (STRONGSWAN_CONF), connections and keys
(SWANCTL_DIR), the vici socket and the log.
"""

import os
import re
from collections.abc import Iterator, Sequence
from enum import Enum
from pathlib import Path
from typing import Any

from hushwire.crypto.keys import PrivateKey
from hushwire.crypto.secret import Secret
from hushwire.lab.capture import EspDecryption, IkeDecryption
from hushwire.lab.daemon import Daemon
from hushwire.lab.namespaces import Host
from hushwire.lab.peer import DEFAULT, Connection, Mode, PeerChildSA, PeerIkeSA, Proposal


class Esp(Enum):
    """Who does ESP."""

    KERNEL = "kernel-netlink"
    USERSPACE = "kernel-libipsec kernel-netlink"
    """libipsec, over TUN and UDP encapsulation; tunnel mode only.  kernel-netlink is there for routes."""


class StrongSwan(Daemon):
    """A context manager: inside it charon runs in a host and knows its connections, by their names."""

    def __init__(
        self, host: Host, *connections: Connection, esp: Esp = Esp.KERNEL, settings: str = "", log_level: int = 1
    ) -> None:
        """`settings` are added to charon's section of strongswan.conf; from log level 4 on, secrets are logged."""
        super().__init__(host)
        self._connections = connections
        self._esp = esp
        self._settings = settings
        self._log_level = log_level

    @property
    def log(self) -> Path:
        """Charon's."""
        return self.folder / "charon.log"

    def prepare(self) -> Sequence[str]:
        self._write()
        self.environment = {"STRONGSWAN_CONF": str(self.folder / "strongswan.conf")}
        return ("charon-systemd",)

    def is_ready(self) -> bool:
        return (self.folder / "vici").exists()

    def begin(self) -> None:
        self._swanctl("--load-all", "--noprompt")

    def initiate(self, connection: int = 0) -> None:
        """Set up the SAs of a connection, counted from 0; returns when they stand, raises RuntimeError if not."""
        self._swanctl("--initiate", "--child", f"child{connection}", "--timeout", "20")

    def rekey_child(self, connection: int = 0) -> None:
        """Begin to replace the Child SA."""
        self._swanctl("--rekey", "--child", f"child{connection}")

    def rekey_ike(self, connection: int = 0) -> None:
        """Begin to replace the IKE SA."""
        self._swanctl("--rekey", "--ike", f"ike{connection}")

    def terminate(self, connection: int = 0) -> None:
        """Delete the SAs of a connection."""
        self._swanctl("--terminate", "--ike", f"ike{connection}", "--timeout", "20")

    def sas(self) -> list[PeerIkeSA]:
        """What stands now."""
        events = read_events(self._swanctl("--list-sas", "--raw"))
        return [_ike_sa(sa) for event in events for sa in event.values()]

    def decryption(self) -> tuple[list[IkeDecryption], list[EspDecryption]]:
        """What tshark needs to read the newest SAs, from the log of level 4."""
        log, sa, connection = self.log.read_text(), self.sas()[-1], self._connections[0]
        ike, esp, child = connection.ike, connection.esp, sa.children[-1]
        ei, er = (_logged(log, f"Sk_{name} secret") for name in ("ei", "er"))
        ai, ar = (_logged(log, f"Sk_{name} secret") if ike.integ else None for name in ("ai", "ar"))
        ways = ("initiator", "responder") if sa.initiator else ("responder", "initiator")
        key_out, key_in = (_logged(log, f"encryption {way} key") for way in ways)
        integ_out, integ_in = (_logged(log, f"integrity {way} key") if esp.integ else None for way in ways)
        here, there = connection.local, connection.remote
        return [IkeDecryption(sa.spi_i, sa.spi_r, ike.encr, ei, er, ike.integ, ai, ar)], [
            EspDecryption(here, there, child.spi_out, esp.encr, key_out, esp.integ, integ_out),
            EspDecryption(there, here, child.spi_in, esp.encr, key_in, esp.integ, integ_in),
        ]

    def _swanctl(self, command: str, *options: str) -> str:
        uri = f"unix://{self.folder / 'vici'}"
        try:
            return self.host.run(
                "env", f"STRONGSWAN_CONF={self.folder / 'strongswan.conf'}", f"SWANCTL_DIR={self.folder}",
                "swanctl", command, *options, "--uri", uri,
            ).stdout  # fmt: skip
        except RuntimeError as error:
            raise RuntimeError(f"{error}; charon: {self.last_words()}") from None

    def last_words(self) -> str:
        # What is logged in such detail has secrets in it, which belong in no error.
        return f"log level {self._log_level}" if self._log_level >= 4 else super().last_words()

    def _write(self) -> None:
        (self.folder / "strongswan.conf").write_text(
            _SETTINGS.format(
                folder=self.folder,
                plugins=_PLUGINS,
                esp=self._esp.value,
                log_level=self._log_level,
                more=self._settings,
            )
        )
        for kind in ("private", "pubkey"):
            (self.folder / kind).mkdir(mode=0o700)
        texts = [self._connection(number, connection) for number, connection in enumerate(self._connections)]
        with open(os.open(self.folder / "swanctl.conf", os.O_WRONLY | os.O_CREAT, 0o600), "w") as file:
            file.write("\n".join(texts))

    def _connection(self, number: int, connection: Connection) -> str:
        """One connection of swanctl.conf; its keys are written beside it."""
        authentication, local_key, remote_key, secret = "psk", "", "", ""
        if isinstance(connection.key, PrivateKey):
            assert connection.remote_key is not None
            authentication, name = "pubkey", f"{number}.pem"
            (self.folder / "private" / name).write_bytes(connection.key.write_pem().expose())
            for prefix, key in (("own", connection.key.public), ("its", connection.remote_key)):
                (self.folder / "pubkey" / f"{prefix}{number}.der").write_bytes(key.spki)
            local_key, remote_key = f"pubkeys = own{number}.der", f"pubkeys = its{number}.der"
        else:
            ids = f"id-1 = {connection.local_id}\n id-2 = {connection.remote_id}"
            secret = f"secrets {{ ike{number} {{\n {ids}\n secret = 0x{connection.key.expose().hex()}\n}} }}\n"
        local_traffic, remote_traffic = connection.traffic()
        userspace = self._esp == Esp.USERSPACE
        return secret + _CONNECTION.format(
            number=number,
            connection=connection,
            authentication=authentication,
            local_key=local_key,
            remote_key=remote_key,
            encap="yes" if userspace else "no",
            mode=connection.mode.value,
            start="trap" if connection.on_demand else "none",
            ike=_ike_words(connection.ike),
            esp=_esp_words(connection.esp, connection.rekey_pfs),
            local_traffic=local_traffic,
            remote_traffic=remote_traffic,
        )


def read_events(raw: str) -> list[dict[str, Any]]:
    """What swanctl prints with --raw: `NAME event {...}`, in braces key=value, key=[values] and key {...}."""
    tokens = iter(re.findall(r"[{}\[\]]|[^\s{}\[\]]+", raw))
    return [_section(tokens) for token in tokens if token == "event" and next(tokens) == "{"]


def _section(tokens: Iterator[str]) -> dict[str, Any]:
    section: dict[str, Any] = {}
    name = ""
    for token in tokens:
        if token == "}":
            break
        if token == "{":
            section[name] = _section(tokens)
        elif token == "[":
            section[name] = [*iter(lambda: next(tokens), "]")]
        else:
            name, is_value, value = token.partition("=")
            if is_value:
                section[name] = value
    return section


def _logged(log: str, what: str) -> Secret:
    """The last octets that charon logged under a name."""
    dumps = re.findall(rf"{what} => \d+ bytes @ \S+\n((?:.*\] +\d+: .*\n)+)", log)
    if not dumps:
        raise RuntimeError(f"charon logged no {what}: its log level has to be 4")
    return Secret(bytes.fromhex("".join(re.findall(r"\] +\d+: ((?:[0-9A-F]{2} )+)", dumps[-1]))))


def _ike_sa(sa: dict[str, Any]) -> PeerIkeSA:
    return PeerIkeSA(
        state=sa["state"],
        spi_i=bytes.fromhex(sa["initiator-spi"]),
        spi_r=bytes.fromhex(sa["responder-spi"]),
        initiator=sa.get("initiator") == "yes",
        remote_id=sa.get("remote-id", ""),
        children=tuple(_child_sa(child) for child in sa.get("child-sas", {}).values()),
    )


def _child_sa(child: dict[str, Any]) -> PeerChildSA:
    return PeerChildSA(
        state=child["state"],
        mode=Mode(child["mode"].lower()),
        spi_in=int(child.get("spi-in", "0"), 16),
        spi_out=int(child.get("spi-out", "0"), 16),
        packets_in=int(child.get("packets-in", "0")),
        packets_out=int(child.get("packets-out", "0")),
    )


def _ike_words(proposal: Proposal) -> str:
    if proposal == DEFAULT:
        return "default"
    return "-".join(filter(None, (proposal.encr, proposal.integ, f"prf{proposal.prf}", proposal.ke)))


def _esp_words(proposal: Proposal, pfs: bool) -> str:
    if proposal == DEFAULT:
        return "default"
    esn = "esn" if proposal.esn else "noesn"
    return "-".join(filter(None, (proposal.encr, proposal.integ, proposal.ke if pfs else None, esn)))


_PLUGINS = "random nonce openssl curve25519 gcm chapoly aes sha2 hmac kdf gmp pem pkcs1 pkcs8 pubkey x509 constraints"

_SETTINGS = """
charon-systemd {{
    load = {plugins} {esp} socket-default vici
    install_virtual_ip = no
    retransmit_timeout = 1
    retransmit_tries = 3
    retransmit_base = 1.5
    delete_rekeyed_delay = 1
    filelog {{
        file {{
            path = {folder}/charon.log
            default = {log_level}
            flush_line = yes
        }}
    }}
    syslog {{
    }}
    journal {{
        default = -1
    }}
    plugins {{
        vici {{
            socket = unix://{folder}/vici
        }}
        # In userspace the peer's own address is in the tunnel, and only marked packets go around it.
        kernel-libipsec {{
            allow_peer_ts = yes
        }}
        kernel-netlink {{
            fwmark = !0x42
        }}
        socket-default {{
            fwmark = 0x42
        }}
    }}
    {more}
}}
"""

_CONNECTION = """
connections {{
    ike{number} {{
        version = 2
        local_addrs = {connection.local}
        remote_addrs = {connection.remote}
        proposals = {ike}
        encap = {encap}
        mobike = no
        rekey_time = 0
        local {{
            auth = {authentication}
            id = {connection.local_id}
            {local_key}
        }}
        remote {{
            auth = {authentication}
            id = {connection.remote_id}
            {remote_key}
        }}
        children {{
            child{number} {{
                mode = {mode}
                esp_proposals = {esp}
                local_ts = {local_traffic}
                remote_ts = {remote_traffic}
                start_action = {start}
                rekey_time = 0
            }}
        }}
    }}
}}
"""
