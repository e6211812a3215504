"""The keeper signs AUTH octets with the keys it was given, and says or does nothing else."""

import os
import threading
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hushwire.crypto.auth import Scheme, shared_key_auth, signed_octets
from hushwire.crypto.keys import KeyKind, PrivateKey
from hushwire.crypto.secret import Secret
from hushwire.daemon import keeper
from hushwire.daemon.channel import EFFECTS, EVENTS, Channel, ChannelClosed, pair, vocabulary
from hushwire.daemon.keeper import Keeper, Ready, Unusable
from hushwire.daemon.keyfile import open_file
from hushwire.events import HostKey, Lookup, ReadKey, Refused, Sign, Signed
from hushwire.wire.registry import PrfID

KEY = PrivateKey.generate(KeyKind.ED25519)
PSK = Secret(b"sixteen octets at least")
NAME = b"\x07" * 32
MESSAGE = bytes(16) + bytes((33, 0x20, 34, 0x08)) + bytes(4) + (60).to_bytes(4) + b"\x01" * 32
OCTETS = signed_octets(MESSAGE, b"\x02" * 32, PrfID.HMAC_SHA2_256, Secret(b"\x03" * 32), b"\x02\0\0\0alice.example")
GOOD = Sign(5, KEY.public.fingerprint, "ED25519", OCTETS)


def kept(key: PrivateKey | None = KEY) -> Keeper:
    return Keeper(key, {NAME: PSK})


def test_auth_octets_are_signed() -> None:
    answer = kept().answer(GOOD)
    assert isinstance(answer, Signed)
    assert answer.request == 5
    KEY.public.key.verify(answer.signature, OCTETS)  # type: ignore[call-arg, union-attr]


def test_a_shared_key_makes_auth() -> None:
    answer = kept().answer(replace(GOOD, key=NAME, scheme="SHARED_KEY/HMAC_SHA2_256"))
    assert answer == Signed(5, shared_key_auth(PrfID.HMAC_SHA2_256, PSK, OCTETS))


@pytest.mark.parametrize(
    ("at", "octet"), [(17, 0x21), (17, 0x10), (18, 35), (19, 0x00), (19, 0x28), (20, 1), (23, 1), (24, 1), (27, 255)]
)
def test_octets_of_another_shape_are_not_signed(at: int, octet: int) -> None:
    """A message of another exchange or version, a message ID that is not 0, a length that leaves no nonce."""
    octets = bytearray(OCTETS)
    octets[at] = octet
    for request in (GOOD, replace(GOOD, key=NAME, scheme="SHARED_KEY/HMAC_SHA2_256")):
        answer = kept().answer(replace(request, octets=bytes(octets)))
        assert answer == Refused(5, "these are no AUTH octets")


@given(st.binary(max_size=300))
def test_nothing_else_is_signed(octets: bytes) -> None:
    assert kept().answer(replace(GOOD, octets=octets)) == Refused(5, "these are no AUTH octets")


@pytest.mark.parametrize("key", [b"", bytes(32), NAME, PrivateKey.generate(KeyKind.ED25519).public.fingerprint])
def test_only_its_own_key_signs(key: bytes) -> None:
    assert kept().answer(replace(GOOD, key=key)) == Refused(5, "no such key is kept here")
    assert kept(None).answer(GOOD) == Refused(5, "no such key is kept here")


@pytest.mark.parametrize("scheme", ["ECDSA_256", "RSA_PSS_SHA2_256", "ED448", "", "ed25519", "NULL", "mro", "name"])
def test_only_in_ways_that_fit_the_key(scheme: str) -> None:
    assert kept().answer(replace(GOOD, scheme=scheme)) == Refused(5, "the key cannot sign that way")


@pytest.mark.parametrize("scheme", ["SHARED_KEY", "SHARED_KEY/", "SHARED_KEY/MD5", "SHARED_KEY/HMAC_MD5", "ED25519"])
def test_a_shared_key_goes_with_a_prf_that_we_compute(scheme: str) -> None:
    assert isinstance(kept().answer(replace(GOOD, key=NAME, scheme=scheme)), Refused)


