"""One host's whole mind: rules, names and packets in, IKE and policies out (DESIGN.md section 1)."""

from hushwire.node.node import Node
from hushwire.node.peers import Secrets

__all__ = ["Node", "Secrets"]
