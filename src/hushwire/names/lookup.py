"""A name or an address kept up to date: its questions, one Binding or Unbound, asked again when its time is over.

An error changes nothing while the last Binding lives (law 3: an error is not knowing).  Anything that was validated
takes effect at once, the taking back of a key first of all.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Collection
from dataclasses import dataclass

from hushwire.entropy import Entropy
from hushwire.events import Answered, Lookup, Outcome
from hushwire.names.binding import AAAA, A, Binding, Unbound, bind, questions
from hushwire.names.ipseckey import IPSECKEY
from hushwire.names.reverse import bind_address, reverse_name
from hushwire.names.tlsa import TLSA
from hushwire.timers import NEVER, Now
from hushwire.wire.address import IPAddress

ANSWER_LIMIT = 10.0
"""Seconds after which a resolver that says nothing counts as an error; its own limit is shorter."""

GRACE = 10.0
"""Seconds that a Binding outlives its TTL, so that asking again does not leave a gap."""

FIRST_RETRY, LAST_RETRY = 5.0, 300.0
"""Seconds after an error until the next attempt; doubled each time."""


@dataclass(frozen=True, slots=True)
class Change:
    """What became known of a name, when it differs from before."""

    name: str
    before: Binding | None
    after: Binding | Unbound

    @property
    def removed(self) -> tuple[IPAddress, ...]:
        """Addresses that are the name's no more."""
        now = _addresses(self.after)
        return tuple(address for address in _addresses(self.before) if address not in now)


class Watch(ABC):
    """Stepped by the Node.  `binding` is what is true now; `unbound` why there is none."""

    def __init__(
        self, name: str, questions: tuple[tuple[str, int], ...], number: Callable[[], int], entropy: Entropy,
        own: Collection[IPAddress],
    ) -> None:  # fmt: skip
        """`number` gives the next request number; `own` are this host's addresses, to be kept current."""
        self.name = name
        self.own = own
        self.binding: Binding | None = None
        self.unbound: Unbound | None = None
        self.expires = NEVER
        """Monotonic time at which `binding` ends."""
        self._questions = questions
        self._number = number
        self._entropy = entropy
        self._open: dict[int, int] = {}
        self._answers: dict[int, Answered] = {}
        self._asked_at = 0.0
        self._ask_again = NEVER
        self._errors = 0

    @property
    def asking(self) -> bool:
        """Whether answers are still to come."""
        return bool(self._open)

    @property
    def asked_at(self) -> float:
        """Monotonic time of the last questions."""
        return self._asked_at

    def start(self, now: Now) -> list[Lookup]:
        """Ask now, whatever is under way."""
        self._asked_at = now.monotonic
        self._ask_again = now.monotonic + ANSWER_LIMIT
        self._answers = {}
        lookups = [Lookup(self._number(), name, rdtype) for name, rdtype in self._questions]
        self._open = {lookup.request: lookup.rdtype for lookup in lookups}
        return lookups

    def answered(self, event: Answered, now: Now) -> Change | None:
        """Take an answer.  One to an older question, or to somebody else's, is nothing to us."""
        rdtype = self._open.pop(event.request, None)
        if rdtype is None:
            return None
        self._answers[rdtype] = event
        if self._open:
            return None
        try:
            found = self._bind(self._answers)
        except Unbound as unbound:
            # Kept for long, it should not keep the frames it came through.
            return self._settle(unbound.with_traceback(None), now)
        return self._settle(found, now)

    def timeout(self, now: Now) -> tuple[list[Lookup], Change | None]:
        """To be called at deadline(): ask again, and let go of what is too old."""
        change = None
        if self._open and now.monotonic >= self._ask_again:
            self._open = {}
            change = self._settle(Unbound(self.name, "the resolver does not answer", Outcome.ERROR), now)
        if self.binding is not None and now.monotonic >= self.expires:
            expired = Unbound(self.name, "its records are too old, and new ones did not come", Outcome.ERROR)
            change = self._become(expired)
        lookups = self.start(now) if now.monotonic >= self._ask_again else []
        return lookups, change

    def deadline(self) -> float:
        """Monotonic time at which timeout() has something to do."""
        return min(self._ask_again, self.expires)

    @abstractmethod
    def _bind(self, answers: dict[int, Answered]) -> Binding:
        """The answers to all questions, by type -> Binding, or Unbound."""

    def _settle(self, found: Binding | Unbound, now: Now) -> Change | None:
        if isinstance(found, Unbound) and found.outcome is Outcome.ERROR:
            wait = min(LAST_RETRY, FIRST_RETRY * 2**self._errors)
            self._errors = min(self._errors + 1, 16)
            # Half to all of it, so that many names that failed together do not come back together.
            self._ask_again = now.monotonic + wait * (0.5 + self._fraction() / 2)
            return None if self.binding is not None else self._become(found)
        self._errors = 0
        # The life counts from the question: the answer may have been under way for a while.
        self._ask_again = max(self._asked_at + found.ttl, now.monotonic) + self._fraction()
        change = self._become(found)
        if isinstance(found, Binding):
            self.expires = self._asked_at + found.ttl + GRACE
        return change

    def _become(self, found: Binding | Unbound) -> Change | None:
        before, why = self.binding, self.unbound
        if isinstance(found, Binding):
            self.binding, self.unbound = found, None
            same = before is not None and _content(before) == _content(found)
        else:
            self.binding, self.unbound, self.expires = None, found, NEVER
            same = why is not None and (why.outcome, why.addresses) == (found.outcome, found.addresses)
        return None if same else Change(self.name, before, found)

    def _fraction(self) -> float:
        return self._entropy.public(1)[0] / 256


class NameLookup(Watch):
    """A host name: its addresses and keys."""

    def __init__(
        self, name: str, number: Callable[[], int], entropy: Entropy, own: Collection[IPAddress] = (), *,
        roams: bool = False,
    ) -> None:  # fmt: skip
        super().__init__(name, questions(name), number, entropy, own)
        self._roams = roams

    def _bind(self, answers: dict[int, Answered]) -> Binding:
        a, aaaa, ipseckey, tlsa = answers[A], answers[AAAA], answers[IPSECKEY], answers.get(TLSA)
        return bind(self.name, a, aaaa, ipseckey, tlsa, self.own, roams=self._roams)


class AddressLookup(Watch):
    """An address without a name: its keys, from its reverse zone."""

    def __init__(
        self, address: IPAddress, number: Callable[[], int], entropy: Entropy, own: Collection[IPAddress] = ()
    ) -> None:
        super().__init__(reverse_name(address), ((reverse_name(address), IPSECKEY),), number, entropy, own)
        self.address = address

    def _bind(self, answers: dict[int, Answered]) -> Binding:
        return bind_address(self.address, answers[IPSECKEY], self.own)


def _addresses(known: Binding | Unbound | None) -> tuple[IPAddress, ...]:
    return known.addresses if known is not None else ()


def _content(binding: Binding) -> tuple[object, ...]:
    """What a change of is worth telling."""
    return binding.canonical, binding.addresses, binding.records, binding.fingerprints
