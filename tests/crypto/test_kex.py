"""crypto.kex: the vectors of RFC 5903 and RFC 7748, and every public value that RFC 6989 refuses."""

import hashlib

import pytest

from hushwire.crypto import kex
from hushwire.crypto.kex import BadKeyExchange, KeyShare, generate
from hushwire.crypto.suite import KE
from hushwire.entropy import SeededEntropy
from hushwire.wire.registry import KeID

GROUPS = list(KE)
MODP = (KeID.MODP_2048, KeID.MODP_3072, KeID.MODP_4096)
ECP = (KeID.ECP_256, KeID.ECP_384, KeID.ECP_521)


class Fixed:
    """Entropy that gives the octets of a vector."""

    def __init__(self, number: int) -> None:
        self.number = number

    def public(self, count: int) -> bytes:
        raise AssertionError("a private exponent from the public stream")

    def private(self, count: int) -> bytes:
        return self.number.to_bytes(count, "big")


@pytest.mark.parametrize("group", GROUPS)
def test_both_sides_agree(group: KeID) -> None:
    entropy = SeededEntropy(b"both")
    ours, peer = generate(group, entropy), generate(group, entropy)
    assert len(ours.public) == KE[group]
    assert ours.public != peer.public
    assert ours.agree(peer.public) == peer.agree(ours.public)
    assert ours.agree(peer.public) != ours.agree(ours.public)


@pytest.mark.parametrize("group", GROUPS)
def test_a_seed_replays(group: KeID) -> None:
    assert generate(group, SeededEntropy(b"a")).public == generate(group, SeededEntropy(b"a")).public
    assert generate(group, SeededEntropy(b"a")).public != generate(group, SeededEntropy(b"b")).public


