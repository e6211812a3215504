"""XFRM's structures: SAs, policies and events to and from the octets of linux/xfrm.h."""

from collections.abc import Container
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from struct import Struct
from typing import NamedTuple

from hushwire.crypto.secret import Secret
from hushwire.events import Acquire, Expire, Mapping
from hushwire.linux.netlink import Message, attribute, read_attributes
from hushwire.policy.sad import SA, Direction, Encapsulation, EspSuite, Lifetime, Mode, SAName
from hushwire.policy.selector import Flow, Selector
from hushwire.policy.spd import Action, Policy
from hushwire.wire.address import Endpoint, IPAddress, IPNetwork
from hushwire.wire.registry import EncrID, IntegID

# --- The messages, in the letters of `struct`: native order, padding written out; what is big endian is octets here ---

U32 = Struct("=I")
ALL_BITS = 0xFFFF_FFFF
ADDRESS = Struct("=16s")
SELECTOR = Struct("=16s 16s 2s 2s 2s 2s H B B B 3x i I")
"""daddr, saddr, dport and mask, sport and mask, family, prefixlen_d, prefixlen_s, proto, ifindex, user."""
LIFETIME = Struct("=4Q 4Q")
"""Soft and hard bytes, soft and hard packets, soft and hard seconds since added, the same since used."""
USED = Struct("=4Q")
"""Bytes, packets, time of adding, time of first use (seconds since the epoch)."""
SA_INFO = Struct(f"={SELECTOR.size}s 16s 4s B 3x 16s {LIFETIME.size}s {USED.size}s 3I I I H B B B 7x")
"""Selector, destination, SPI, protocol, source, lifetime, used, statistics, seq, reqid, family, mode, window, flags."""
SA_ID = Struct("=16s 4s H B x")
"""Destination, SPI, family, protocol."""
POLICY_INFO = Struct(f"={SELECTOR.size}s {LIFETIME.size}s {USED.size}s I I B B B B 4x")
"""Selector, lifetime, used, priority, index, direction, action, flags, share."""
POLICY_ID = Struct(f"={SELECTOR.size}s I B 3x")
"""Selector, index, direction."""
TEMPLATE = Struct("=16s 4s B 3x H 2x 16s I B B B x 3I")
"""Destination, SPI, protocol, family, source, reqid, mode, share, optional, algorithms allowed (three bit masks)."""
ACQUIRE = Struct(f"=16s 4s B 3x 16s {SELECTOR.size}s {POLICY_INFO.size}s 3I I")
"""Destination, SPI, protocol, source, the packet's selector, its policy, algorithms, seq."""
EXPIRE = Struct(f"={SA_INFO.size}s B 7x")
MAPPING = Struct(f"={SA_ID.size}s I 16s 16s 2s 2s")
"""SA, reqid, old and new source address, old and new source port."""
ENCAP = Struct("=H 2s 2s 2x 16s")
"""Type, source port, destination port, original address."""
ALGORITHM = Struct("=64s I")
"""Name, key length in bits; the key follows."""
ALGORITHM_TRUNCATED = Struct("=64s I I")
"""Name, key and ICV lengths in bits; the key follows."""
REPLAY_ESN = Struct("=6I")
"""Length of the bit map in words, oseq, seq, oseq_hi, seq_hi, window; the bit map follows."""

MSG_NEWSA, MSG_DELSA, MSG_GETSA, MSG_NEWPOLICY, MSG_DELPOLICY, MSG_GETPOLICY = range(0x10, 0x16)
MSG_ACQUIRE, MSG_EXPIRE, MSG_UPDPOLICY, MSG_UPDSA, MSG_MAPPING = 0x17, 0x18, 0x19, 0x1A, 0x26
ATTR_ALG_AUTH, ATTR_ALG_CRYPT, ATTR_ENCAP, ATTR_TMPL = 1, 2, 4, 5
ATTR_ALG_AEAD, ATTR_ALG_AUTH_TRUNC, ATTR_MARK, ATTR_REPLAY_ESN_VAL, ATTR_SET_MARK, ATTR_SET_MARK_MASK = (
    18,
    20,
    21,
    23,
    29,
    30,
)

AF_UNSPEC, AF_INET, AF_INET6 = 0, 2, 10
IPPROTO_ESP = 50
MODES = {Mode.TRANSPORT: 0, Mode.TUNNEL: 1}
STATE_AF_UNSPEC, STATE_ESN = 32, 128
POLICY_IN, POLICY_OUT, POLICY_FWD = 0, 1, 2
POLICY_ALLOW, POLICY_BLOCK = 0, 1
UDP_ENCAP_ESPINUDP = 2
FOREVER = (1 << 64) - 1
"""XFRM_INF: a limit of octets or packets that is none.  For seconds it is 0."""
ANY_ALGORITHM = 0xFFFFFFFF
WITH_PORTS = frozenset((6, 17, 33, 132, 136))
"""TCP, UDP, DCCP, SCTP, UDP-Lite.  For ICMP the kernel puts type and code where the ports are."""


