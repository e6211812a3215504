"""Who has to do with an address, and which IKE SAs are whose, is known without a search: the same as with one."""

import pytest

from hushwire.node.peers import Peers
from hushwire.node.seeking import Seeking
from hushwire.sim.crowd import Crowd, CrowdCheck
from hushwire.sim.host import Host


@pytest.mark.parametrize("seed", range(3))
def test_an_index_finds_what_a_search_finds(monkeypatch: pytest.MonkeyPatch, seed: int) -> None:
    """While names change their addresses and keys, hosts begin anew and packets are lost."""
    found = _compare(monkeypatch)
    Crowd(seed).run()
    assert min(found.values()) > 100, found


def test_who_is_not_touched_is_not_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """The control: the index is told to whom something happens, and knows nothing else."""
    _compare(monkeypatch)
    monkeypatch.setattr(Peers, "touch", lambda self, peer: (self.touched.update({peer: None}), peer)[1])
    with pytest.raises(AssertionError, match="unlike a search"):
        Crowd(0).run()


def _compare(monkeypatch: pytest.MonkeyPatch) -> dict[str, int]:
    """After every step, for all addresses and peers; how often something was found."""
    found = {"holding": 0, "introduced_at": 0, "sas_of": 0}
    stepped = CrowdCheck.stepped

    def compare(self: CrowdCheck, host: Host) -> None:
        stepped(self, host)
        node = host.node
        peers = list(node.peers._by_reqid.values())
        for address in {address for peer in peers for address in (*peer.addresses, *peer.admitted)}:
            for but in peers:
                for question in (Peers.holding, Peers.introduced_at):
                    answer = question(node.peers, address, but)
                    with monkeypatch.context() as patch:
                        patch.setattr(Peers, "about", lambda *_: [peer for peer in peers if not peer.is_trap])
                        assert answer is question(node.peers, address, but), "unlike a search"
                    found[question.__name__] += answer is not None
        seeking: Seeking = node._seeking
        for peer in peers:
            searched = [sa for sa in node.ike.sas if sa.peer is not None and sa.peer.reqid == peer.reqid]
            assert sorted(seeking.sas_of(peer), key=id) == sorted(searched, key=id), "unlike a search"
            found["sas_of"] += len(searched)

    monkeypatch.setattr(CrowdCheck, "stepped", compare)
    return found
