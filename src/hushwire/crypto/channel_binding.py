"""Channel bindings of end-point kind (RFC 5056 s2.1): what both ends of a flow compute alike, and nobody else.

An application that authenticates by other means, and puts this into what it authenticates, knows that nobody stands
between: towards each of the two he would have another key, and so another value.  It stays the same over rekeys, new
IKE SAs and restarts, for as long as both ends keep their keys.
"""

import hashlib

from hushwire.crypto.keys import PublicKey

LABEL = b"hushwire-end-point:"
"""RFC 5056 s2.1: a prefix of its own, so that it is never mistaken for a binding to another kind of channel."""


def channel_binding(ours: PublicKey, theirs: PublicKey) -> bytes:
    """32 octets; the same whichever end computes it."""
    return hashlib.sha256(LABEL + b"".join(sorted((ours.fingerprint, theirs.fingerprint)))).digest()
