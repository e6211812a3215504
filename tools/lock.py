"""Write requirements.lock: every Python package that running, testing and building hushwire needs, by version and hash.

Run `make lock` after a change of the dependencies in pyproject.toml.  pip resolves once for each kind of machine that
we build on; only wheels are taken, so that installing never compiles anything or runs a package's own code.
"""

import json
import subprocess
import sys
import tomllib
from collections import defaultdict
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PYTHON = "3.11"
MACHINES = ("x86_64", "aarch64")
GLIBC = (36, 35, 34, 31, 28, 27, 26, 24, 17)
"""Minor versions of the manylinux tags that Debian 12's C library (2.36) satisfies."""
HEAD = f"""\
# Made by `make lock` from pyproject.toml, for Python {PYTHON} on Linux ({", ".join(MACHINES)}).  Do not edit.
"""


def resolve(machine: str, requirements: list[str]) -> list[tuple[str, str, str]]:
    """The name, version and SHA-256 of each wheel that `machine` needs."""
    platforms = [f"--platform=manylinux_2_{minor}_{machine}" for minor in GLIBC]
    command = [sys.executable, "-m", "pip", "install", "--dry-run", "--ignore-installed", "-qq", "--report=-"]
    target = [f"--python-version={PYTHON}", "--implementation=cp", "--only-binary=:all:", "--target=unused"]
    done = subprocess.run([*command, *target, *platforms, *requirements], stdout=subprocess.PIPE, check=True)
    return [
        (
            item["metadata"]["name"].lower().replace("_", "-"),
            item["metadata"]["version"],
            item["download_info"]["archive_info"]["hashes"]["sha256"],
        )
        for item in json.loads(done.stdout)["install"]
    ]


def main() -> None:
    pyproject = tomllib.loads((ROOT / "pyproject.toml").read_text())
    project = pyproject["project"]
    requirements = [
        *project["dependencies"],
        *project["optional-dependencies"]["dev"],
        *pyproject["build-system"]["requires"],
    ]
    wheels: dict[tuple[str, str], set[str]] = defaultdict(set)
    for machine in MACHINES:
        for name, version, digest in resolve(machine, requirements):
            wheels[name, version].add(digest)
    if len({name for name, _ in wheels}) != len(wheels):
        sys.exit("tools/lock.py: the machines need different versions of a package; pin it in pyproject.toml")
    lines = [
        " \\\n    ".join([f"{name}=={version}", *(f"--hash=sha256:{digest}" for digest in sorted(digests))])
        for (name, version), digests in sorted(wheels.items())
    ]
    (ROOT / "requirements.lock").write_text(HEAD + "\n".join(lines) + "\n")
    print(f"requirements.lock: {len(lines)} packages")


if __name__ == "__main__":
    main()
