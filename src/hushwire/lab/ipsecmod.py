"""hushwire behind an unbound that has ipsecmod: `python -m hushwire.lab.ipsecmod UNBOUND`; tools/ipsecmod.sh builds it.

Alice's programs ask unbound, whose hook has hushwire set the policy before they get their answer.  evil.example is well
signed and has bob's address, and a key that nobody has.
"""

import sys
from collections.abc import Iterator
from pathlib import Path

from hushwire.crypto.keys import KeyKind, PrivateKey
from hushwire.daemon import ipsecmod
from hushwire.lab.story import Story
from hushwire.lab.unbound import Unbound

RULE = '[[rule]]\npeer = "*.example"\ngroup = "private"\n'
SERVER = "127.0.0.1"
"""Where unbound answers on alice."""


def show(program: str) -> Iterator[tuple[bool, str]]:
    """What is tried, in words, and whether it went as it should."""
    with Story("alice", "bob") as story:
        alice, bob = story["alice"], story["bob"]
        story.hire("bob", RULE, dns='ask = ["*.example"]')
        daemon = story.hire("alice", RULE)
        story.world.publish("evil.example", [bob.v4, bob.v6], [PrivateKey.generate(KeyKind.ED25519).public])
        pages = story.serve_web(bob)
        hook = _hook(story.folder, daemon.control)
        more = f'ipsecmod-enabled: yes\n    ipsecmod-strict: yes\n    ipsecmod-hook: "{hook}"'
        modules = "ipsecmod validator iterator"
        with Unbound(story.world, SERVER, 53, alice.prefix, program=program, modules=modules, more=more) as unbound:

            def evil() -> tuple[bool, str]:
                said = story.program(alice, "kdig", f"@{SERVER}", "+timeout=20", "+retry=0", "evil.example", "A").stdout
                refused = "status: SERVFAIL" in said and str(bob.v4) not in said
                return refused, f"evil.example A: {'SERVFAIL' if refused else said}"

            yield evil()
            words = [line for line in unbound.log.read_text().splitlines() if line.startswith("hushwire: ")]
            yield bool(words), f"  the hook: {words[-1] if words else 'silent'}"
            arrived, canaries = story.curl(alice, "bob.example", pages, server=SERVER)
            yield arrived, "bob.example: curl got its page"
            seen, level = story.seen(canaries), story.peer("alice", "bob.example").get("level")
            yield level == "named", f"  level: {level}"
            yield seen == 0, f"  frames on the wire with a canary of it: {seen}"
            refused, text = evil()
            yield refused, f"{text}, again"


def _hook(folder: Path, control: Path) -> Path:
    """A copy of the program that administrators install, which knows this host's control socket."""
    path = folder / "hook"
    path.write_text(Path(ipsecmod.__file__).read_text().replace(ipsecmod.CONTROL, str(control)))
    path.chmod(0o755)
    return path


def main(program: str) -> int:
    """Exit status 0: all of it went as it should."""
    good = True
    for holds, text in show(program):
        print(text if holds else f"NOT AS IT SHOULD BE: {text}", flush=True)
        good &= holds
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