class Aead(NamedTuple):
    name: str
    salt: int
    """Octets of KEYMAT after the cipher's key."""
    icv: int
    """Bits."""


AEADS = {
    EncrID.AES_GCM_16: Aead("rfc4106(gcm(aes))", 4, 128),
    EncrID.AES_GCM_12: Aead("rfc4106(gcm(aes))", 4, 96),
    EncrID.AES_GCM_8: Aead("rfc4106(gcm(aes))", 4, 64),
    EncrID.AES_CCM_16: Aead("rfc4309(ccm(aes))", 3, 128),
    EncrID.CHACHA20_POLY1305: Aead("rfc7539esp(chacha20,poly1305)", 4, 128),
}
CIPHERS = {EncrID.AES_CBC: "cbc(aes)"}
INTEGRITIES = {
    IntegID.HMAC_SHA2_256_128: ("hmac(sha256)", 128),
    IntegID.HMAC_SHA2_384_192: ("hmac(sha384)", 192),
    IntegID.HMAC_SHA2_512_256: ("hmac(sha512)", 256),
}
"""Name, and bits of the ICV."""


class Unspoken(Exception):
    """Something in the kernel's tables, or asked of them, that hushwire has no word for."""


# --- Security associations --------------------------------------------------------------------------------------------


def write_sa(sa: SA, mark: int | None = None, *, any_selector: bool = False) -> bytes:
    """The body of NEWSA or UPDSA.  `mark` is what its packets bear afterwards; None: what they bore before."""
    if sa.spi <= 255:
        # RFC 4303 s2.1: reserved, though the kernel would take it.
        raise Unspoken(f"SPI {sa.spi} is reserved")
    family = _family(sa.destination)
    flags = STATE_ESN if sa.suite.esn else 0
    if _family(sa.selector.local.network_address) == family and not any_selector:
        selector = write_selector(sa.selector, sa.direction)
    else:
        # The kernel compares an SA's selector with the outer family; a tunnel between families leaves it to the policy.
        selector, flags = bytes(SELECTOR.size), flags | STATE_AF_UNSPEC
    body = SA_INFO.pack(
        selector, write_address(sa.destination), _big(sa.spi, 4), IPPROTO_ESP, write_address(sa.source),
        _write_lifetime(sa.lifetime), bytes(USED.size), 0, 0, 0, sa.acquire, sa.reqid, family, MODES[sa.mode], 0, flags,
    )  # fmt: skip
    body += _write_algorithms(sa.suite, sa.encr_key, sa.integ_key)
    if sa.replay_window or sa.suite.esn:
        words = (sa.replay_window + 31) // 32
        body += attribute(ATTR_REPLAY_ESN_VAL, REPLAY_ESN.pack(words, 0, 0, 0, 0, sa.replay_window), bytes(4 * words))
    if sa.encapsulation:
        ports = _big(sa.encapsulation.source_port, 2), _big(sa.encapsulation.destination_port, 2)
        body += attribute(ATTR_ENCAP, ENCAP.pack(UDP_ENCAP_ESPINUDP, *ports, bytes(16)))
    if mark is not None:
        body += attribute(ATTR_SET_MARK, U32.pack(mark)) + attribute(ATTR_SET_MARK_MASK, U32.pack(ALL_BITS))
    return body


def read_sa(body: bytes, own: Container[IPAddress]) -> SA:
    """The SA in a NEWSA.  The kernel keeps no direction: inbound is what ends at one of our `own` addresses."""
    (selector, destination, spi, protocol, source, lifetime, _used, _, _, _, sequence, reqid, family, mode, window,
     flags) = SA_INFO.unpack_from(body)  # fmt: skip
    if protocol != IPPROTO_ESP or mode not in MODES.values():
        raise Unspoken(f"SA of protocol {protocol} in mode {mode}")
    attributes = read_attributes(body[SA_INFO.size :])
    direction = Direction.IN if read_address(destination, family) in own else Direction.OUT
    suite, encr_key, integ_key = _read_algorithms(attributes, bool(flags & STATE_ESN))
    if ATTR_REPLAY_ESN_VAL in attributes:
        window = REPLAY_ESN.unpack_from(attributes[ATTR_REPLAY_ESN_VAL])[5]
    encapsulation = None
    if ATTR_ENCAP in attributes:
        _type, source_port, destination_port, _ = ENCAP.unpack(attributes[ATTR_ENCAP])
        encapsulation = Encapsulation(int.from_bytes(source_port, "big"), int.from_bytes(destination_port, "big"))
    return SA(
        spi=int.from_bytes(spi, "big"),
        direction=direction,
        source=read_address(source, family),
        destination=read_address(destination, family),
        mode=Mode.TUNNEL if mode else Mode.TRANSPORT,
        suite=suite,
        encr_key=encr_key,
        integ_key=integ_key,
        selector=read_selector(selector, direction, family),
        reqid=reqid,
        lifetime=_read_lifetime(lifetime),
        encapsulation=encapsulation,
        replay_window=window,
        acquire=sequence,
    )


