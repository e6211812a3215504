"""The Encrypted payload: messages sealed and opened with an IKE SA's keys (RFC 7296 s3.14, RFC 5282)."""

from collections.abc import Sequence

from hushwire.crypto.cipher import IkeCipher, IntegrityError
from hushwire.crypto.prf import IkeKeys
from hushwire.crypto.suite import IkeSuite
from hushwire.entropy import Entropy
from hushwire.wire.message import Header, Message, read_payloads, sealed_prefix, write_payloads
from hushwire.wire.payload import Encrypted, Payload


class Protection:
    """Both directions of one IKE SA."""

    def __init__(self, suite: IkeSuite, keys: IkeKeys, entropy: Entropy, *, initiator: bool) -> None:
        forth, back = (keys.ei, keys.ai), (keys.er, keys.ar)
        ours, theirs = (forth, back) if initiator else (back, forth)
        self._seal = IkeCipher(suite, *ours, entropy)
        self._open = IkeCipher(suite, *theirs, entropy)

    def seal(self, header: Header, payloads: Sequence[Payload]) -> bytes:
        """A whole message whose payloads nobody else can read or change."""
        first, plaintext = write_payloads(payloads)
        prefix = sealed_prefix(header, first, self._seal.sealed_length(len(plaintext)))
        return prefix + self._seal.seal(prefix, plaintext)

    def open(self, message: Message) -> "Opened":
        """What is inside: integrity checked, not yet read.  Raises IntegrityError, for a message in clear too."""
        sealed = message.payloads[-1] if message.payloads else None
        if not isinstance(sealed, Encrypted):
            raise IntegrityError("not encrypted")
        return Opened(message.header, sealed, self._open.open(message.associated, sealed.body))


class Opened:
    """A message of the peer's, whatever it says."""

    def __init__(self, header: Header, sealed: Encrypted, plaintext: bytes) -> None:
        self._header = header
        self._sealed = sealed
        self._plaintext = plaintext

    def read(self) -> Message:
        """Its payloads.  Raises DecodeError: the peer, and nobody else, sent what is no message."""
        return Message(self._header, read_payloads(self._sealed.first, self._plaintext))
