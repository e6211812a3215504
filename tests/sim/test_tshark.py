"""Another pair of eyes: tshark reads a world's wire with our keys, IKE and ESP alike."""

from pathlib import Path

import pytest

from hushwire.config import Config, Esp, Ike, Rule
from hushwire.config import Host as HostConfig
from hushwire.config.proposal import esp_offer, ike_offer
from hushwire.crypto.secret import Secret
from hushwire.events import Disconnect, Rekey
from hushwire.lab.capture import EspDecryption, IkeDecryption, dissect
from hushwire.sim.host import CANARY, Host
from hushwire.sim.pair import ALICE, BOB, pair
from hushwire.sim.pcap import write_pcap
from hushwire.sim.world import World

pytestmark = pytest.mark.lab

SUITES = [
    ("aes256gcm16-prfsha256-x25519", "aes256gcm16-x25519", "aes256gcm16", None),
    ("aes256-sha256-prfsha256-ecp256", "aes256-sha256-ecp256", "aes256", "sha256"),
]


def ike_keys(host: Host, encr: str, integ: str | None) -> list[IkeDecryption]:
    return [
        IkeDecryption(view.spi_i, view.spi_r, encr, keys.ei, keys.er, integ, keys.ai, keys.ar)
        for view in host.views.values()
        for keys in (view.keys,)
    ]


def esp_keys(host: Host, encr: str, integ: str | None) -> list[EspDecryption]:
    return [
        EspDecryption(sa.source, sa.destination, sa.spi, encr, sa.encr_key, integ, sa.integ_key)
        for sas in host.installed.values()
        for sa in sas
    ]


@pytest.fixture(params=SUITES, ids=lambda suite: suite[2])
def story(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[Path, Host, str, str | None]:
    ike, esp, encr, integ = request.param
    configs = (
        Config(HostConfig(name), ike=Ike((ike_offer(ike),)), esp=Esp((esp_offer(esp),)), rules=(Rule(peer),))
        for name, peer in ((ALICE, BOB), (BOB, ALICE))
    )
    world = World(1)
    alice, bob = pair(world, *configs)
    for host in (alice, bob):
        host.start()
    world.run(1)
    for step in (
        lambda: alice.say(BOB),
        lambda: bob.tell(Rekey(1, ALICE, False)),
        lambda: bob.say(ALICE),
        lambda: alice.tell(Rekey(1, BOB, True)),
        lambda: alice.tell(Disconnect(1, BOB)),
    ):
        step()
        world.run(1)
    assert len(bob.heard) == len(alice.heard) == 1
    pcap = tmp_path / "world.pcap"
    with pcap.open("wb") as file:
        write_pcap(world.wire, file)
    return pcap, alice, encr, integ


def test_tshark_reads_what_we_sealed(story: tuple[Path, Host, str, str | None]) -> None:
    pcap, alice, encr, integ = story
    keys = {"ike": ike_keys(alice, encr, integ), "esp": esp_keys(alice, encr, integ)}
    frames = dissect(pcap, "isakmp.exchangetype", "isakmp.typepayload", "isakmp.notify.msgtype", show="isakmp", **keys)
    auth = [set(frame["isakmp.typepayload"]) for frame in frames if frame["isakmp.exchangetype"] == ("35",)]
    # RFC 7296 s3.2: SK, and in it IDi 35 or IDr 36, CERT 37, AUTH 39, SA 33, TSi 44, TSr 45.
    assert [payloads >= {"46", "37", "39", "33", "44", "45"} for payloads in auth] == [True, True]
    assert ["35" in payloads for payloads in auth] == [True, False]
    exchanges = [frame["isakmp.exchangetype"] for frame in frames]
    assert exchanges.count(("36",)) == 4
    assert any("42" in frame["isakmp.typepayload"] for frame in frames)
    # 16393 is REKEY_SA.
    assert any("16393" in frame["isakmp.notify.msgtype"] for frame in frames)
    data = dissect(pcap, "data.data", show="esp", **keys)
    assert [bytes.fromhex(value) for frame in data for value in frame["data.data"]] == [
        CANARY + b"alice.example-0",
        CANARY + b"bob.example-0",
    ]


def test_without_the_keys_it_reads_nothing(story: tuple[Path, Host, str, str | None]) -> None:
    """The control: what was read above was read with the keys."""
    pcap, *_ = story
    frames = dissect(pcap, "isakmp.typepayload", show="isakmp")
    assert not any({"39", "35", "42"} & set(frame["isakmp.typepayload"]) for frame in frames)
    assert CANARY not in pcap.read_bytes()
    assert not any(frame["data.data"] for frame in dissect(pcap, "data.data", show="esp"))


def test_with_other_keys_esp_is_nonsense(story: tuple[Path, Host, str, str | None]) -> None:
    pcap, alice, encr, integ = story
    wrong = [
        EspDecryption(key.source, key.destination, key.spi, encr, Secret(bytes(len(key.key))), integ, key.integ_key)
        for key in esp_keys(alice, encr, integ)
    ]
    read = "".join(value for frame in dissect(pcap, "data.data", show="esp", esp=wrong) for value in frame["data.data"])
    assert CANARY.hex() not in read
