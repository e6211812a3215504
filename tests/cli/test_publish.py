"""`hushwire dns publish` and `withdraw`, at a real Knot, as an administrator types them."""

import base64
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from hushwire.cli.dns import dns as noun
from hushwire.cli.key import key, read_public
from hushwire.daemon.credential import read_tsig
from hushwire.daemon.unbound import Configuration
from hushwire.daemon.update import Primary, Server
from hushwire.lab.namespaces import free_port
from hushwire.lab.updates import HOST, OTHER, Knot
from hushwire.names.publish import Own

TSIG_ERRORS = "BADSIG: its secret for TSIG key alice-key is another"


@pytest.fixture(scope="module")
def served() -> Iterator[Knot]:
    with Knot() as served:
        assert isinstance(served, Knot)
        yield served


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("keys")
    for name, kind in (("first", "ed25519"), ("second", "ecdsa-p256"), ("long", "rsa-4096")):
        CliRunner().invoke(key, ["new", "--type", kind, str(folder / name)])
    return {name: folder / name for name in ("first", "second", "long")}


@pytest.fixture(autouse=True)
def clean(served: Knot) -> Iterator[None]:
    """Nothing is at HOST before a test."""
    yield
    configuration = Configuration(str(served.anchor_path), forward=(served.forward,))
    primary = Primary(Server.read(served.forward), read_tsig(served.tsig_path), configuration)
    keys = frozenset(record.fingerprint for record in primary.plan(HOST, (), Own()).kept if record.fingerprint)
    run(served, "withdraw", "--address", "192.0.2.1", "--address", "192.0.2.2", "--address", "2001:db8::1")
    primary.publish(primary.plan(HOST, (), Own(keys)))


def run(served: Knot, command: str, *arguments: str | Path, name: str = HOST, tsig: Path | None = None) -> Result:
    options = (
        "--tsig", tsig or served.tsig_path, "--server", served.forward, "--forward", served.forward,
        "--anchor", served.anchor_path, "--wait", "5", "--timeout", "2",
    )  # fmt: skip
    return CliRunner().invoke(noun, [str(word) for word in (command, name, *arguments, *options)])


def check(served: Knot, *arguments: str | Path) -> Result:
    options = ("--forward", served.forward, "--anchor", served.anchor_path)
    return CliRunner().invoke(noun, [str(word) for word in ("check", HOST, *arguments, *options)])


def done(result: Result) -> list[str]:
    assert result.exit_code == 0, result.output
    assert result.output.splitlines()[-1] == "seen by a validator: secure"
    return result.output.splitlines()


def refused(result: Result) -> str:
    """The one line of an error."""
    assert result.exit_code == 1, result.output
    assert isinstance(result.exception, SystemExit), "an exception escaped"
    (line,) = result.stderr.splitlines()
    return line


def fingerprint(file: Path) -> str:
    return read_public(file).fingerprint.hex(" ", 2)


def test_publish_check_withdraw(served: Knot, keys: dict[str, Path]) -> None:
    first = ("--key", keys["first"], "--address", "192.0.2.1")
    lines = done(run(served, "publish", *first, "--tlsa", "--ttl", "60"))
    assert lines[:3] == [
        f"+ {HOST}. A 192.0.2.1 (TTL 60)",
        f"+ {HOST}. IPSECKEY {fingerprint(keys['first'])} (TTL 60)",
        f"+ _500._udp.{HOST}. TLSA {fingerprint(keys['first'])} (TTL 60)",
    ]
    assert check(served, *first).exit_code == 0
    assert done(run(served, "publish", *first, "--tlsa"))[0] == "nothing to change"
    assert len(done(run(served, "withdraw", *first))) == 4
    assert "no IPSECKEY" in check(served, *first).stderr


def test_the_next_key_takes_the_place_of_the_old_one(served: Knot, keys: dict[str, Path]) -> None:
    done(run(served, "publish", "--key", keys["first"]))
    lines = done(run(served, "publish", "--key", keys["second"]))
    assert lines[0] == (
        f"kept: {HOST}. IPSECKEY {fingerprint(keys['first'])}: not known as this host's; "
        "if it is, say so with --old-key or --replace"
    )
    assert len(served.ask(HOST, "IPSECKEY")) == 2
    lines = done(run(served, "publish", "--key", keys["second"], "--old-key", keys["first"]))
    assert lines[0] == f"- {HOST}. IPSECKEY {fingerprint(keys['first'])}"
    assert len(served.ask(HOST, "IPSECKEY")) == 1


