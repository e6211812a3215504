"""UDP sockets."""

import socket

from hushwire.linux import xfrm_codec


def encapsulating(version: int, port: int) -> socket.socket:
    """A socket for the kernel."""
    made = socket.socket(socket.AF_INET if version == 4 else socket.AF_INET6, socket.SOCK_DGRAM)
    made.setsockopt(17, 100, 2)
    level, option = (socket.IPPROTO_IP, 17) if version == 4 else (socket.IPPROTO_IPV6, 35)
    for direction in (0, 1):
        made.setsockopt(level, option, xfrm_codec.bypass(made.family, direction))
    made.bind(("", port))
    return made
