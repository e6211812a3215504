"""`hushwire check` and `run`: each mistake in a configuration is one line that says what would be right."""

from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from hushwire.cli import main
from hushwire.cli.daemon import check, run
from hushwire.crypto.keys import KeyKind, PrivateKey

ANCHOR = ". DS 20326 8 2 E06D44B80B8F1D39A95C0B0D7C65D08458E880409BBC683457104237C7F8EC8D\n"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """A good configuration, with everything that it names."""
    for name in ("host.key", "psk"):
        (tmp_path / name).touch(0o600)
    (tmp_path / "host.key").write_bytes(PrivateKey.generate(KeyKind.ED25519).write_pem().expose())
    (tmp_path / "psk").write_text("sixteen octets at least")
    (tmp_path / "root.key").write_text(ANCHOR)
    made = tmp_path / "hushwire.toml"
    made.write_text(f"""
[host]
name = "alice.example"
key = "{tmp_path}/host.key"
control = "{tmp_path}/control"
[dns]
trust-anchor = "{tmp_path}/root.key"
[[rule]]
peer = "bob.example"
[[rule]]
peer = "192.0.2.3"
psk = "{tmp_path}/psk"
""")
    return made


def invoke(command: object, file: Path) -> Result:
    return CliRunner().invoke(command, [str(file)])  # type: ignore[arg-type]


def mistakes(result: Result) -> list[str]:
    assert result.exit_code == 1, result.output
    assert isinstance(result.exception, SystemExit), "an exception escaped"
    assert result.stdout == ""
    return result.stderr.removeprefix("Error: ").splitlines()


def test_what_is_good(file: Path) -> None:
    result = invoke(check, file)
    assert (result.exit_code, result.output) == (0, f"{file}: good; alice.example with 2 rules\n")


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("[host]", "[host", "this is not TOML: "),
        ('name = "alice.example"', "", 'host.name: missing; give the full name of this host, such as name = "alice.ex'),
        ("name =", "nane =", 'host.nane: no such key; did you mean "name"?'),
        ("[dns]", "[dms]", 'dms: no such table; did you mean "dns"?'),
        ("[[rule]]", "[rule]", ""),
        ('peer = "bob.example"', 'peer = "bob"', 'rule[1].peer: "bob" has no domain; write the full name, such as'),
        ('peer = "bob.example"', 'peer = "bob.example"\nmode = "tunel"', "rule[1].mode: "),
        ('peer = "bob.example"', 'peer = "bob.example"\nbelow = "clear"\nport = 1', "rule[1].port: no such key"),
        ('name = "alice.example"', 'name = "alice.example"\nport = 70000', "host.port: "),
    ],
)
@pytest.mark.parametrize("command", [check, run], ids=["check", "run"])
def test_a_wrong_configuration(command: object, old: str, new: str, said: str, file: Path) -> None:
    file.write_text(file.read_text().replace(old, new, 1))
    lines = mistakes(invoke(command, file))
    assert all(line.startswith(f"{file}: ") for line in lines)
    assert any(said in line for line in lines)


def test_every_mistake_is_told(file: Path) -> None:
    text = file.read_text().replace("name =", "nane =").replace("psk =", "pks =")
    file.write_text(text)
    assert len(mistakes(invoke(check, file))) == 3


@pytest.mark.parametrize("command", [check, run], ids=["check", "run"])
def test_no_file(command: object, tmp_path: Path) -> None:
    assert mistakes(invoke(command, tmp_path / "none")) == [f"{tmp_path}/none: No such file or directory"]
    assert mistakes(invoke(command, tmp_path)) == [f"{tmp_path}: Is a directory"]


def test_what_is_no_text(file: Path) -> None:
    file.write_bytes(b"\xff\xfe")
    assert mistakes(invoke(check, file)) == [f"{file}: not UTF-8 text; a configuration is TOML"]


@pytest.mark.parametrize(
    ("name", "content", "mode", "said"),
    [
        ("host.key", None, 0, "No such file or directory"),
        ("host.key", b"", 0o644, "mode 0644 gives others a private key; it must be 0600 or 0400"),
        ("host.key", b"garbage", 0o600, ""),
        ("psk", None, 0, "No such file or directory"),
        ("psk", b"short", 0o600, "a shared key of 5 octets; it must have 16 or more"),
        ("psk", b"", 0o640, "mode 0640 gives others a private key; it must be 0600 or 0400"),
        ("root.key", None, 0, "No such file or directory"),
        ("root.key", b"garbage", 0o644, ""),
        ("root.key", b"; nothing\n", 0o644, "no DS or DNSKEY record in it"),
    ],
)
def test_files_that_it_names(name: str, content: bytes | None, mode: int, said: str, file: Path) -> None:
    named = file.with_name(name)
    if content is None:
        named.unlink()
    else:
        named.write_bytes(content or named.read_bytes())
        named.chmod(mode)
    (line,) = mistakes(invoke(check, file))
    assert f"{named}: " in line
    assert said in line


def test_a_user_that_is_not_there(file: Path) -> None:
    file.write_text(file.read_text().replace("[dns]", 'user = "nobody-here"\n[dns]'))
    (line,) = mistakes(invoke(check, file))
    assert line == 'host.user: there is no user "nobody-here" on this machine; make one or name another'


@pytest.mark.parametrize("command", ["run", "check", "status", "connect", "disconnect", "rekey"])
def test_help_needs_no_manual(command: str) -> None:
    result = CliRunner().invoke(main, [command, "--help"])
    assert result.exit_code == 0
    assert result.output.startswith("Usage: ")


def test_a_word_that_is_no_command() -> None:
    result = CliRunner().invoke(main, ["conect"])
    assert result.exit_code == 2
    assert "No such command 'conect'" in result.stderr
