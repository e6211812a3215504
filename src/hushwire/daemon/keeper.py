"""The keeper's process: the only one that holds identity keys.  It signs AUTH octets and nothing else.

No network, no files once it has read its own, no capabilities.  A new key comes as a descriptor of its file, opened
by the parent, who does not read it.
"""

import select
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from hushwire.crypto.auth import Scheme, is_auth_octets, shared_key_auth, sign
from hushwire.crypto.keys import PrivateKey
from hushwire.crypto.secret import Secret
from hushwire.crypto.suite import PRF
from hushwire.daemon import keyfile
from hushwire.daemon.channel import Channel, ChannelClosed
from hushwire.events import HostKey, ReadKey, Refused, Sign, Signed

SHARED_KEY = {f"SHARED_KEY/{prf.name}": prf for prf in PRF}
"""The ways to use a shared key: one for each PRF that we compute."""
MOST_KEYS = 4
"""Host keys that are held, the last ones: exchanges that are under way when it is switched go on with the old one."""


@dataclass(frozen=True, slots=True)
class Ready:
    """The keeper has read its keys."""

    public: bytes
    """SubjectPublicKeyInfo of the host's key; empty without one."""


@dataclass(frozen=True, slots=True)
class Unusable:
    """A key file is not as it must be."""

    reason: str
    """One line."""


def main(
    parent: Channel, node: Channel, key: Path | None, shared: Mapping[bytes, Path], confine: Callable[[], None]
) -> None:
    """Read the keys, say so to the parent, give up everything else, and serve until one of the two is gone."""
    try:
        keeper = Keeper(
            keyfile.read_private(key) if key is not None else None,
            {name: keyfile.read_shared(file) for name, file in shared.items()},
        )
    except keyfile.KeyFileError as error:
        parent.send(Unusable(str(error)))
        return
    confine()
    parent.send(Ready(keeper.public))
    poll = select.poll()
    for channel in (parent, node):
        poll.register(channel.fileno(), select.POLLIN)
    try:
        while True:
            for ready, _ in poll.poll():
                if ready == node.fileno():
                    for request in node.receive():
                        if isinstance(request, Sign):
                            node.send(keeper.answer(request))
                elif key is not None:
                    (request,), (descriptor,) = parent.receive_files()
                    node.send(keeper.read(request, key, descriptor))
                else:
                    raise ChannelClosed
    except ChannelClosed:
        return


class Keeper:
    """The keys and what they are good for."""

    def __init__(self, key: PrivateKey | None, shared: Mapping[bytes, Secret]) -> None:
        self._keys = [key] if key is not None else []
        """The host's, the newest last."""
        self._shared = shared

    @property
    def public(self) -> bytes:
        """SubjectPublicKeyInfo of the host's key; empty without one."""
        return self._keys[-1].public.spki if self._keys else b""

    def read(self, request: ReadKey, file: Path, descriptor: int) -> HostKey | Refused:
        """Take what is in the key file now for the host's key, or say what is wrong with it; closes `descriptor`."""
        try:
            key = keyfile.read_private(file, descriptor)
        except keyfile.KeyFileError as error:
            return Refused(request.request, str(error))
        others = [other for other in self._keys if other.public != key.public]
        self._keys = [*others, key][-MOST_KEYS:]
        return HostKey(request.request, self.public)

    def answer(self, request: Sign) -> Signed | Refused:
        """A signature, or why not.  Only octets of the RFC 7296 s2.15 shape are signed, so this is no oracle."""
        if not is_auth_octets(request.octets):
            return Refused(request.request, "these are no AUTH octets")
        if request.scheme in SHARED_KEY and request.key in self._shared:
            auth = shared_key_auth(SHARED_KEY[request.scheme], self._shared[request.key], request.octets)
            return Signed(request.request, auth)
        key = next((key for key in self._keys if key.public.fingerprint == request.key), None)
        if key is None:
            return Refused(request.request, "no such key is kept here")
        if request.scheme not in Scheme.__members__ or key.kind not in Scheme[request.scheme].kinds:
            return Refused(request.request, "the key cannot sign that way")
        return Signed(request.request, sign(key, Scheme[request.scheme], request.octets))
