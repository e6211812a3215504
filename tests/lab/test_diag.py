"""The kernel's table of sockets: which connections are found, and what their programs see when they are ended."""

import sys
from pathlib import Path

import pytest

from hushwire.lab.namespaces import Topology

STORY = """
import errno, socket
from ipaddress import ip_address, ip_network
from hushwire.daemon import flows
from hushwire.events import CloseFlows, CountFlows, FlowsFound
from hushwire.linux.diag import SockDiag

ends = [ip_address(text) for text in sys.argv[1:]]

def connections(remote):
    with SockDiag() as diag:
        return list(diag.connections(ip_network(remote)))

listeners = [
    socket.create_server(("", 4000)),
    socket.create_server(("::", 4006), family=socket.AF_INET6, dualstack_ipv6=True),
]
assert flows.can_close()
for address in ends:
    family = socket.AF_INET if address.version == 4 else socket.AF_INET6
    assert connections(str(address)) == []
    tcp = socket.create_connection((str(address), 4006))
    served, _ = listeners[1].accept()
    udp = socket.socket(family, socket.SOCK_DGRAM)
    udp.connect((str(address), 4000))
    loose = socket.socket(family, socket.SOCK_DGRAM)
    loose.bind(("", 0))
    beginning = socket.socket(family)
    beginning.setblocking(False)
    assert beginning.connect_ex((NOWHERE[address.version], 4000)) == errno.EINPROGRESS

    found = connections(str(address))
    assert {(each.flow.protocol, each.flow.remote_port) for each in found} == {
        (6, 4006), (17, 4000), (6, tcp.getsockname()[1]),
    }, found
    assert {each.flow.remote for each in found} == {address}
    assert {each.uid for each in found} == {0}
    [there] = connections(NOWHERE[address.version])
    assert not there.answered

    # A mapped address is the IPv4 one; a wider network has them all; another has none.
    wide = ip_network((int(address), 24 if address.version == 4 else 64), strict=False)
    assert len(connections(str(wide))) == len(found) + 1
    other = ip_network("198.51.100.0/24" if address.version == 4 else "2001:db8:ffff::/48")
    assert flows.answer(CountFlows(1, (other,))) == FlowsFound(1, 0)
    assert flows.answer(CloseFlows(2, (other,))) == FlowsFound(2, 0)
    assert tcp.send(b"as before") == 9

    # What only begins is left: nobody has answered it.
    assert flows.answer(CountFlows(3, (wide,))) == FlowsFound(3, 4)
    assert flows.answer(CloseFlows(4, (wide,))).flows in (2, 3), "the other end of a TCP connection may go with it"
    assert [each.flow.remote_port for each in connections(str(wide))] == [4000]
    for ended in (tcp, udp):
        try:
            ended.send(b"into nowhere")
        except OSError as error:
            assert error.errno in (errno.ECONNABORTED, errno.ECONNRESET, errno.EPIPE, errno.EDESTADDRREQ), error
        else:
            raise AssertionError(f"{ended} goes on")
    # A socket without a peer has lost nothing.
    assert loose.sendto(b"on", (str(address), 4000)) == 2
    for sock in (tcp, served, udp, loose, beginning):
        sock.close()
print("well")
"""


@pytest.mark.lab
def test_connections_are_found_and_ended(tmp_path: Path) -> None:
    script = tmp_path / "story.py"
    nowhere = {4: "192.0.2.77", 6: "2001:db8::77"}
    with Topology(("alice", "bob")) as topology:
        alice = topology["alice"]
        topology.bridge()
        for version, address in nowhere.items():
            # A neighbour that never answers: a SYN is under way to it for a while.
            alice.run(
                "ip", f"-{version}", "neigh", "add", address, "lladdr", "02:00:00:00:00:77", "dev", "eth0",
                "nud", "permanent",
            )  # fmt: skip
        script.write_text(f"import sys\nNOWHERE = {nowhere!r}\n{STORY}")
        assert alice.run(sys.executable, str(script), str(alice.v4), str(alice.v6)).stdout == "well\n"
