"""Reauthentication: a new IKE SA from scratch, with all Child SAs, before the old one is deleted (RFC 7296 s2.8.3).

It says in IKE_AUTH, in a private notify, which IKE SA it replaces.  A peer of the same code then takes the two for no
crossing of first contacts, and sends the old way until it has our next request: so nothing reaches us before we can
open it.  RFC 7296 s3.10.1: any other peer passes over it.
"""

from hushwire.ike import auth, create_child
from hushwire.ike.informational import check_liveness
from hushwire.ike.negotiation import Wanted
from hushwire.ike.sa import IkeSA
from hushwire.ike.state import State
from hushwire.ike.traps import Authorize
from hushwire.timers import NEVER

FIRST_WAIT, LAST_WAIT = 5.0, 160.0
"""Seconds until an attempt is made again, doubled each time: the peer may have to see the new key in the DNS first."""
LINGER = 1.0
"""Seconds between the last packet that goes the old way and the old way's end: others may have overtaken it."""
SOON = 1.0
"""Seconds until we look again whether something else is out of the way."""


def go_on(sa: IkeSA) -> None:
    """Have an IKE SA take the place of those that it replaces; or be replaced, if its own AUTH was with an old key."""
    if sa.state is not State.ESTABLISHED or sa.deleting:
        return
    if sa.predecessor is not None:
        sa.reauthenticate_later(SOON)
    elif sa.origin[1] and sa.succession.replaced:
        sa.start(lambda: complete(sa))
    elif sa.stale:
        begin(sa)


def begin(old: IkeSA) -> None:
    """Begin an IKE SA that is to replace `old`, unless that is under way."""
    host, now = old.host, old.host.now.monotonic
    assert old.authenticated is not None
    heirs = [sa for sa in host.by_reqid[old.authenticated.entry.reqid] if sa.succession.instead_of == old.origin[0]]
    moving = old.rekeying or old.successor is not None or old.predecessor is not None or old.children.busy
    if moving or any(sa.established > now - host.settings.patience for sa in [*heirs, old] if sa.succession.replaced):
        # Its children are about to move, or it has yet to take those of another.
        old.reauthenticate_later(SOON)
        return
    old.reauthenticate_later(_wait(old.succession.attempts))
    if any(sa.state in (State.INITIAL, State.HALF_OPEN) or sa.origin[1] for sa in heirs):
        return
    old.succession.attempts += 1
    child = next(iter(old.children.values()), None)
    if child is None or old.authenticated.anonymous:
        # Nothing is lost with it, and the next packet asks for another; or nobody can show that he is the same.
        old.delete()
        return
    wanted = Wanted((child.selector,), child.mode)
    new = IkeSA(host, old.local, old.remote, initiator=True)
    new.peer, new.known_as, new.succession.instead_of = old.authenticated.entry, old.known_as, old.origin[0]
    host.sas[new.spi_i] = new
    new.start(lambda: _initiate(new, wanted))


async def _initiate(sa: IkeSA, wanted: Wanted) -> None:
    """What is known of the peer by now counts: it may have another key, too."""
    assert sa.peer is not None
    await auth.initiate(sa, await Authorize(None, sa.remote, sa.peer.reqid), wanted)


async def complete(sa: IkeSA) -> None:
    """Make what Child SAs are missing, have both ends send by them, and delete the IKE SAs that this one replaces."""
    for child in [child for old in sa.succession.replaced for child in old.children.values()]:
        if sa.children.covering(child) is None:
            sa.succession.proven_at = NEVER
            await create_child.create(sa, Wanted((child.selector,), child.mode), set(sa.children))
    if sa.succession.proven_at == NEVER and any(sa.succession.serves_all_of(old) for old in sa.succession.replaced):
        # Whatever we ask tells the peer that what it answered before stands here: it sends this way from now on.
        await check_liveness(sa)
        sa.succession.proven_at = sa.host.now.monotonic
    sa.succession.mute_replaced()
    for old in sa.succession.replaced:
        muted = max(sa.succession.proven_at, old.succession.muted_at) + LINGER <= sa.host.now.monotonic
        if muted and sa.succession.serves_all_of(old) and not old.children.busy:
            old.delete()
    if not sa.succession.replaced:
        return
    if sa.succession.proven_at != NEVER:
        sa.reauthenticate_later(LINGER)
    else:
        sa.reauthenticate_later(_wait(sa.succession.attempts))
        sa.succession.attempts += 1


def _wait(attempts: int) -> float:
    return min(LAST_WAIT, FIRST_WAIT * float(2 ** min(attempts, 10)))
