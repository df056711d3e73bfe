"""Which interface the process group of each rank will use, and whether that joins the hosts.

NCCL and gloo choose an interface by themselves, and may take one that leads nowhere (docker0, a
bridge, a name that means 127.0.1.1): NVIDIA/nccl 1580, horovod 700. Known before any of them
starts, and then tried by one connection between hosts.
"""

import ipaddress
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from ropewalk.launch.check.line import Line

VARIABLES = {"nccl": "NCCL_SOCKET_IFNAME", "gloo": "GLOO_SOCKET_IFNAME"}
NOT_BETWEEN_HOSTS = ("lo", "docker", "veth", "virbr", "br-", "cni", "cali", "flannel")
"""Beginnings of the names of interfaces that stay inside a host."""
NCCL_ORDER = ("ib", "^docker,lo,virbr", "docker", "lo", "virbr")
"""What NCCL takes where nothing is named: the first of these that some interface matches."""
NAME = "network"
WAY_OUT = (
    "set NCCL_SOCKET_IFNAME (NCCL) or GLOO_SOCKET_IFNAME (gloo) to the interface that joins the "
    "hosts, such as eth0 or ^docker0,lo; ip route get ADDRESS names it"
)


@dataclass(frozen=True)
class Route:
    """Of one rank."""

    host: str
    rank: int
    interface: str
    """From here to the first host; empty where there is no way."""
    addresses: dict[str, str]
    """Of each interface that is up: its first address of IPv4, else of IPv6, or empty."""
    named: str = ""
    """The value of the variable that names one."""
    backend: str = "gloo"
    own_address: str = ""
    """To which this host's name leads, which gloo takes where no interface is named."""
    listens_at: tuple[str, int] = field(default=("", 0))
    """Where others can try to reach this rank: an address and a port."""

    @property
    def interfaces(self) -> list[str]:
        return sorted(self.addresses)

    def chosen(self) -> list[str]:
        """The interfaces that the process group will take, in order."""
        if self.backend == "nccl":
            patterns = (self.named,) if self.named else NCCL_ORDER
            matched = (_matched(pattern, self.interfaces) for pattern in patterns)
            return next(filter(None, matched), [])
        if self.named:
            return [name for name in self.named.split(",") if name in self.addresses]
        return [name for name in self.interfaces if self.addresses[name] == self.own_address]

    def address(self) -> str:
        """That the process group will use; empty where it has none."""
        addresses = (self.addresses[name] for name in self.chosen())
        return next(filter(None, addresses), "" if self.named else self.own_address)

    def __str__(self) -> str:
        return f"rank {self.rank} on {self.host}"


def _matched(value: str, interfaces: Sequence[str]) -> list[str]:
    """NCCL's grammar: beginnings of names, `=` for full names, `^` for all but these."""
    names = value.lstrip("^=").split(",")
    is_exact = value.lstrip("^").startswith("=")
    listed = [
        x for x in interfaces if any(x == n if is_exact else x.startswith(n) for n in names if n)
    ]
    return [x for x in interfaces if x not in listed] if value.startswith("^") else listed


def neighbour(routes: Sequence[Route], rank: int) -> Route:
    """Whom a rank tries to reach: the first rank of the next host."""
    hosts = list(dict.fromkeys(route.host for route in routes))
    following = hosts[(hosts.index(routes[rank].host) + 1) % len(hosts)]
    return next(route for route in routes if route.host == following)


def network_line(routes: Sequence[Route], errors: Mapping[int, str] | None = None) -> Line:
    """`errors`: by rank, why it does not reach its `neighbour`; only those that do not."""
    hosts = {route.host for route in routes}
    problems = [problem for x in routes if (problem := _problem(x, routes[0].host, len(hosts)))]
    problems = problems or [
        f"{routes[rank]} does not reach {neighbour(routes, rank)} by {_way(routes[rank])}: {error}"
        for rank, error in (errors or {}).items()
    ]
    if not problems and len(hosts) == 1:
        return Line.skipped(NAME, "all ranks are on one host")
    ways = sorted({_way(route) for route in routes})
    return Line.judged(
        NAME,
        not problems,
        "; ".join(problems[:4]) or f"{routes[0].backend} by {', '.join(ways[:8])}",
        "an interface that joins the hosts",
        WAY_OUT,
    )


def _way(route: Route) -> str:
    name = next((n for n in route.chosen() if route.addresses[n]), route.host)
    return f"{name} ({route.address()})"


def _problem(route: Route, first_host: str, hosts: int) -> str:
    """What is known to be wrong before anything is sent."""
    if route.named and not route.chosen():
        up = ", ".join(route.interfaces)
        return f"{route}: {VARIABLES[route.backend]} is {route.named}, and what is up is {up}"
    if hosts == 1:
        return ""
    if route.host != first_host and not route.interface:
        return f"{route} has no way to the first host"
    if route.host != first_host and route.interface.startswith(NOT_BETWEEN_HOSTS):
        return f"{route} reaches the first host by {route.interface}, which stays inside a host"
    if not route.address() or ipaddress.ip_address(route.address()).is_loopback:
        leads = route.address() or "no address"
        reason = f"{VARIABLES[route.backend]} is {route.named}" if route.named else "no name is set"
        return f"{route}: {reason}, and {route.backend} would take {leads}"
    return ""