def test_an_address_that_changes_is_followed_by_its_state(served: Knot, keys: dict[str, Path], tmp_path: Path) -> None:
    """A laptop: somebody else's address stays, the key stays, our own address goes with us."""
    state = tmp_path / "published"
    done(run(served, "publish", "--address", "2001:db8::1"))
    done(run(served, "publish", "--key", keys["first"], "--address", "192.0.2.1", "--state", state))
    done(run(served, "publish", "--address", "192.0.2.2", "--state", state))
    assert (served.ask(HOST, "A"), served.ask(HOST, "AAAA")) == (["192.0.2.2"], ["2001:db8::1"])
    assert len(served.ask(HOST, "IPSECKEY")) == 1
    assert state.read_text().count("\n") == 2
    assert "192.0.2.1" not in state.read_text()
    done(run(served, "withdraw", "--state", state))
    assert (served.ask(HOST, "A"), served.ask(HOST, "IPSECKEY")) == ([], [])
    assert served.ask(HOST, "AAAA") == ["2001:db8::1"]
    assert state.read_text() == ""


def test_replace_by_hand(served: Knot) -> None:
    done(run(served, "publish", "--address", "192.0.2.1"))
    done(run(served, "publish", "--address", "192.0.2.2", "--replace", "A 192.0.2.1"))
    assert served.ask(HOST, "A") == ["192.0.2.2"]


def test_a_state_of_what_was_refused_knows_it_all_the_same(served: Knot, tmp_path: Path) -> None:
    """The update may have been done although we were told nothing: what may be there is noted as ours."""
    state = tmp_path / "published"
    done(run(served, "publish", "--address", "192.0.2.1", "--state", state))
    wrong = tmp_path / "wrong"
    wrong.write_text(f"hmac-sha256:alice-key:{'A' * 44}")
    wrong.chmod(0o600)
    assert TSIG_ERRORS in refused(run(served, "publish", "--address", "192.0.2.2", "--state", state, tsig=wrong))
    assert sorted(state.read_text().split()[2::3]) == ["192.0.2.1", "192.0.2.2"]
    done(run(served, "publish", "--address", "2001:db8::1", "--state", state))
    assert served.ask(HOST, "A") == []


def test_only_the_fingerprint(served: Knot, keys: dict[str, Path]) -> None:
    done(run(served, "publish", "--key", keys["long"], "--tlsa", "--no-ipseckey"))
    assert served.ask(HOST, "IPSECKEY") == []
    assert served.ask(f"_500._udp.{HOST}", "TLSA") == [f"3 1 1 {read_public(keys['long']).fingerprint.hex()}"]


def test_a_dry_run_shows_and_sends_nothing(served: Knot, keys: dict[str, Path], tmp_path: Path) -> None:
    state = tmp_path / "published"
    arguments = ("--key", keys["first"], "--address", "192.0.2.1", "--state", state, "--dry-run")
    result = run(served, "publish", *arguments)
    assert result.exit_code == 0, result.output
    for line in (
        ";ZONE", "example. IN SOA", ";PREREQ", f"{HOST}. NONE A", f"{HOST}. NONE CNAME", f"{HOST}. NONE IPSECKEY",
        ";UPDATE", f"{HOST}. 3600 IN A 192.0.2.1",
    ):  # fmt: skip
        assert line in result.output.splitlines()
    assert served.secret not in result.output
    assert served.ask(HOST, "A") == []
    assert not state.exists()
    options = ("--server", served.forward, "--dry-run", "--address", "192.0.2.1")
    assert CliRunner().invoke(noun, ["publish", HOST, *options]).exit_code == 0, "no key is needed to look"


def test_check_cries(served: Knot, keys: dict[str, Path]) -> None:
    first = ("--key", keys["first"], "--address", "192.0.2.1")
    done(run(served, "publish", *first))
    result = check(served, *first)
    assert result.exit_code == 0, result.output
    assert "signatures are good until" in result.output
    for arguments, alarm in (
        ((*first, "--alarm-days", "100"), "the signature over"),
        (("--key", keys["second"]), "is no key of this host: whoever has that key is alice.example for every peer"),
        (("--key", keys["second"]), "is not published: peers will refuse this host"),
        ((*first, "--key", keys["second"]), "is not published"),
        (("--address", "192.0.2.2"), "192.0.2.1 is published and is no address of this host"),
        (("--address", "192.0.2.2"), "192.0.2.2 is not published"),
    ):
        result = check(served, *arguments)
        assert result.exit_code == 1
        assert alarm in result.stderr