@pytest.mark.parametrize("group", GROUPS)
def test_another_length_is_refused(group: KeID) -> None:
    entropy = SeededEntropy(b"length")
    ours, peer = generate(group, entropy), generate(group, entropy).public
    for public in (b"", peer[:-1], peer[1:], peer + b"\0", b"\0" + peer, b"\4" + peer, b"\2" + peer[: len(peer) // 2]):
        with pytest.raises(BadKeyExchange):
            ours.agree(public)


@pytest.mark.parametrize("group", GROUPS)
def test_zero_is_refused(group: KeID) -> None:
    with pytest.raises(BadKeyExchange):
        generate(group, SeededEntropy(b"zero")).agree(bytes(KE[group]))


def test_a_share_says_nothing_of_its_secret() -> None:
    share = generate(KeID.CURVE25519, SeededEntropy(b"repr"))
    assert "_exchange" not in repr(share)
    assert SeededEntropy(b"repr").private(32).hex() not in repr(share)


# --- MODP -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("group", "digest"),
    [
        (KeID.MODP_2048, "d66436f79bbd6b2e38c0ffbd079be904d2641415e2e67140e09448be9a60890e"),
        (KeID.MODP_3072, "48cf8b092fbce4359d9871abf74f98e25b6163379eaa15cd9087e800c6d1c55c"),
        (KeID.MODP_4096, "4ee95187682bcb230ad26a95205f6920e84708f6251b3894329b09ec23919e33"),
    ],
)
def test_primes_are_those_of_rfc_3526(group: KeID, digest: str) -> None:
    """The digests are of what OpenSSL has: BN_get_rfc3526_prime_2048 and its sisters."""
    prime, _ = kex._MODP[group]
    assert hashlib.sha256(prime.to_bytes(KE[group], "big")).hexdigest() == digest


@pytest.mark.parametrize("group", MODP)
def test_modp_is_exponentiation(group: KeID) -> None:
    prime, length = kex._MODP[group]
    octets = SeededEntropy(b"modp").private(length)
    exponent = int.from_bytes(octets, "big") | 1 << (8 * length - 1)
    ours = generate(group, SeededEntropy(b"modp"))
    assert int.from_bytes(ours.public, "big") == pow(2, exponent, prime)
    peer = pow(2, 1 << 300, prime)
    shared = ours.agree(peer.to_bytes(KE[group], "big"))
    assert int.from_bytes(shared.expose(), "big") == pow(peer, exponent, prime)


@pytest.mark.parametrize("group", MODP)
def test_degenerate_public_values_are_refused(group: KeID) -> None:
    """RFC 6989 s2.1; p and p + 1 are 0 and 1 again."""
    prime, _ = kex._MODP[group]
    ours = generate(group, SeededEntropy(b"range"))
    for number in (0, 1, prime - 1, prime, prime + 1, (1 << 8 * KE[group]) - 1):
        # The text is ours: the library refuses some of these too, but we do not count on it.
        with pytest.raises(BadKeyExchange, match="not between 1 and p - 1"):
            ours.agree(number.to_bytes(KE[group], "big"))
    assert len(ours.agree((4).to_bytes(KE[group], "big"))) == KE[group]


def test_control_without_the_range_check_the_secret_is_known_to_anybody() -> None:
    """What 1 and p - 1 do to plain exponentiation, whoever holds the exponent."""
    prime, _ = kex._MODP[KeID.MODP_2048]
    for exponent in (0x1234567, 0x7654320):
        assert pow(1, exponent, prime) == 1
        assert pow(prime - 1, exponent, prime) in (1, prime - 1)


def test_a_modp_secret_keeps_its_leading_zeros() -> None:
    """RFC 7296 s2.14.  Squares are tried until the secret is short: one in 256 is."""
    prime, length = kex._MODP[KeID.MODP_2048]
    ours = generate(KeID.MODP_2048, SeededEntropy(b"zeros"))
    exponent = int.from_bytes(SeededEntropy(b"zeros").private(length), "big") | 1 << (8 * length - 1)
    peer, secret = 2, pow(2, exponent, prime)
    step = secret
    for _ in range(20_000):
        if secret >> 2040 == 0:
            break
        peer, secret = peer * 2 % prime, secret * step % prime
    assert secret >> 2040 == 0
    shared = ours.agree(peer.to_bytes(256, "big")).expose()
    assert shared == secret.to_bytes(256, "big")
    assert shared[0] == 0


# --- ECP ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("group", "i", "r", "gr", "gir"),
    [
        (
            KeID.ECP_256,
            "C88F01F510D9AC3F70A292DAA2316DE544E9AAB8AFE84049C62A9C57862D1433",
            "C6EF9C5D78AE012A011164ACB397CE2088685D8F06BF9BE0B283AB46476BEE53",
            "D12DFB5289C8D4F81208B70270398C342296970A0BCCB74C736FC7554494BF63"
            "56FBF3CA366CC23E8157854C13C58D6AAC23F046ADA30F8353E74F33039872AB",
            "D6840F6B42F6EDAFD13116E0E12565202FEF8E9ECE7DCE03812464D04B9442DE",
        ),
        (
            KeID.ECP_384,
            "099F3C7034D4A2C699884D73A375A67F7624EF7C6B3C0F160647B67414DCE655E35B538041E649EE3FAEF896783AB194",
            "41CB0779B4BDB85D47846725FBEC3C9430FAB46CC8DC5060855CC9BDA0AA2942E0308312916B8ED2960E4BD55A7448FC",
            "E558DBEF53EECDE3D3FCCFC1AEA08A89A987475D12FD950D83CFA41732BC509D0D1AC43A0336DEF96FDA41D0774A3571"
            "DCFBEC7AACF3196472169E838430367F66EEBE3C6E70C416DD5F0C68759DD1FFF83FA40142209DFF5EAAD96DB9E6386C",
            "11187331C279962D93D604243FD592CB9D0A926F422E47187521287E7156C5C4D603135569B9E9D09CF5D4A270F59746",
        ),
        (
            KeID.ECP_521,
            "0037ADE9319A89F4DABDB3EF411AACCCA5123C61ACAB57B5393DCE47608172A095AA85A30FE1C2952C6771D937BA9777F595"
            "7B2639BAB072462F68C27A57382D4A52",
            "0145BA99A847AF43793FDD0E872E7CDFA16BE30FDC780F97BCCC3F078380201E9C677D600B343757A3BDBF2A3163E4C2F869"
            "CCA7458AA4A4EFFC311F5CB151685EB9",
            "00D0B3975AC4B799F5BEA16D5E13E9AF971D5E9B984C9F39728B5E5739735A219B97C356436ADC6E95BB0352F6BE64A6C291"
            "2D4EF2D0433CED2B6171640012D9460F"
            "015C68226383956E3BD066E797B623C27CE0EAC2F551A10C2C724D9852077B87220B6536C5C408A1D2AEBB8E86D678AE49CB"
            "57091F4732296579AB44FCD17F0FC56A",
            "01144C7D79AE6956BC8EDB8E7C787C4521CB086FA64407F97894E5E6B2D79B04D1427E73CA4BAA240A34786859810C06B3C7"
            "15A3A8CC3151F2BEE417996D19F3DDEA",
        ),
    ],
)
def test_rfc_5903_s8(group: KeID, i: str, r: str, gr: str, gir: str) -> None:
    initiator, responder = generate(group, Fixed(int(i, 16) - 1)), generate(group, Fixed(int(r, 16) - 1))
    assert responder.public == bytes.fromhex(gr)
    assert initiator.agree(responder.public).expose() == bytes.fromhex(gir)
    assert responder.agree(initiator.public).expose() == bytes.fromhex(gir)


