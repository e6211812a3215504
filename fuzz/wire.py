"""Fuzz harness of the room wire: any octets give values or a DecodeError, and what was read can be written and read.

python fuzz/wire.py [--runs 100000] [--seed 1]      # mutations of a corpus, reproducible
python fuzz/wire.py --atheris [libFuzzer options]   # guided by coverage, where atheris is installed
"""

import sys
from argparse import ArgumentParser
from collections.abc import Iterator
from importlib import import_module
from ipaddress import IPv4Address, IPv6Address
from random import Random

from hushwire.wire.cursor import DecodeError
from hushwire.wire.esp import read_trailer
from hushwire.wire.ip import read_flow, write_header
from hushwire.wire.message import Header, read_message, read_payloads, write_message, write_payloads
from hushwire.wire.payload import (
    Authentication,
    Certificate,
    CertificateRequest,
    Configuration,
    Delete,
    Encrypted,
    EncryptedFragment,
    IDi,
    IDr,
    KeyExchange,
    Nonce,
    Notify,
    Payload,
    Proposal,
    SecurityAssociation,
    TrafficSelector,
    Transform,
    TSi,
    TSr,
    Unknown,
    UnknownSelector,
    VendorID,
)
from hushwire.wire.registry import (
    AuthMethod,
    CertEncoding,
    CPType,
    EncrID,
    EsnID,
    ExchangeType,
    IDType,
    IPProtocol,
    KeID,
    NotifyType,
    PayloadType,
    PrfID,
    ProtocolID,
    TransformType,
    TSType,
)
from hushwire.wire.udp import classify, read_header, write_datagram


def check(data: bytes) -> None:
    """The property.  Whatever it raises is a finding."""
    check_message(data)
    for first in (PayloadType.SA, PayloadType.IDI, PayloadType.TSI, PayloadType.DELETE):
        check_inside(first, data)
    for read in (read_flow, classify, read_header, read_trailer):
        try:
            read(data)
        except DecodeError:
            continue


def check_message(data: bytes) -> None:
    try:
        message = read_message(data)
    except DecodeError as error:
        check_place(error, data)
        return
    again = read_message(write_message(message.header, message.payloads))
    assert (again.header, again.payloads) == (message.header, message.payloads)


def check_inside(first: int, data: bytes) -> None:
    try:
        payloads = read_payloads(first, data)
    except DecodeError as error:
        check_place(error, data)
        return
    assert read_payloads(*write_payloads(payloads)) == payloads


def check_place(error: DecodeError, data: bytes) -> None:
    assert 0 <= error.offset <= max(len(data), 28), error  # A length's own place is in the header, however short.


