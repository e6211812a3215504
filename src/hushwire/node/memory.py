"""Which names have reached the level that their rule requires, which never sinks silently (DESIGN.md section 4)."""

from hushwire.node.peer import Peer

MOST_REMEMBERED = 1 << 16
"""Names that are known to have reached their level, after nobody has used them for a while."""


class Memory:
    """Of names that rules about many brought in.  It lasts as long as the Node."""

    def __init__(self) -> None:
        self._reached: dict[str, None] = {}
        """The latest last."""

    def __contains__(self, name: str) -> bool:
        return name in self._reached

    def recall(self, peer: Peer) -> None:
        """Have a peer that is here again be what it was."""
        peer.reached = peer.reached or peer.name in self

    def keep(self, peer: Peer) -> None:
        """A peer has reached its level."""
        if peer.born and peer.rule.name is not None:
            self._reached.pop(peer.name, None)
            self._reached[peer.name] = None
            if len(self._reached) > MOST_REMEMBERED:
                del self._reached[next(iter(self._reached))]
