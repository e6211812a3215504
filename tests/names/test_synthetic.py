"""Synthetic addresses: one for each name and real address, and what becomes of those that are given back."""

from ipaddress import ip_address, ip_network

import pytest

from hushwire.names.synthetic import POOLS, RESERVED, PoolEmpty, SyntheticAddresses, is_synthetic

REAL = {4: [ip_address(f"192.0.2.{n}") for n in range(99)], 6: [ip_address(f"2001:db8::{n:x}") for n in range(99)]}
SIZE = 32
FREE = SIZE - RESERVED - 1
"""Addresses that a pool of 32 has to give: all but the first sixteen and the last."""


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    for version, length in ((4, 27), (6, 123)):
        monkeypatch.setitem(POOLS, version, ip_network((POOLS[version].network_address, length)))


@pytest.mark.parametrize(("version", "pool"), [(4, "198.18.0.0/15"), (6, "fd68:7773:6877:1::/96")])
def test_the_pools_are_nobodys(version: int, pool: str) -> None:
    """RFC 2544 and RFC 4193: never on the Internet, and no peer's."""
    ours = ip_network(pool)
    assert POOLS[version] == ours
    assert not ours.is_global
    for address in (ours[0], ours[-1], SyntheticAddresses().take("bob.example", REAL[version][2])):
        assert is_synthetic(address)
    for address in (ours[0] - 1, ours[-1] + 1, REAL[version][2]):
        assert not is_synthetic(address)


@pytest.mark.parametrize("version", POOLS)
def test_each_name_and_real_address_has_its_own(version: int) -> None:
    addresses = SyntheticAddresses()
    pairs = [(name, real) for name in ("bob.example", "evil.example") for real in REAL[version][2:4]]
    made = [addresses.take(name, real) for name, real in pairs]
    assert len(set(made)) == 4
    assert {address.version for address in made} == {version}
    # The same for as long as it is not given back.
    assert [addresses.take(name, real) for name, real in reversed(pairs)] == made[::-1]


@pytest.mark.parametrize("version", POOLS)
def test_no_network_could_take_one_for_its_own(version: int, small: None) -> None:
    """Neither the first of a pool nor its last, which would be its broadcast address."""
    addresses = SyntheticAddresses()
    made = [addresses.take("bob.example", real) for real in REAL[version][:FREE]]
    assert made == list(POOLS[version])[RESERVED:-1]


@pytest.mark.parametrize("version", POOLS)
def test_what_an_earlier_run_gave_out_is_not_at_once_another_s(version: int) -> None:
    """A program may still hold it: a run begins anywhere, and that is within the pool."""
    real, pool = REAL[version][2], POOLS[version]
    runs = [SyntheticAddresses(lambda first=first: first) for first in (0, 7, 1 << 32, (1 << 32) - 1)]  # type: ignore[misc]
    made = [run.take("bob.example", real) for run in runs]
    assert len(set(made)) == 4
    assert all(address in pool and int(address) - int(pool[0]) >= RESERVED and address != pool[-1] for address in made)


@pytest.mark.parametrize("version", POOLS)
def test_what_was_given_back_is_given_again_as_late_as_can_be(version: int, small: None) -> None:
    """A program may still hold it: so every other is given first, and then those that have been free the longest."""
    addresses = SyntheticAddresses()
    real = REAL[version]
    first = [addresses.take(f"n{number}.example", real[0]) for number in range(3)]
    addresses.give_back("n1.example", real[0])
    # The same name gets another as well, and not only once.
    later = [addresses.take("n1.example", real[number]) for number in range(FREE - 3)]
    assert not set(first) & set(later)
    addresses.give_back("n0.example", real[0])
    assert [addresses.take(f"m{number}.example", real[0]) for number in range(2)] == first[:2]
    assert addresses.take("n2.example", real[0]) == first[2]


@pytest.mark.parametrize("version", POOLS)
def test_an_empty_pool(version: int, small: None) -> None:
    """It says so, disturbs nobody, leaves the other family as it is, and is no longer empty when one was given back."""
    addresses = SyntheticAddresses()
    real, other = REAL[version][2], REAL[10 - version][2]
    made = {f"n{number}.example": addresses.take(f"n{number}.example", real) for number in range(FREE)}
    for _ in range(2):
        with pytest.raises(PoolEmpty, match=rf"^no synthetic IPv{version} address is left for one\.more\.example$"):
            addresses.take("one.more.example", real)
    assert {name: addresses.take(name, real) for name in made} == made
    assert is_synthetic(addresses.take("one.more.example", other))
    addresses.give_back("n7.example", real)
    assert addresses.take("one.more.example", real) == made["n7.example"]
    with pytest.raises(PoolEmpty):
        addresses.take("n7.example", real)


def test_what_nobody_has_cannot_be_given_back() -> None:
    addresses = SyntheticAddresses()
    addresses.take("bob.example", REAL[4][2])
    for name, real in (("evil.example", REAL[4][2]), ("bob.example", REAL[4][3])):
        with pytest.raises(KeyError):
            addresses.give_back(name, real)