def corpus() -> list[bytes]:
    """Messages with every payload, the payloads alone, and IP packets."""
    address_4, address_6 = IPv4Address("192.0.2.1"), IPv6Address("2001:db8::1")
    initial: list[Payload] = [
        SecurityAssociation(
            (
                Proposal(
                    1,
                    ProtocolID.IKE,
                    b"",
                    (
                        Transform(TransformType.ENCR, EncrID.AES_GCM_16, 256),
                        Transform(TransformType.PRF, PrfID.HMAC_SHA2_256),
                        Transform(TransformType.KE, KeID.CURVE25519, None, ((15, b"long"), (16, 1))),
                        Transform(TransformType.ADDKE1, KeID.ML_KEM_768),
                    ),
                ),
                Proposal(2, ProtocolID.ESP, b"spi4", (Transform(TransformType.ESN, EsnID.ESN),)),
            )
        ),
        KeyExchange(KeID.CURVE25519, bytes(32)),
        Nonce(bytes(32)),
        Notify(NotifyType.SIGNATURE_HASH_ALGORITHMS, b"\x00\x02\x00\x05"),
        VendorID(b"hushwire"),
        Unknown(PayloadType(99), True, b"?"),
    ]
    inside: list[Payload] = [
        IDi(IDType.FQDN, b"a.example"),
        IDr(IDType.NULL, b""),
        Certificate(CertEncoding.RAW_PUBLIC_KEY, bytes(44)),
        CertificateRequest(CertEncoding.RAW_PUBLIC_KEY, b""),
        Authentication(AuthMethod.DIGITAL_SIGNATURE, bytes(70)),
        Configuration(CPType.REQUEST, ((1, b""), (3, address_4.packed))),
        TSi((TrafficSelector(6, 80, 443, address_4, address_4), UnknownSelector(TSType.SECLABEL, 0, b"label"))),
        TSr((TrafficSelector(0, 65535, 0, address_6, address_6),)),
        Delete(ProtocolID.ESP, (b"spi1", b"spi2")),
        Notify(NotifyType.REKEY_SA, protocol=ProtocolID.ESP, spi=b"spi3"),
    ]
    header = Header(b"initiate", b"responds", ExchangeType.IKE_AUTH, True, False, 1)
    datagram = write_datagram(address_4.packed, address_4.packed, 500, 4500, b"hush")
    extended = bytes((IPProtocol.FRAGMENT, 0)) + bytes(6) + bytes((IPProtocol.UDP, 0)) + bytes(6) + datagram
    return [
        write_message(header, initial),
        write_message(header, inside),
        write_message(header, [initial[3], Encrypted(PayloadType.IDI, bytes(40))]),
        write_message(header, [EncryptedFragment(PayloadType.NONE, 2, 3, bytes(40))]),
        write_payloads(initial)[1],
        write_payloads(inside)[1],
        write_header(address_4.packed, address_4.packed, IPProtocol.UDP, len(datagram)) + datagram,
        write_header(address_6.packed, address_6.packed, IPProtocol.HOP_BY_HOP, len(extended)) + extended,
    ]


def mutations(seed: int, runs: int) -> Iterator[bytes]:
    """`runs` mutations of the corpus, the same ones for the same seed."""
    random, seeds = Random(seed), corpus()
    for _ in range(runs):
        data = bytearray(random.choice(seeds))
        is_message = data.startswith(b"initiate")
        for _ in range(random.randint(1, 4)):
            at = random.randrange(len(data) + 1)
            match random.randrange(10):
                case 0:
                    del data[at : at + random.randint(1, 8)]
                case 1:
                    data[at:at] = random.randbytes(random.randint(1, 8))
                case 2:
                    data[at:at] = data[at : at + random.randint(1, 64)] * random.randint(1, 80)
                case 3:
                    other = random.choice(seeds)
                    data[at:] = other[random.randrange(len(other)) :]
                case 4 | 5 | 6:
                    data[at : at + 2] = random.choice(TELLING)
                case _:
                    data[at : at + 1] = random.randbytes(1)
        del data[70000:]
        if is_message and random.random() < 0.9:
            # The payloads are reached only when the length in the header agrees.
            data[24:28] = len(data).to_bytes(4, "big")
        yield bytes(data)


TELLING = b"\0\0", b"\0\1", b"\0\3", b"\0\4", b"\0\x08", b"\x80\x0e", b"\xff\xff"


def main(arguments: list[str]) -> None:
    if "--atheris" in arguments:
        atheris = import_module("atheris")
        atheris.instrument_all()
        atheris.Setup([sys.argv[0], *[argument for argument in arguments if argument != "--atheris"]], check)
        atheris.Fuzz()
        return
    parser = ArgumentParser(description="Fuzz the room wire with mutations of a corpus.")
    parser.add_argument("--runs", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args(arguments)
    for run, data in enumerate(mutations(options.seed, options.runs)):
        try:
            check(data)
        except Exception:
            print(f"seed {options.seed}, run {run}: {data.hex()}", file=sys.stderr)
            raise
    print(f"{options.runs} runs, seed {options.seed}: nothing found")


if __name__ == "__main__":
    main(sys.argv[1:])
