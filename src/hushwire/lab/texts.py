"""A small DNS server over TCP, for programs that speak DNS to a host: a name's TXT record is a file of a folder.

python -m hushwire.lab.texts FOLDER
"""

import socket
import sys
from pathlib import Path
from socketserver import StreamRequestHandler, ThreadingTCPServer

import dns.message
import dns.rdataclass
import dns.rdatatype
import dns.rrset

SEPARATE = 2
"""Octets of the length before each message (RFC 1035 s4.2.2)."""


class Texts(ThreadingTCPServer):
    """By IPv4 and by IPv6."""

    address_family = socket.AF_INET6
    allow_reuse_address = True
    daemon_threads = True

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        super().__init__(("::", 53), Answering)


class Answering(StreamRequestHandler):
    """One question of one connection."""

    def handle(self) -> None:
        length = int.from_bytes(self.rfile.read(SEPARATE))
        if not length:
            # It only wanted to know whether somebody is there.
            return
        query = dns.message.from_wire(self.rfile.read(length))
        reply = dns.message.make_response(query)
        name = query.question[0].name
        assert isinstance(self.server, Texts)
        text = (self.server.folder / name.labels[0].decode()).read_text()
        reply.answer.append(dns.rrset.from_text(name, 0, dns.rdataclass.IN, dns.rdatatype.TXT, text))
        octets = reply.to_wire()
        self.wfile.write(len(octets).to_bytes(SEPARATE) + octets)


if __name__ == "__main__":
    with Texts(Path(sys.argv[1])) as server:
        print("ready", flush=True)
        server.serve_forever()
