"""The packet filter: transactions, errors in one line, and a library that is not there."""

from collections.abc import Callable
from typing import Any

import pytest

from hushwire.linux import nft
from hushwire.linux.nft import Nft, NftError


def commands(namespace: Any, *runs: tuple[str, ...]) -> str:
    """Run each, and tell what stands."""

    def body() -> None:
        made = Nft()
        for each in runs:
            made.run(*each)
        made.close()

    where = namespace()
    where(body)
    return str(where.run("nft list ruleset"))


TABLE = ("add table inet t", "add set inet t s { type ipv6_addr . ipv6_addr; flags interval; }")


@pytest.mark.lab
def test_what_was_run_stands(namespace: Callable[[], Any]) -> None:
    found = commands(namespace, TABLE, ("add element inet t s { fd01::/64 . fd02::1 }",), TABLE)
    assert "fd01::/64 . fd02::1" in found


@pytest.mark.lab
def test_all_or_none(namespace: Callable[[], Any]) -> None:
    where = namespace()

    def body() -> None:
        made = Nft()
        made.run(*TABLE)
        with pytest.raises(NftError, match=r"^packet filter: .*No such file") as caught:
            made.run("add element inet t s { fd01::1 . fd02::1 }", "add rule inet t nowhere accept")
        assert len(str(caught.value).splitlines()) == 1
        # The next run does not carry the last one's error.
        made.run("add element inet t s { fd01::2 . fd02::2 }")
        made.close()

    where(body)
    found = where.run("nft list ruleset")
    assert "fd01::2" in found
    assert "fd01::1" not in found


@pytest.mark.lab
def test_what_is_there_is_told_without_elements(namespace: Callable[[], Any]) -> None:
    def body() -> str:
        made = Nft()
        made.run(*TABLE)
        made.run("add element inet t s { fd01::1 . fd02::1 }")
        return made.run("list table inet t")

    told = namespace()(body)
    assert "set s {" in told
    assert "fd01::1" not in told


@pytest.mark.lab
def test_the_same_again_is_no_error(namespace: Callable[[], Any]) -> None:
    element = "add element inet t s { fd01::1 . fd02::1 }"
    assert commands(namespace, TABLE, (element,), (element,)).count("fd01::1") == 1


def test_without_the_library(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nft, "LIBRARY", "libnosuchthing.so.1")
    with pytest.raises(
        NftError, match=r"libnosuchthing\.so\.1 is not installed; the userspace plane needs it for IPv6"
    ):
        Nft()
