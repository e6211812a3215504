#!/usr/bin/python3 -ISE
"""unbound's `ipsecmod-hook`: have hushwire set the policy for a name before unbound answers.

unbound runs it with the name, the time to live, the addresses and the IPSECKEYs that it found.  hushwire asks for all
of that itself, so that nobody has to be believed who can run this program.  Exit status 0: the policy stands, or no
rule speaks of the name; with `ipsecmod-strict: yes`, anything else makes unbound answer SERVFAIL.

A program by itself, since it starts for every name: it imports nothing of hushwire, and the interpreter neither looks
for packages (-S) nor at the environment (-I, -E).
"""

import json
import socket
import sys

CONTROL = "/run/hushwire/control"
"""As in `host.control`."""
PATIENCE = 8.0
"""Seconds.  unbound waits for us, with all else that its thread has to do."""
LARGEST = 4096
"""Octets of a packet of the answer."""


def main(words: list[str]) -> int:
    if len(words) < 2:
        print("usage: ipsecmod.py NAME [TTL ADDRESSES IPSECKEYS]; unbound's ipsecmod-hook", file=sys.stderr)
        return 2
    try:
        answer = ask(CONTROL, words[1])
    except (OSError, ValueError) as error:
        print(f"hushwire: {CONTROL}: {error}", file=sys.stderr)
        return 3
    if answer.get("ok") is not True:
        print(f"hushwire: {answer.get('text')}", file=sys.stderr)
        return 1
    return 0


def ask(control: str, name: str) -> dict[str, object]:
    """What the daemon answers.  Raises OSError, ValueError."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as connection:
        connection.settimeout(PATIENCE)
        connection.connect(control)
        connection.sendall(json.dumps({"command": "capture", "name": name}).encode())
        answer = json.loads(b"".join(iter(lambda: connection.recv(LARGEST), b"")))
    if not isinstance(answer, dict):
        raise ValueError("no answer")
    return answer


if __name__ == "__main__":
    sys.exit(main(sys.argv))
