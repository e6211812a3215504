"""Addresses and UDP end points."""

from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network

import pytest

from hushwire.wire.address import Endpoint, IPAddress, IPNetwork, address_from_octets, host_network

V4, V6 = IPv4Address("192.0.2.1"), IPv6Address("2001:db8::1")


def test_end_points_print_as_people_write_them() -> None:
    assert str(Endpoint(V4, 500)) == "192.0.2.1:500"
    assert str(Endpoint(V6, 4500)) == "[2001:db8::1]:4500"


def test_addresses_of_octets() -> None:
    assert address_from_octets(V4.packed) == V4
    assert address_from_octets(V6.packed) == V6
    for length in (0, 3, 5, 15, 17):
        with pytest.raises(ValueError, match=f"not {length}"):
            address_from_octets(bytes(length))


def test_the_prefix_of_one_host() -> None:
    assert host_network(V4) == IPv4Network("192.0.2.1/32")
    assert host_network(V6) == IPv6Network("2001:db8::1/128")


def test_either_family_is_an_address_at_run_time() -> None:
    assert isinstance(V4, IPAddress)
    assert isinstance(V6, IPAddress)
    assert isinstance(host_network(V6), IPNetwork)
    assert not isinstance("192.0.2.1", IPAddress)
