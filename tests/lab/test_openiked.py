"""What ikectl prints is read; iked itself is tried in test_kernel_peers.py."""

from hushwire.lab.openiked import read_sas
from hushwire.lab.peer import PeerChildSA, PeerIkeSA

SAS = """\
iked_sas: 0x552ab8d1c0 rspi 0x056e829edb784432 ispi 0xc08526d2f5758db0 192.0.2.1:500->192.0.2.2:500\
<FQDN/bob.example>[] ESTABLISHED i nexti (nil) pol 0x552ab8db30
  sa_childsas: 0x552abd52c0 ESP 0xc78345fe out 192.0.2.1:500 -> 192.0.2.2:500 (L) B=(nil) P=0x552abd5370 @0x552ab8d1c0
  sa_childsas: 0x552abd5370 ESP 0x4bdce3e2 in 192.0.2.2:500 -> 192.0.2.1:500 (LA) B=(nil) P=0x552abd52c0 @0x552ab8d1c0
  sa_flows: 0x552abd5080 ESP out 192.0.2.2/32 -> 192.0.2.1/32 [0]@-1 (L) @0x552ab8d1c0
iked_sas: 0x552ab8b000 rspi 0xa0f07d5025dbe5ad ispi 0xe1e6184c40f713bf 192.0.2.1:500->192.0.2.2:500<>[] \
SA_INIT r nexti (nil) pol 0x552ab8c940
iked_activesas: 0x552abd5370 ESP 0x4bdce3e2 in 192.0.2.2:500 -> 192.0.2.1:500 (LA) B=(nil) P=0x552abd52c0 @0x552ab8d1c0
iked_dstid_sas: 0x552ab8d1c0 rspi 0x056e829edb784432 ispi 0xc08526d2f5758db0 192.0.2.1:500->192.0.2.2:500\
<FQDN/bob.example>[] ESTABLISHED i nexti (nil) pol 0x552ab8db30
"""


def test_the_list_of_sas() -> None:
    first, second = (bytes.fromhex(spi) for spi in ("c08526d2f5758db0", "056e829edb784432"))
    third, fourth = (bytes.fromhex(spi) for spi in ("e1e6184c40f713bf", "a0f07d5025dbe5ad"))
    assert read_sas(SAS) == [
        PeerIkeSA("ESTABLISHED", first, second, True, "bob.example", (PeerChildSA("LOADED", 0x4BDCE3E2, 0xC78345FE),)),
        PeerIkeSA("SA_INIT", third, fourth, False, ""),
    ]
    assert read_sas("") == []