def test_check_cries_of_a_strangers_key_beside_the_hosts(served: Knot, keys: dict[str, Path]) -> None:
    """What a thief of the TSIG key would do, whole or by fingerprint."""
    first = ("--key", keys["first"], "--address", "192.0.2.1")
    done(run(served, "publish", *first))
    for theirs in ((), ("--tlsa", "--no-ipseckey")):
        done(run(served, "publish", "--key", keys["second"], *theirs))
        assert "is no key of this host" in check(served, *first).stderr
        done(run(served, "withdraw", "--key", keys["second"]))
        assert check(served, *first).exit_code == 0


def test_a_server_that_is_not_there(served: Knot) -> None:
    result = run(served, "publish", "--address", "192.0.2.1", "--server", f"127.0.0.1@{free_port()}")
    assert result.exit_code == 0, "the last --server counts"
    nobody = [
        "publish",
        HOST,
        "--address",
        "192.0.2.1",
        "--tsig",
        served.tsig_path,
        "--server",
        f"127.0.0.1@{free_port()}",
    ]
    assert "refused" in refused(CliRunner().invoke(noun, [str(word) for word in nobody]))


def test_what_validators_do_not_see_is_no_success(served: Knot) -> None:
    """The server said yes, and peers would not know."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as silent:
        silent.bind(("127.0.0.1", 0))
        command = [
            "publish", HOST, "--address", "192.0.2.1", "--tsig", str(served.tsig_path), "--server", served.forward,
            "--anchor", str(served.anchor_path), "--forward", f"127.0.0.1@{silent.getsockname()[1]}",
            "--timeout", "0.3", "--wait", "1",
        ]  # fmt: skip
        assert "not seen within 1 s: A of alice.example: error" in refused(CliRunner().invoke(noun, command))
    assert served.ask(HOST, "A") == ["192.0.2.1"]


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        ((), "say what to publish"),
        (("--key", "/nonexistent"), "No such file"),
        (("--address", "192.0.2.1", "--tsig", "/nonexistent"), "No such file"),
        (("--address", "192.0.2.1", "--sig0", "/nonexistent"), "one signature is enough"),
        (("--address", "192.0.2.1", "--zone", "other.example"), "not the primary of other.example"),
        (("--address", "192.0.2.1", "--replace", "MX 10 mail.example."), "never published"),
        (("--address", "192.0.2.1", "--replace", "nonsense"), "no records"),
        (("--address", "192.0.2.1", "--no-ipseckey"), "no key"),
        (("--address", "192.0.2.1", "--anchor", "/nonexistent"), "No such file"),
        (("--address", "192.0.2.1", "--forward", "127.0.0.1@853#dns.example"), "in clear"),
        (("--address", "192.0.2.1", "--state", "/nonexistent/state"), "No such file"),
    ],
)
def test_bad_input_is_one_line_and_nothing_done(served: Knot, arguments: tuple[str, ...], reason: str) -> None:
    options = {"--tsig": str(served.tsig_path), "--anchor": str(served.anchor_path)}
    given = dict(zip(arguments[::2], arguments[1::2], strict=False))
    rest = [word for option, value in options.items() if option not in given for word in (option, value)]
    command = ["publish", HOST, *arguments, *rest, "--server", served.forward, "--forward", served.forward]
    assert reason in refused(CliRunner().invoke(noun, command))
    assert served.ask(HOST, "A") == []


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (("publish", "alice..example", "--address", "192.0.2.1"), "empty label"),
        (("publish", HOST, "--address", "127.0.0.1"), "loopback"),
        (("publish", HOST, "--address", "192.0.2.1", "--server", "ns.example"), "does not appear"),
        (("publish", HOST, "--address", "192.0.2.1"), "--tsig FILE or --sig0 FILE"),
        (("withdraw", HOST, "--dry-run"), "say what to withdraw"),
    ],
)
def test_bad_options(arguments: tuple[str, ...], reason: str) -> None:
    result = CliRunner().invoke(noun, list(arguments))
    assert result.exit_code != 0
    assert reason in result.stderr.splitlines()[-1]


def test_names_that_are_not_ours(served: Knot) -> None:
    assert "TSIG key alice-key" in refused(run(served, "publish", "--address", "192.0.2.1", name=OTHER))
    assert served.ask(OTHER, "A") == ["192.0.2.66"]


def test_secrets_are_not_shown(served: Knot, tmp_path: Path) -> None:
    """Whatever is wrong with the file."""
    secret = base64.b64encode(b"a secret that nobody should see!").decode()
    for number, text in enumerate(
        (f"hmac-md5:x:{secret}", f"{secret}", f'key "{secret}" {{ }};', f"hmac-sha256:..:{secret}")
    ):
        file = tmp_path / str(number)
        file.write_text(text)
        for mode in (0o600, 0o644):
            file.chmod(mode)
            line = refused(run(served, "publish", "--address", "192.0.2.1", tsig=file))
            assert secret not in line
