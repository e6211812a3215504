"""Strangers who say who they are: whether we look that up (DESIGN.md law 7; RFC 4301 s4.4.3).

A claim reaches us in IKE_AUTH, which only decrypts for who had our IKE_SA_INIT response: no forged source gets here.
"""

from collections.abc import Sequence

from hushwire.ike.errors import Unauthorized
from hushwire.names.allow import AllowList, Pace
from hushwire.names.name import BadName, host_name
from hushwire.node.peer import Peer
from hushwire.node.peers import Crowded, Peers
from hushwire.node.rulebook import Rules, refuses
from hushwire.policy.assurance import Assurance
from hushwire.policy.pad import Identity
from hushwire.wire.address import IPAddress
from hushwire.wire.registry import IDType


class Claims:
    """Identities that no peer has yet."""

    def __init__(self, patterns: Sequence[str], peers: Peers) -> None:
        self._allowed = AllowList(patterns)
        self._pace = Pace()
        self._peers = peers

    def admit(self, identity: Identity, source: IPAddress, now: float) -> Peer:
        """The peer that a stranger would be, to be looked up.  Raises Unauthorized."""
        try:
            if identity.type is IDType.FQDN:
                return self._of_name(identity, source, now)
            if identity == Identity.address(source):
                return self._of_address(source, now)
        except Crowded as error:
            raise Unauthorized(str(error)) from None
        raise Unauthorized(f"no rule speaks of {identity}")

    def _of_name(self, identity: Identity, source: IPAddress, now: float) -> Peer:
        try:
            name = host_name(identity.data.decode("ascii"))
        except (BadName, UnicodeDecodeError):
            raise Unauthorized(f"{identity} is no name of a host") from None
        # One name, one identity: what is only alike after it was mended is another's (ATTACKS row 27).
        if Identity.fqdn(name) != identity:
            raise Unauthorized(f"{identity} is not how {name} is written")
        rules = self._peers.rulebook.for_name(name)
        if rules is None or not self._allowed.allows(name):
            raise Unauthorized(f"no rule speaks of {identity}, or dns.ask does not allow to look it up")
        self._judge(rules, identity)
        self._hurry(source, now)
        return self._peers.of_name(name, rules)

    def _of_address(self, source: IPAddress, now: float) -> Peer:
        rules = self._peers.rulebook.for_address(source)
        if rules is None:
            raise Unauthorized(f"no rule speaks of {source}")
        self._judge(rules, Identity.address(source))
        self._hurry(source, now)
        peer = self._peers.of_address(source)
        assert peer is not None
        return peer

    def _judge(self, rules: Rules, identity: Identity) -> None:
        if rules[0].require is Assurance.CLEAR or refuses(rules):
            raise Unauthorized(f"the rule about {identity} wants no IPsec")

    def _hurry(self, source: IPAddress, now: float) -> None:
        if not self._pace.admits(source, now):
            raise Unauthorized("too many strangers at once")
