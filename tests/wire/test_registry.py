"""IANA registries as open enums."""

import pytest

from hushwire.wire.registry import AuthMethod, CertEncoding, HashID, IDType, NotifyType, OpenEnum, PayloadType, TSType


@pytest.mark.parametrize("registry", OpenEnum.__subclasses__())
def test_an_unknown_number_survives_and_prints(registry: type[OpenEnum]) -> None:
    value = registry(60001)
    assert value == 60001
    assert isinstance(value, registry)
    assert value.name == f"{registry.__name__}_60001"
    assert registry(60001) == value
    assert 60001 not in list(registry)


@pytest.mark.parametrize("nonsense", [-1, "x", None, 1.5])
def test_what_is_no_number_is_refused(nonsense: object) -> None:
    with pytest.raises(ValueError, match="PayloadType"):
        PayloadType(nonsense)


def test_errors_are_below_16384() -> None:
    assert NotifyType.NO_PROPOSAL_CHOSEN.is_error
    assert NotifyType(16383).is_error
    assert not NotifyType.INITIAL_CONTACT.is_error
    assert not NotifyType(65535).is_error


def test_numbers_that_peers_rely_on() -> None:
    # Written out a second time, from the RFCs: a slip in the registry would otherwise read and write consistently.
    assert [int(kind) for kind in PayloadType][1:17] == list(range(33, 49))
    assert PayloadType.SKF == 53
    assert NotifyType.INVALID_KE_PAYLOAD == 17
    assert NotifyType.AUTHENTICATION_FAILED == 24
    assert NotifyType.TEMPORARY_FAILURE == 43
    assert NotifyType.CHILD_SA_NOT_FOUND == 44
    assert NotifyType.STATE_NOT_FOUND == 47
    assert NotifyType.COOKIE == 16390
    assert NotifyType.USE_TRANSPORT_MODE == 16391
    assert NotifyType.REKEY_SA == 16393
    assert NotifyType.MOBIKE_SUPPORTED == 16396
    assert NotifyType.COOKIE2 == 16401
    assert NotifyType.CHILDLESS_IKEV2_SUPPORTED == 16418
    assert NotifyType.IKEV2_FRAGMENTATION_SUPPORTED == 16430
    assert NotifyType.SIGNATURE_HASH_ALGORITHMS == 16431
    assert NotifyType.INTERMEDIATE_EXCHANGE_SUPPORTED == 16438
    assert NotifyType.ADDITIONAL_KEY_EXCHANGE == 16441
    assert (IDType.FQDN, IDType.IPV6_ADDR, IDType.NULL) == (2, 5, 13)
    assert (CertEncoding.RAW_RSA_KEY, CertEncoding.RAW_PUBLIC_KEY) == (11, 15)
    assert (AuthMethod.ECDSA_256, AuthMethod.NULL, AuthMethod.DIGITAL_SIGNATURE) == (9, 13, 14)
    assert (HashID.SHA2_256, HashID.IDENTITY) == (2, 5)
    assert (TSType.IPV4_ADDR_RANGE, TSType.IPV6_ADDR_RANGE) == (7, 8)
