"""Over which interface each rank reaches the first host, and whether that joins the hosts.

NCCL and gloo choose an interface by themselves, and may take one that leads nowhere (docker0, a
bridge): NVIDIA/nccl 1580, horovod 700. The variables that name one are read as NCCL reads them.
"""

import os
import socket
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import psutil

from ropewalk.launch.check.line import Line

VARIABLES = ("NCCL_SOCKET_IFNAME", "GLOO_SOCKET_IFNAME")
NOT_BETWEEN_HOSTS = ("lo", "docker", "veth", "virbr", "br-", "cni", "cali", "flannel")
"""Beginnings of the names of interfaces that stay inside a host."""
WAY_OUT = (
    "set NCCL_SOCKET_IFNAME (NCCL) and GLOO_SOCKET_IFNAME (gloo) to the interface that joins the "
    "hosts, such as eth0 or ^docker0,lo; ip route get ADDRESS names it"
)


@dataclass(frozen=True)
class Route:
    """Of one rank."""

    host: str
    rank: int
    interface: str
    """From here to the first host; empty where there is no way."""
    interfaces: list[str]
    """That are up."""
    named: dict[str, str]
    """The variables that name one."""


def route_of(rank: int, environment: Mapping[str, str] = os.environ) -> Route:
    """This rank's way to MASTER_ADDR. Nothing is sent."""
    up = [name for name, state in psutil.net_if_stats().items() if state.isup]
    named = {name: environment[name] for name in VARIABLES if environment.get(name)}
    return Route(
        socket.gethostname(), rank, _interface_to(environment["MASTER_ADDR"]), sorted(up), named
    )


def _interface_to(address: str) -> str:
    """The name of the interface whose address the system would send from."""
    try:
        family, *_, target = socket.getaddrinfo(address, 9, type=socket.SOCK_DGRAM)[0]
        with socket.socket(family, socket.SOCK_DGRAM) as probe:
            probe.connect(target)  # a datagram socket: chooses the way only
            own = probe.getsockname()[0]
    except OSError:
        return ""
    addresses = psutil.net_if_addrs().items()
    return next((name for name, all_of in addresses if own in [x.address for x in all_of]), "")


def network_line(routes: Sequence[Route]) -> Line:
    """Whether every rank leaves its host, and what the variables name is there."""
    problems = [problem for route in routes if (problem := _problem(route, routes[0].host))]
    if not problems and len({route.host for route in routes}) == 1:
        return Line.skipped("network", "all ranks are on one host")
    ways = sorted({route.interface for route in routes if route.host != routes[0].host})
    return Line.judged(
        "network",
        not problems,
        "; ".join(problems[:4]) or f"to the first host by {', '.join(ways)}",
        "an interface that joins the hosts",
        WAY_OUT,
    )


def _problem(route: Route, first_host: str) -> str:
    where = f"rank {route.rank} on {route.host}"
    for name, value in route.named.items():
        if not _matches(value, route.interfaces):
            return f"{where}: {name} is {value}, and what is up is {', '.join(route.interfaces)}"
    if route.host == first_host:
        return ""
    if not route.interface:
        return f"{where} has no way to the first host"
    if route.interface.startswith(NOT_BETWEEN_HOSTS):
        return f"{where} reaches the first host by {route.interface}, which stays inside a host"
    return ""


def _matches(value: str, interfaces: Sequence[str]) -> bool:
    """NCCL's grammar: beginnings of names, `=` for full names, `^` for all but these."""
    names = value.lstrip("^=").split(",")
    exact = value.lstrip("^").startswith("=")
    listed = [
        x for x in interfaces if any(x == n if exact else x.startswith(n) for n in names if n)
    ]
    return len(listed) < len(interfaces) if value.startswith("^") else bool(listed)
