"""Selectors: which packets a policy or an SA speaks of (RFC 4301 s4.4.1.1)."""

from dataclasses import dataclass

from hushwire.wire.address import IPAddress, IPNetwork, host_network

ANY_PROTOCOL = 0
ANY_PORT = 0


@dataclass(frozen=True, slots=True)
class Selector:
    """Packets between `local` and `remote`, seen from this host in both directions."""

    local: IPNetwork
    remote: IPNetwork
    protocol: int = ANY_PROTOCOL
    """IANA protocol number; 0 is any."""
    local_port: int = ANY_PORT
    """0 is any."""
    remote_port: int = ANY_PORT
    """0 is any."""

    @classmethod
    def between(cls, local: IPAddress, remote: IPAddress) -> "Selector":
        """Everything between two hosts."""
        return cls(host_network(local), host_network(remote))

    def matches(self, flow: "Flow") -> bool:
        """Whether a packet of `flow` is one of these."""
        return (
            flow.local in self.local
            and flow.remote in self.remote
            and self.protocol in (ANY_PROTOCOL, flow.protocol)
            and self.local_port in (ANY_PORT, flow.local_port)
            and self.remote_port in (ANY_PORT, flow.remote_port)
        )

    def covers(self, other: "Selector") -> bool:
        """Whether every packet of `other` is one of these."""
        return (
            self.local.version == other.local.version
            and other.local.subnet_of(self.local)  # type: ignore[arg-type]
            and other.remote.subnet_of(self.remote)  # type: ignore[arg-type]
            and self.protocol in (ANY_PROTOCOL, other.protocol)
            and self.local_port in (ANY_PORT, other.local_port)
            and self.remote_port in (ANY_PORT, other.remote_port)
        )

    def __str__(self) -> str:
        def end(network: IPNetwork, port: int) -> str:
            text = str(network.network_address) if network.prefixlen == network.max_prefixlen else str(network)
            return f"{text} port {port}" if port else text

        protocol = f" protocol {self.protocol}" if self.protocol else ""
        return f"{end(self.local, self.local_port)} <-> {end(self.remote, self.remote_port)}{protocol}"


@dataclass(frozen=True, slots=True)
class Flow:
    """The selector fields of one packet, seen from this host."""

    local: IPAddress
    remote: IPAddress
    protocol: int
    """IANA protocol number."""
    local_port: int = 0
    """Source port of what leaves; 0 where the protocol has none or it is not known."""
    remote_port: int = 0

    @property
    def selector(self) -> Selector:
        """What speaks of such packets alone; of all, where protocol or ports are not known."""
        return Selector(
            host_network(self.local), host_network(self.remote), self.protocol, self.local_port, self.remote_port
        )
