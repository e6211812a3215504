"""The connections of local programs, which the parent counts and ends when the node says so (RFC 5660)."""

from hushwire.events import CloseFlows, CountFlows, FlowsFound, Refused
from hushwire.linux.diag import SockDiag
from hushwire.linux.netlink import NetlinkError


def can_close() -> bool:
    """Whether this kernel ends connections (CONFIG_INET_DIAG_DESTROY)."""
    try:
        with SockDiag() as diag:
            return diag.can_end()
    except OSError:
        return False


def answer(request: CloseFlows | CountFlows) -> FlowsFound | Refused:
    """Do what is asked; of connections to be closed, those that only begin are not: nobody has answered them yet."""
    try:
        with SockDiag() as diag:
            found = [each for remote in request.remotes for each in diag.connections(remote)]
            if isinstance(request, CountFlows):
                return FlowsFound(request.request, len(found))
            return FlowsFound(request.request, sum(diag.end(each) for each in found if each.answered))
    except (OSError, NetlinkError) as error:
        return Refused(request.request, str(error))