def read_usage(body: bytes) -> tuple[int, int]:
    """Octets and packets, of the SA in a NEWSA."""
    octets, packets, _, _ = USED.unpack(SA_INFO.unpack_from(body)[6])
    return octets, packets


def write_sa_id(name: SAName) -> bytes:
    """The body of DELSA or GETSA."""
    return SA_ID.pack(write_address(name.destination), _big(name.spi, 4), _family(name.destination), IPPROTO_ESP)


def _write_algorithms(suite: EspSuite, encr_key: Secret, integ_key: Secret) -> bytes:
    aead = AEADS.get(suite.encr)
    if aead and not suite.integ:
        _check(suite, encr_key, suite.key_bits // 8 + aead.salt)
        return attribute(
            ATTR_ALG_AEAD, ALGORITHM_TRUNCATED.pack(aead.name.encode(), 8 * len(encr_key), aead.icv), encr_key.expose()
        )
    if suite.encr not in CIPHERS or suite.integ not in INTEGRITIES:
        raise Unspoken(f"ESP with {suite}")
    name, icv = INTEGRITIES[suite.integ]
    _check(suite, encr_key, suite.key_bits // 8)
    return attribute(
        ATTR_ALG_CRYPT, ALGORITHM.pack(CIPHERS[suite.encr].encode(), 8 * len(encr_key)), encr_key.expose()
    ) + attribute(
        ATTR_ALG_AUTH_TRUNC, ALGORITHM_TRUNCATED.pack(name.encode(), 8 * len(integ_key), icv), integ_key.expose()
    )


def _check(suite: EspSuite, key: Secret, length: int) -> None:
    if len(key) != length:
        raise Unspoken(f"{suite}: a key of {len(key)} octets, where {length} are wanted")


def _read_algorithms(attributes: dict[int, bytes], esn: bool) -> tuple[EspSuite, Secret, Secret]:
    if ATTR_ALG_AEAD in attributes:
        name, bits, icv, key = _read_algorithm(ALGORITHM_TRUNCATED, attributes[ATTR_ALG_AEAD])
        for encr, aead in AEADS.items():
            if (aead.name, aead.icv) == (name, icv):
                return EspSuite(encr, bits - 8 * aead.salt, IntegID.NONE, esn), key, Secret(b"")
        raise Unspoken(f"SA with {name}")
    if not {ATTR_ALG_CRYPT, ATTR_ALG_AUTH_TRUNC} <= attributes.keys():
        raise Unspoken("SA without a cipher, or without an ICV")
    name, bits, _, encr_key = _read_algorithm(ALGORITHM, attributes[ATTR_ALG_CRYPT])
    auth, _, icv, integ_key = _read_algorithm(ALGORITHM_TRUNCATED, attributes[ATTR_ALG_AUTH_TRUNC])
    for encr, cipher in CIPHERS.items():
        for integ, integrity in INTEGRITIES.items():
            if cipher == name and integrity == (auth, icv):
                return EspSuite(encr, bits, integ, esn), encr_key, integ_key
    raise Unspoken(f"SA with {name} and {auth}")


def _read_algorithm(struct: Struct, value: bytes) -> tuple[str, int, int, Secret]:
    """Name, bits of the key, bits of the ICV (0 if there is none), key."""
    name, bits, *icv = struct.unpack_from(value)
    return name.rstrip(b"\0").decode(errors="replace"), bits, sum(icv), Secret(value[struct.size :][: bits // 8])


def _write_lifetime(lifetime: Lifetime) -> bytes:
    return LIFETIME.pack(
        lifetime.soft_bytes or FOREVER, lifetime.hard_bytes or FOREVER,
        lifetime.soft_packets or FOREVER, lifetime.hard_packets or FOREVER,
        lifetime.soft_seconds, lifetime.hard_seconds, 0, 0,
    )  # fmt: skip


def _read_lifetime(data: bytes) -> Lifetime:
    soft_bytes, hard_bytes, soft_packets, hard_packets, soft_seconds, hard_seconds, _, _ = LIFETIME.unpack(data)
    amounts = (0 if n == FOREVER else n for n in (soft_bytes, hard_bytes, soft_packets, hard_packets))
    return Lifetime(soft_seconds, hard_seconds, *amounts)


# --- Policies ---------------------------------------------------------------------------------------------------------


def write_policy(policy: Policy, direction: int, ifindex: int = 0, mark: int = 0) -> bytes:
    """The body of NEWPOLICY or UPDPOLICY.  With `ifindex` or `mark`, for packets of that device or mark only."""
    selector = write_selector(policy.selector, policy.direction, ifindex)
    action = POLICY_BLOCK if policy.action is Action.BLOCK else POLICY_ALLOW
    body = POLICY_INFO.pack(
        selector, _write_lifetime(Lifetime(0, policy.lifetime)), bytes(USED.size), policy.priority, 0, direction,
        action, 0, 0,
    )  # fmt: skip
    return body + _write_mark(mark) + (_write_template(policy) if policy.action is Action.PROTECT else b"")


def _write_mark(mark: int) -> bytes:
    return attribute(ATTR_MARK, U32.pack(mark), U32.pack(ALL_BITS)) if mark else b""


def _write_template(policy: Policy) -> bytes:
    """Level required: what has no SA is held or dropped, never let through; but for what a soft trap lets in."""
    if (policy.mode is Mode.TUNNEL) != (policy.tunnel is not None):
        raise ValueError(f"{policy.selector}: a policy in {policy.mode.value} mode with tunnel {policy.tunnel}")
    local, remote = policy.tunnel or (None, None)
    source, destination = (local, remote) if policy.direction is Direction.OUT else (remote, local)
    family = _family(local or policy.selector.local.network_address)
    return attribute(
        ATTR_TMPL,
        TEMPLATE.pack(
            write_address(destination), bytes(4), IPPROTO_ESP, family, write_address(source), policy.reqid,
            MODES[policy.mode], 0, policy.admits_clear, ANY_ALGORITHM, ANY_ALGORITHM, ANY_ALGORITHM,
        ),
    )  # fmt: skip


def read_policy(body: bytes) -> tuple[Policy, int]:
    """The policy in a NEWPOLICY, and the index of its device (0: any)."""
    octets, limits, _, priority, _index, number, action, _, _ = POLICY_INFO.unpack_from(body)
    if number not in (POLICY_IN, POLICY_OUT):
        raise Unspoken(f"policy of direction {number}")
    direction = Direction.OUT if number == POLICY_OUT else Direction.IN
    selector, ifindex = read_selector(octets, direction), read_ifindex(octets)
    lifetime = _read_lifetime(limits).hard_seconds
    template = read_attributes(body[POLICY_INFO.size :]).get(ATTR_TMPL)
    if action == POLICY_BLOCK:
        return Policy(selector, direction, Action.BLOCK, priority, lifetime=lifetime), ifindex
    if not template:
        return Policy(selector, direction, Action.CLEAR, priority, lifetime=lifetime), ifindex
    destination, _, protocol, family, source, reqid, mode, _, optional, *_ = TEMPLATE.unpack_from(template)
    if len(template) != TEMPLATE.size or protocol != IPPROTO_ESP or mode not in MODES.values():
        raise Unspoken(f"policy with templates other than one of ESP that is required: {selector}")
    tunnel = None
    if mode:
        ends = read_address(source, family), read_address(destination, family)
        tunnel = ends if direction is Direction.OUT else ends[::-1]
    mode = Mode.TUNNEL if mode else Mode.TRANSPORT
    policy = Policy(
        selector, direction, Action.PROTECT, priority, reqid, mode, tunnel, soft=bool(optional), lifetime=lifetime
    )
    if bool(optional) is not policy.admits_clear:
        raise Unspoken(f"policy whose SA is optional: {selector}")
    return policy, ifindex


def read_policy_mark(body: bytes) -> int:
    """The mark of the packets that the policy in a NEWPOLICY speaks of; 0: of any."""
    value = read_attributes(body[POLICY_INFO.size :]).get(ATTR_MARK)
    return int(U32.unpack_from(value)[0]) if value else 0


def write_policy_id(selector: Selector, direction: Direction, number: int, ifindex: int = 0, mark: int = 0) -> bytes:
    """The body of DELPOLICY."""
    return POLICY_ID.pack(write_selector(selector, direction, ifindex), 0, number) + _write_mark(mark)


def bypass(family: int, direction: int) -> bytes:
    """The value of IP_XFRM_POLICY or IPV6_XFRM_POLICY by which a socket's own packets pass the SPD."""
    selector = SELECTOR.pack(bytes(16), bytes(16), *(bytes(2),) * 4, family, 0, 0, 0, 0, 0)
    return POLICY_INFO.pack(
        selector, _write_lifetime(Lifetime()), bytes(USED.size), 0, 0, direction, POLICY_ALLOW, 0, 0
    )


# --- Events -----------------------------------------------------------------------------------------------------------


def read_event(message: Message) -> Acquire | Expire | Mapping | None:
    """What a multicast message tells, when it tells of ESP."""
    if message.type == MSG_ACQUIRE:
        _, _, protocol, _, selector, _policy, *_, sequence = ACQUIRE.unpack_from(message.body)
        template = read_attributes(message.body[ACQUIRE.size :]).get(ATTR_TMPL)
        if protocol != IPPROTO_ESP or not template:
            return None
        wanted = read_selector(selector, Direction.OUT)
        ports = (wanted.local_port, wanted.remote_port) if wanted.protocol in WITH_PORTS else (0, 0)
        flow = Flow(wanted.local.network_address, wanted.remote.network_address, wanted.protocol, *ports)
        return Acquire(flow, TEMPLATE.unpack_from(template)[5], sequence)
    if message.type == MSG_EXPIRE:
        info, hard = EXPIRE.unpack_from(message.body)
        _, destination, spi, protocol, *_, family, _mode, _window, _flags = SA_INFO.unpack(info)
        name = SAName(int.from_bytes(spi, "big"), read_address(destination, family))
        # A larval SA that nobody answered expires too, with an SPI of 0.
        return Expire(name, bool(hard)) if protocol == IPPROTO_ESP and name.spi else None
    if message.type == MSG_MAPPING:
        sa, _, _, address, _, port = MAPPING.unpack_from(message.body)
        destination, spi, family, _ = SA_ID.unpack(sa)
        name = SAName(int.from_bytes(spi, "big"), read_address(destination, family))
        return Mapping(name, Endpoint(read_address(address, family), int.from_bytes(port, "big")))
    return None


# --- Selectors and addresses ------------------------------------------------------------------------------------------


def write_selector(selector: Selector, direction: Direction, ifindex: int = 0) -> bytes:
    """The kernel's selectors have a source and a destination, ours two sides."""
    sides = (selector.remote, selector.remote_port), (selector.local, selector.local_port)
    (to, dport), (frm, sport) = sides if direction is Direction.OUT else sides[::-1]

    def port(number: int) -> tuple[bytes, bytes]:
        return _big(number, 2), _big(0xFFFF if number else 0, 2)

    return SELECTOR.pack(
        write_address(to.network_address), write_address(frm.network_address), *port(dport), *port(sport),
        _family(to.network_address), to.prefixlen, frm.prefixlen, selector.protocol, ifindex, 0,
    )  # fmt: skip


def read_selector(data: bytes, direction: Direction, otherwise: int = AF_INET) -> Selector:
    """A selector as this host sees it; `otherwise` is the family of one that names none."""
    to, frm, dport, _, sport, _, family, to_bits, frm_bits, protocol, _, _ = SELECTOR.unpack(data)
    family = family or otherwise
    sides = (
        (_network(to, to_bits, family), int.from_bytes(dport, "big")),
        (_network(frm, frm_bits, family), int.from_bytes(sport, "big")),
    )
    (remote, remote_port), (local, local_port) = sides if direction is Direction.OUT else sides[::-1]
    return Selector(local, remote, protocol, local_port, remote_port)


def read_ifindex(selector: bytes) -> int:
    """The device a selector is limited to; 0: none."""
    return int(SELECTOR.unpack(selector)[10])


def write_address(address: IPAddress | None) -> bytes:
    """xfrm_address_t: four octets of IPv4 at the front, or sixteen."""
    return address.packed.ljust(16, b"\0") if address else bytes(16)


def read_address(data: bytes, family: int) -> IPAddress:
    """An address of a family the kernel named."""
    return IPv4Address(data[:4]) if family == AF_INET else IPv6Address(data)


def _network(data: bytes, bits: int, family: int) -> IPNetwork:
    if family == AF_INET:
        return IPv4Network((data[:4], bits), strict=False)
    return IPv6Network((data, bits), strict=False)


def _family(address: IPAddress) -> int:
    return AF_INET if address.version == 4 else AF_INET6


def _big(number: int, length: int) -> bytes:
    return number.to_bytes(length, "big")
