"""TOML text -> Config, or every mistake in it: a line each, where it is, what is wrong, and what would be right."""

import difflib
import re
import tomllib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import MISSING, fields
from typing import Any

from hushwire.config import value
from hushwire.config.check import conflicts, faults, unreachable, unsaid
from hushwire.config.model import Addressing, Anonymous, Config, Dns, Esp, Group, Host, Ike, PlaneChoice, Rule, Start
from hushwire.config.proposal import esp_offer, ike_offer
from hushwire.config.value import Reader, list_of, number, one_of, shown
from hushwire.policy.assurance import Assurance
from hushwire.policy.sad import Mode
from hushwire.policy.spd import Action


class ConfigError(Exception):
    """A configuration that cannot be used.  Its text has one line for each mistake, the file's name first."""

    def __init__(self, source: str, mistakes: Iterable[str]) -> None:
        self.mistakes = tuple(f"{source}: {mistake}" for mistake in mistakes)
        super().__init__("\n".join(self.mistakes))


def parse(text: str, source: str) -> Config:
    """The configuration in `text`; `source` names it in errors.  Raises ConfigError with every mistake there is."""
    try:
        document = tomllib.loads(text)
    except (ValueError, RecursionError) as error:
        raise ConfigError(source, [f"this is not TOML: {error}"]) from None
    mistakes: list[str] = []
    tables = {"host": Host, "dns": Dns, "ike": Ike, "esp": Esp}
    known = [*tables, "rule"]
    mistakes += [_unknown("table", "", key, known) for key in document if key not in known]
    sections: dict[str, Any] = {key: _read(kind, document.get(key, {}), key, mistakes) for key, kind in tables.items()}
    rules = list(_rules(document.get("rule", []), mistakes))
    # What does not fit together is looked for only among settings that are each well-formed.
    if not mistakes:
        mistakes += [f"rule[{n}].{fault}" for n, rule in rules for fault in faults(rule, sections["host"])]
        mistakes += conflicts(rules)
        mistakes += unsaid(rules)
        mistakes += unreachable(rules, sections["dns"])
        if sections["host"].questions == sections["host"].control:
            mistakes.append("host.peer-socket: the same as host.control; give it a path of its own")
        if sections["dns"].roots and sections["dns"].forward:
            mistakes.append("dns.roots: with dns.forward nobody asks them; leave one of the two out")
    if mistakes:
        raise ConfigError(source, mistakes)
    return Config(**sections, rules=tuple(rule for _, rule in rules))


def _rules(tables: object, mistakes: list[str]) -> Iterator[tuple[int, Rule]]:
    """The rules with their numbers, the first being 1."""
    if not isinstance(tables, list):
        mistakes.append("rule: not a list of tables; write [[rule]], with two brackets, before each")
        return
    for n, table in enumerate(tables, 1):
        if isinstance(table, dict):
            mistakes += [
                f"rule[{n}].{key}: group says that already; leave one of them out"
                for key in PRESET
                if {"group", key} <= set(table)
            ]
            table = {**_preset(table), **table}
        if (rule := _read(Rule, table, f"rule[{n}]", mistakes)) is not None:
            yield n, rule


def _preset(table: dict[str, object]) -> dict[str, object]:
    """What a rule leaves to its group, and to how the peer is proved."""
    group = table.get("group")
    preset = GROUPS.get(group, {}) if isinstance(group, str) else {}
    known = {"require": "trusted"} if "key" in table or "psk" in table else {}
    return {**known, **preset}


