"""What an administrator is told of the memory of peers, and may say to it: `hushwire known`, and a changed key."""

import json
from datetime import UTC, datetime

from hushwire.events import KnownForget, KnownList, KnownPin, KnownShow, Notice, Reply
from hushwire.node.known import KnownPeers, NoRoom
from hushwire.policy.known import Known
from hushwire.policy.pad import fingerprint_text
from hushwire.timers import Now

Command = KnownList | KnownShow | KnownPin | KnownForget

PART = 500
"""Records in one answer: what it takes to make it keeps no packet waiting."""


def answer(command: Command, known: KnownPeers, now: Now) -> Reply:
    """Do what was asked, and say what came of it."""
    match command:
        case KnownList(request, after):
            part = known.after(after, PART)
            body = {"known": [record(each) for each in part], "more": len(part) == PART, "all": len(known)}
            return Reply(request, True, body=json.dumps(body))
        case KnownShow(request, subject):
            found = known.of(subject)
            if found is None:
                return Reply(request, False, f"{subject} is not remembered")
            return Reply(request, True, body=json.dumps(record(found)))
        case KnownPin(request, subject, fingerprint):
            return _pin(request, subject, fingerprint, known, now)
        case KnownForget(request, subject):
            gone = known.forget(subject)
            if gone is None:
                return Reply(request, False, f"{subject} is not remembered; there is nothing to forget")
            done = f"{subject}: forgotten, {_acquaintance(gone)}; whatever key it proves next is taken for its first"
            return Reply(request, True, done)


def changed(before: Known, fingerprint: bytes | None) -> Notice:
    """A subject has proved another key than the one that is remembered; None: it stays anonymous."""
    fields = (
        ("subject", before.subject),
        ("proves", fingerprint_text(fingerprint) if fingerprint is not None else "nothing"),
        ("known", fingerprint_text(before.fingerprint)),
        ("since", day(before.first)),
        ("times", before.times),
        ("pinned", "yes" if before.pinned else ""),
        ("do", "see hushwire known show"),
    )
    return Notice("known.changed", fields, grave=True)


def refusal(before: Known, fingerprint: bytes | None) -> str:
    """Why a changed key, or none, is refused, and what to do about that: a line for `hushwire why`."""
    subject = before.subject
    if fingerprint is None:
        return (
            f"{subject} stays anonymous, and is known by {_acquaintance(before)}. Somebody else may be there; if "
            f"nobody need prove that key there any more, `hushwire known forget {subject}`"
        )
    proved = fingerprint_text(fingerprint)
    return (
        f"{subject} proves the key {proved}, and is known by {_acquaintance(before)}. Its host has a new key, or "
        f"somebody else is there. Compare with what its administrator says; if the new key is its own, "
        f"`hushwire known pin {subject} {proved}`"
    )


def record(known: Known) -> dict[str, str | float | bool]:
    """One subject in JSON."""
    return {
        "subject": known.subject,
        "fingerprint": fingerprint_text(known.fingerprint),
        "level": str(known.level),
        "pinned": known.pinned,
        "times": known.times,
        "first": known.first,
        "last": known.last,
        "until": known.until,
    }


def day(wall: float) -> str:
    """The date of a wall-clock time, for people."""
    return datetime.fromtimestamp(wall, UTC).date().isoformat()


def _pin(request: int, subject: str, fingerprint: bytes, known: KnownPeers, now: Now) -> Reply:
    before = known.of(subject)
    if not fingerprint and before is None:
        why = f"{subject} is not remembered; say which key it has: `hushwire known pin {subject} SHA256:...`"
        return Reply(request, False, why)
    wanted = fingerprint or (before.fingerprint if before is not None else b"")
    if isinstance(known.pin(subject, wanted, now.wall), NoRoom):
        return Reply(request, False, f"all {len(known)} places are taken by hosts met more than once; forget some")
    instead = f", in place of {_acquaintance(before)}" if before is not None and before.fingerprint != wanted else ""
    pinned = f"{subject}: pinned to {fingerprint_text(wanted)}{instead}; with any other key it is refused"
    return Reply(request, True, f"{pinned}, until `hushwire known forget {subject}`")


def _acquaintance(known: Known) -> str:
    """A key and how well it is known, in words."""
    key = fingerprint_text(known.fingerprint)
    if not known.times:
        return f"{key}, pinned {day(known.first)} and never met"
    often = "once" if known.times == 1 else f"{known.times} times"
    return f"{key}, met {often} since {day(known.first)}{' and pinned' if known.pinned else ''}"
