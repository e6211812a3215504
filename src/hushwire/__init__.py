"""hushwire: IPsec for hosts that were never introduced."""

from importlib import import_module
from typing import TYPE_CHECKING

__all__ = ["Insufficient", "Peer", "Unavailable", "peer", "require"]

if TYPE_CHECKING:
    from hushwire.application import Insufficient, Peer, Unavailable, peer, require
else:

    def __getattr__(name: str) -> object:
        # What programs ask with is loaded by who asks: the rooms of the daemon have nothing to do with it.
        if name not in __all__:
            raise AttributeError(f"module 'hushwire' has no attribute {name!r}")
        return getattr(import_module("hushwire.application"), name)