@pytest.mark.parametrize("group", ECP)
def test_a_point_off_the_curve_is_refused(group: KeID) -> None:
    entropy = SeededEntropy(b"curve")
    ours, peer = generate(group, entropy), bytearray(generate(group, entropy).public)
    ours.agree(bytes(peer))
    peer[-1] ^= 1
    with pytest.raises(BadKeyExchange):
        ours.agree(bytes(peer))
    with pytest.raises(BadKeyExchange):
        ours.agree(b"\xff" * KE[group])


def test_a_coordinate_above_the_prime_is_refused() -> None:
    """The same point, written with x + p: a second form would be a second public value for one secret."""
    p = 2**256 - 2**224 + 2**192 + 2**96 - 1
    x, y = _small_x_point(p)
    ours = generate(KeID.ECP_256, SeededEntropy(b"above"))
    ours.agree(x.to_bytes(32, "big") + y.to_bytes(32, "big"))
    with pytest.raises(BadKeyExchange):
        ours.agree((x + p).to_bytes(32, "big") + y.to_bytes(32, "big"))


def _small_x_point(p: int) -> tuple[int, int]:
    """A point of P-256 with a small x, so that x + p still fits."""
    b = 0x5AC635D8AA3A93E7B3EBBD55769886BC651D06B0CC53B0F63BCE3C3E27D2604B
    for x in range(1, 100):
        square = (x**3 - 3 * x + b) % p
        y = pow(square, (p + 1) // 4, p)
        if y * y % p == square:
            return x, y
    raise AssertionError("half of all x are on the curve")


# --- Curve25519 and Curve448 ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("group", "a", "b", "public_b", "shared"),
    [
        (
            KeID.CURVE25519,
            "77076d0a7318a57d3c16c17251b26645df4c2f87ebc0992ab177fba51db92c2a",
            "5dab087e624a8a4b79e17f8b83800ee66f3bb1292618b6fd1c2f8b27ff88e0eb",
            "de9edb7d7b7dc1b4d35b61c2ece435373f8343c85b78674dadfc7e146f882b4f",
            "4a5d9d5ba4ce2de1728e3bf480350f25e07e21c947d19e3376f09b3c1e161742",
        ),
        (
            KeID.CURVE448,
            "9a8f4925d1519f5775cf46b04b5800d4ee9ee8bae8bc5565d498c28dd9c9baf5"
            "74a9419744897391006382a6f127ab1d9ac2d8c0a598726b",
            "1c306a7ac2a0e2e0990b294470cba339e6453772b075811d8fad0d1d6927c120"
            "bb5ee8972b0d3e21374c9c921b09d1b0366f10b65173992d",
            "3eb7a829b0cd20f5bcfc0b599b6feccf6da4627107bdb0d4f345b43027d8b972"
            "fc3e34fb4232a13ca706dcb57aec3dae07bdc1c67bf33609",
            "07fff4181ac6cc95ec1c16a94a0f74d12da232ce40a77552281d282bb60c0b56"
            "fd2464c335543936521c24403085d59a449a5037514a879d",
        ),
    ],
)
def test_rfc_7748_s6(group: KeID, a: str, b: str, public_b: str, shared: str) -> None:
    alice, bob = (generate(group, Fixed(int(octets, 16))) for octets in (a, b))
    assert bob.public.hex() == public_b
    assert alice.agree(bob.public).expose().hex() == shared
    assert bob.agree(alice.public).expose().hex() == shared