def _read(kind: type[Any], table: object, where: str, mistakes: list[str]) -> Any:
    """The dataclass that a TOML table spells; None, and a mistake more, where it spells none."""
    if not isinstance(table, dict):
        mistakes.append(f"{where}: {shown(table)} is not a table; write [{where}] on a line of its own, its keys below")
        return None
    before = len(mistakes)
    readers = READERS[kind]
    values: dict[str, Any] = {}
    for key, setting in table.items():
        if key not in readers:
            mistakes.append(_unknown("key", f"{where}.", key, readers))
            continue
        try:
            values[key.replace("-", "_")] = readers[key](setting)
        except ValueError as error:
            mistakes.append(f"{where}.{key}: {error}")
    needed = [known.name for known in fields(kind) if known.default is MISSING]
    mistakes += [f"{where}.{key}: missing; {NEEDED[kind]}" for key in needed if key not in table]
    return kind(**values) if len(mistakes) == before else None


def _unknown(what: str, where: str, key: str, known: Iterable[str]) -> str:
    names = list(known)
    near = difflib.get_close_matches(key, names, n=1)
    right = f'did you mean "{near[0]}"?' if near else f"there are {', '.join(names)}"
    # A key in quotes may hold anything, a line's end included.
    return f"{where}{key if KEY.fullmatch(key) else shown(key)}: no such {what}; {right}"


KEY = re.compile("[A-Za-z0-9_-]{1,40}")

NEEDED: Mapping[type[Any], str] = {
    Host: 'give the full name of this host, such as name = "alice.example"',
    Rule: 'say whom the rule is about, such as peer = "bob.example"',
}
"""What would be right where the one key that a table must have is not there."""

PRESET = ("require", "below", "start")
GROUPS: Mapping[str, Mapping[str, object]] = {
    Group.PRIVATE.value: {"below": "block"},
    Group.PRIVATE_OR_CLEAR.value: {"below": "clear"},
    Group.CLEAR_OR_PRIVATE.value: {"below": "clear", "start": "wait"},
    Group.CLEAR.value: {"require": "clear"},
    # No level is enough, so it does not matter which.
    Group.BLOCK.value: {"below": "block"},
}
"""What each of the classical groups says."""

SECONDS = number(10, 365 * 24 * 3600, "number of seconds")
PORT = number(1, 65535, "port")

READERS: Mapping[type[Any], Mapping[str, Reader]] = {
    Host: {
        "name": value.name,
        "key": value.path,
        "plane": one_of({choice.value: choice for choice in PlaneChoice}),
        "user": value.text,
        "trusted": value.path,
        "state": value.path,
        "control": value.path,
        "peer-socket": value.path,
        "port": PORT,
        "nat-port": PORT,
        "addresses": list_of(value.address),
    },
    Dns: {
        "trust-anchor": value.path,
        "forward": list_of(value.server),
        "roots": list_of(value.root),
        "listen": list_of(value.listener),
        "ask": list_of(value.pattern),
    },
    Ike: {
        "proposals": list_of(ike_offer),
        "lifetime": SECONDS,
        "liveness": number(1, 24 * 3600, "number of seconds"),
        "retransmit": value.waits,
    },
    Esp: {
        "proposals": list_of(esp_offer),
        "lifetime": SECONDS,
        "packets": number(1000, 1 << 31, "number of packets"),
        "replay-window": number(32, 4096, "number of packets"),
    },
    Rule: {
        "peer": value.peer,
        "require": one_of({str(level): level for level in Assurance}),
        "below": one_of({action.value: action for action in (Action.BLOCK, Action.CLEAR)}),
        "mode": one_of({mode.value: mode for mode in Mode}),
        "key": value.path,
        "psk": value.path,
        "address": value.address,
        "identity": value.identity,
        "own-identity": value.identity,
        "protocol": value.protocol,
        "local-port": PORT,
        "remote-port": PORT,
        "local-networks": list_of(value.network),
        "remote-networks": list_of(value.network),
        "start": one_of({start.value: start for start in Start}),
        "group": one_of({group.value: group for group in Group}),
        "roams": value.yes_or_no,
        "anonymous": one_of({anonymous.value: anonymous for anonymous in Anonymous}),
        "addressing": one_of({addressing.value: addressing for addressing in Addressing}),
    },
}
"""Every key there is."""
