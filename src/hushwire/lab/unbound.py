"""Debian's unbound, as the resolver that programs have without hushwire: one thread, validating, with one upstream."""

from collections.abc import Sequence

from hushwire.lab.dns import SignedWorld
from hushwire.lab.server import Server


class Unbound(Server):
    """A context manager: inside it programs are answered."""

    def __init__(
        self, upstream: SignedWorld, address: str = "127.0.0.1", port: int = 0, prefix: Sequence[str] = (), *,
        program: str = "unbound", modules: str = "validator iterator", more: str = "",
    ) -> None:  # fmt: skip
        """`program`: another build of it; `more`: lines for its `server:`."""
        super().__init__(address, port, prefix)
        self._upstream = upstream
        self._program = program
        self._modules = modules
        self._more = more

    def prepare(self) -> tuple[str, ...]:
        text = CONF.format(
            address=self.address, port=self.port, folder=self.folder, anchor=self._upstream.anchor_path,
            forward=self._upstream.forward, modules=self._modules, more=self._more,
        )  # fmt: skip
        return self._program, "-d", "-c", str(self.write("unbound.conf", text))

    def is_ready(self) -> bool:
        """It answers, and what it says is secure."""
        ask = ("kdig", f"@{self.address}", "-p", str(self.port), "+retry=0", "+timeout=1", "+adflag", "example", "SOA")
        return "status: NOERROR" in (said := self.run(*self._prefix, *ask, failure_ok=True)) and " ad;" in said


CONF = """
server:
    interface: {address}
    port: {port}
    username: ""
    chroot: ""
    directory: "{folder}"
    pidfile: ""
    use-syslog: no
    num-threads: 1
    do-not-query-localhost: no
    trust-anchor-file: "{anchor}"
    unblock-lan-zones: yes
    module-config: "{modules}"
    msg-cache-size: 4m
    rrset-cache-size: 8m
    {more}
forward-zone:
    name: "."
    forward-addr: {forward}
remote-control:
    control-enable: no
"""