P25519, P448 = 2**255 - 19, 2**448 - 2**224 - 1
ORDER_8 = (
    0xB8495F16056286FDB1329CEB8D09DA6AC49FF1FAE35616AEB8413B7C7AEBE0,
    0x57119FD0DD4E22D8868E1C58C45C44045BEF839C55B1D0B1248C50A3BC959C5F,
)
LOW_ORDER_25519 = [0, 1, P25519 - 1, P25519, P25519 + 1, *ORDER_8]
LOW_ORDER_448 = [0, 1, P448 - 1, P448, P448 + 1]


def _low_order() -> list[tuple[KeID, bytes]]:
    points = [(KeID.CURVE25519, n.to_bytes(32, "little")) for n in LOW_ORDER_25519]
    # RFC 7748 s5: the top bit is ignored, so each has a second form.
    points += [(KeID.CURVE25519, (n | 1 << 255).to_bytes(32, "little")) for n in LOW_ORDER_25519]
    points += [(KeID.CURVE448, n.to_bytes(56, "little")) for n in LOW_ORDER_448]
    return points


@pytest.mark.parametrize(("group", "public"), _low_order())
def test_points_of_low_order_are_refused(group: KeID, public: bytes) -> None:
    """RFC 6989 s2.2 and RFC 7748 s6: the secret would be zero for every exponent."""
    with pytest.raises(BadKeyExchange):
        generate(group, SeededEntropy(b"low")).agree(public)


@pytest.mark.parametrize("public", [n.to_bytes(32, "little") for n in LOW_ORDER_25519])
def test_control_a_ladder_without_the_guard_gives_zero(public: bytes) -> None:
    """The points are of low order indeed: X25519 written out gives an all-zero secret for two exponents."""
    for seed in (b"one", b"two"):
        assert _x25519(SeededEntropy(seed).private(32), public) == 0
    assert _x25519(SeededEntropy(b"one").private(32), (9).to_bytes(32, "little")) != 0


def _x25519(exponent: bytes, point: bytes) -> int:
    """RFC 7748 s5, as written there."""
    k = int.from_bytes(exponent, "little") & ~7 & ~(1 << 255) | 1 << 254
    x1 = (int.from_bytes(point, "little") & (1 << 255) - 1) % P25519
    x2, z2, x3, z3, swap = 1, 0, x1, 1, 0
    for t in reversed(range(255)):
        bit = k >> t & 1
        if swap ^ bit:
            x2, x3, z2, z3 = x3, x2, z3, z2
        swap = bit
        a, b, c, d = x2 + z2, x2 - z2, x3 + z3, x3 - z3
        aa, bb, da, cb = a * a, b * b, d * a, c * b
        e = aa - bb
        x3, z3 = (da + cb) ** 2 % P25519, x1 * (da - cb) ** 2 % P25519
        x2, z2 = aa * bb % P25519, e * (aa + 121665 * e) % P25519
    if swap:
        x2, z2 = x3, z3
    return x2 * pow(z2, P25519 - 2, P25519) % P25519


def test_the_ladder_is_that_of_rfc_7748() -> None:
    share = generate(KeID.CURVE25519, SeededEntropy(b"same"))
    octets = SeededEntropy(b"same").private(32)
    assert _x25519(octets, (9).to_bytes(32, "little")).to_bytes(32, "little") == share.public


def test_a_group_that_we_do_not_compute_is_our_own_error() -> None:
    for group in (KeID.NONE, KeID.MODP_1024, KeID(1025)):
        with pytest.raises(KeyError):
            generate(group, SeededEntropy(b"none"))
    assert isinstance(generate(KeID.CURVE25519, SeededEntropy(b"some")), KeyShare)