@given(st.builds(Sign, st.integers(0, 9), st.sampled_from((NAME, KEY.public.fingerprint, b"")),
                 st.sampled_from([*Scheme.__members__, *(f"SHARED_KEY/{prf}" for prf in PrfID.__members__)])
                 | st.text(max_size=30), st.sampled_from((OCTETS, MESSAGE, b""))))  # fmt: skip
def test_whatever_is_asked_the_answer_is_typed(request: Sign) -> None:
    answer = kept().answer(request)
    assert answer.request == request.request
    if isinstance(answer, Signed):
        assert request.octets == OCTETS
        assert request.scheme == "ED25519" or request.scheme.startswith("SHARED_KEY/HMAC_SHA2")


def test_a_key_is_not_shown() -> None:
    assert PSK.expose() not in repr(kept()._shared).encode()
    assert "PRIVATE" not in repr(kept()._keys)


# --- The process ------------------------------------------------------------------------------------------------------


class Process:
    """keeper.main in a thread."""

    def __init__(self, key: Path | None, shared: Mapping[bytes, Path]) -> None:
        parent, to_parent = pair()
        self._node, to_node = pair()
        self.confined: list[bool] = []
        self.parent = Channel(parent, vocabulary((Ready, Unusable)), timeout=5)
        self.node = Channel(self._node, EVENTS, timeout=5)
        ends = Channel(to_parent, vocabulary((ReadKey,))), Channel(to_node, EFFECTS)

        def body() -> None:
            keeper.main(*ends, key, shared, lambda: self.confined.append(True))
            for each in ends:
                each.close()

        self.thread = threading.Thread(target=body)
        self.thread.start()

    def close(self) -> None:
        self.node.close()
        self.thread.join(5)
        assert not self.thread.is_alive()
        self.parent.close()

    def offer(self, file: Path, number: int = 9) -> HostKey | Refused:
        """As the parent does; the keeper's answer to the node."""
        descriptor = open_file(file)
        self.parent.send_file(ReadKey(number), descriptor)
        os.close(descriptor)
        (answer,) = self.node.wait()
        assert isinstance(answer, HostKey | Refused)
        return answer

    def signs_with(self, key: PrivateKey) -> bool:
        self.node.send(replace(GOOD, key=key.public.fingerprint))
        (answer,) = self.node.wait()
        return isinstance(answer, Signed)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    found = tmp_path / "host.key"
    found.touch(0o600)
    found.write_bytes(KEY.write_pem().expose())
    return found


@pytest.fixture
def process(file: Path, tmp_path: Path) -> Iterator[Process]:
    (tmp_path / "psk").touch(0o600)
    (tmp_path / "psk").write_bytes(PSK.expose() + b"\n")
    made = Process(file, {NAME: tmp_path / "psk"})
    yield made
    made.close()


def test_it_is_confined_before_it_serves(process: Process) -> None:
    assert process.parent.wait() == [Ready(KEY.public.spki)]
    assert process.confined == [True]
    process.node.send(Lookup(1, "bob.example", 1), GOOD, replace(GOOD, key=NAME, scheme="SHARED_KEY/HMAC_SHA2_256"))
    # What is no request to sign has no answer.
    answers = process.node.wait() + process.node.wait()
    assert [type(answer) for answer in answers] == [Signed, Signed]


@pytest.mark.parametrize(
    ("content", "mode", "said"),
    [
        (None, 0o600, "No such file or directory"),
        (b"garbage", 0o600, ""),
        (b"", 0o600, ""),
        (KEY.write_pem().expose(), 0o644, "mode 0644 gives others a private key; it must be 0600 or 0400"),
        (KEY.write_pem().expose(), 0o620, "mode 0620"),
        (bytes(1 << 17), 0o600, "too long to be a key"),
    ],
)
def test_a_key_file_that_is_not_as_it_must_be(content: bytes | None, mode: int, said: str, tmp_path: Path) -> None:
    file = tmp_path / "host.key"
    if content is not None:
        file.write_bytes(content)
        file.chmod(mode)
    made = Process(file, {})
    (answer,) = made.parent.wait()
    assert isinstance(answer, Unusable)
    assert answer.reason.startswith(f"{file}: ")
    assert said in answer.reason
    assert len(answer.reason.splitlines()) == 1
    assert made.confined == []
    with pytest.raises(ChannelClosed):
        made.parent.wait()
    made.close()


