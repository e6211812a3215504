"""IANA registries as open enums: an unknown number survives a round trip and prints well."""

from enum import IntEnum


class OpenEnum(IntEnum):
    """A registry.  A number without a name becomes a value of the same type, printed NAME_number."""

    @classmethod
    def _missing_(cls, value: object) -> "OpenEnum":
        if not isinstance(value, int) or value < 0:
            raise ValueError(f"{value!r} is no {cls.__name__}")
        member = int.__new__(cls, value)
        member._name_ = f"{cls.__name__}_{value}"
        member._value_ = value
        return member


class ExchangeType(OpenEnum):
    """RFC 7296 s3.1."""

    IKE_SA_INIT = 34
    IKE_AUTH = 35
    CREATE_CHILD_SA = 36
    INFORMATIONAL = 37
    IKE_SESSION_RESUME = 38
    GSA_AUTH = 39
    IKE_INTERMEDIATE = 43
    IKE_FOLLOWUP_KE = 44


class ProtocolID(OpenEnum):
    """RFC 7296 s3.3.1."""

    NONE = 0
    IKE = 1
    AH = 2
    ESP = 3


class EncrID(OpenEnum):
    """Transform type 1 (RFC 7296 s3.3.2 and the IANA registry)."""

    NONE = 0
    TRIPLE_DES = 3
    NULL = 11
    AES_CBC = 12
    AES_CTR = 13
    AES_CCM_16 = 16
    AES_GCM_8 = 18
    AES_GCM_12 = 19
    AES_GCM_16 = 20
    CAMELLIA_CBC = 23
    CHACHA20_POLY1305 = 28


class PrfID(OpenEnum):
    """Transform type 2."""

    HMAC_MD5 = 1
    HMAC_SHA1 = 2
    AES128_XCBC = 4
    HMAC_SHA2_256 = 5
    HMAC_SHA2_384 = 6
    HMAC_SHA2_512 = 7
    AES128_CMAC = 8


class IntegID(OpenEnum):
    """Transform type 3."""

    NONE = 0
    HMAC_MD5_96 = 1
    HMAC_SHA1_96 = 2
    AES_XCBC_96 = 5
    AES_CMAC_96 = 8
    HMAC_SHA2_256_128 = 12
    HMAC_SHA2_384_192 = 13
    HMAC_SHA2_512_256 = 14


class KeID(OpenEnum):
    """Transform type 4: key exchange methods (RFC 7296 s3.3.2, RFC 9370)."""

    NONE = 0
    MODP_768 = 1
    MODP_1024 = 2
    MODP_1536 = 5
    MODP_2048 = 14
    MODP_3072 = 15
    MODP_4096 = 16
    MODP_6144 = 17
    MODP_8192 = 18
    ECP_256 = 19
    ECP_384 = 20
    ECP_521 = 21
    CURVE25519 = 31
    CURVE448 = 32
    ML_KEM_512 = 35
    ML_KEM_768 = 36
    ML_KEM_1024 = 37


class EsnID(OpenEnum):
    """Transform type 5."""

    NO_ESN = 0
    ESN = 1


class TransformType(OpenEnum):
    """RFC 7296 s3.3.2."""

    ENCR = 1
    PRF = 2
    INTEG = 3
    KE = 4
    ESN = 5
    ADDKE1 = 6
    ADDKE2 = 7
    ADDKE3 = 8
    ADDKE4 = 9
    ADDKE5 = 10
    ADDKE6 = 11
    ADDKE7 = 12