@pytest.mark.parametrize(
    ("content", "mode", "said"),
    [
        (b"fifteen octets!\n", 0o600, "a shared key of 15 octets; it must have 16 or more"),
        (b" \n \n" * 9, 0o600, "a shared key of 0 octets"),
        (PSK.expose(), 0o640, "mode 0640"),
    ],
)
def test_a_shared_key_that_is_not_as_it_must_be(content: bytes, mode: int, said: str, tmp_path: Path) -> None:
    file = tmp_path / "psk"
    file.write_bytes(content)
    file.chmod(mode)
    made = Process(None, {NAME: file})
    (answer,) = made.parent.wait()
    assert isinstance(answer, Unusable)
    assert said in answer.reason
    assert PSK.expose().decode() not in answer.reason
    made.close()


def test_a_folder_or_a_fifo_is_no_key(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo", 0o600)
    for file in (tmp_path, tmp_path / "fifo"):
        made = Process(file, {})
        (answer,) = made.parent.wait()
        assert isinstance(answer, Unusable)
        made.close()


# --- Another key ------------------------------------------------------------------------------------------------------


def put(file: Path, key: PrivateKey, mode: int = 0o600) -> None:
    """As an administrator does: all at once, under the same name."""
    fresh = file.with_suffix(".new")
    fresh.touch(mode)
    fresh.write_bytes(key.write_pem().expose())
    fresh.chmod(mode)
    fresh.rename(file)


def test_another_key_comes_as_a_descriptor_and_the_old_one_still_signs(process: Process, file: Path) -> None:
    process.parent.wait()
    fresh = PrivateKey.generate(KeyKind.ED25519)
    put(file, fresh)
    # What is in the file counts for nothing until it is offered.
    assert not process.signs_with(fresh)
    assert process.offer(file) == HostKey(9, fresh.public.spki)
    assert process.signs_with(fresh)
    assert process.signs_with(KEY)


def test_the_same_key_again_is_no_other(process: Process, file: Path) -> None:
    process.parent.wait()
    for number in range(10):
        assert process.offer(file, number) == HostKey(number, KEY.public.spki)
    assert process.signs_with(KEY)


@pytest.mark.parametrize(("mode", "said"), [(0o644, "mode 0644"), (0o640, "mode 0640")])
def test_a_key_that_others_can_read_is_refused_and_the_old_one_stays(
    process: Process, file: Path, mode: int, said: str
) -> None:
    process.parent.wait()
    fresh = PrivateKey.generate(KeyKind.ED25519)
    put(file, fresh, mode)
    answer = process.offer(file)
    assert isinstance(answer, Refused)
    assert said in answer.reason
    assert process.signs_with(KEY)
    assert not process.signs_with(fresh)


@pytest.mark.parametrize("content", [b"", b"garbage", bytes(1 << 17)])
def test_what_is_no_key_is_refused_and_the_old_one_stays(process: Process, file: Path, content: bytes) -> None:
    process.parent.wait()
    file.write_bytes(content)
    answer = process.offer(file)
    assert isinstance(answer, Refused)
    assert answer.reason.startswith(f"{file}: ")
    assert process.signs_with(KEY)


def test_a_descriptor_of_something_else_is_refused(process: Process, tmp_path: Path) -> None:
    process.parent.wait()
    os.mkfifo(tmp_path / "fifo", 0o600)
    for file in (tmp_path, tmp_path / "fifo"):
        assert isinstance(process.offer(file), Refused)
    assert process.signs_with(KEY)


def test_only_the_last_keys_are_held(process: Process, file: Path) -> None:
    process.parent.wait()
    keys = [KEY] + [PrivateKey.generate(KeyKind.ED25519) for _ in range(keeper.MOST_KEYS)]
    for key in keys[1:]:
        put(file, key)
        process.offer(file)
    assert [process.signs_with(key) for key in keys] == [False] + [True] * keeper.MOST_KEYS


def test_descriptors_do_not_pile_up(process: Process, file: Path) -> None:
    process.parent.wait()
    before = len(os.listdir("/proc/self/fd"))
    for number in range(50):
        process.offer(file, number)
        process.offer(file.parent, number)
    assert len(os.listdir("/proc/self/fd")) == before
