"""The interfaces of this rank, and a connection to the next host over the one that will be used.

Exchanged over the store of the ranks, before there is a process group: with a wrong interface there
would be none.
"""

import ipaddress
import json
import os
import socket
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, replace
from typing import Any

import psutil
import torch
import torch.distributed as dist

from ropewalk.launch.check.line import Line
from ropewalk.launch.check.network import VARIABLES, Route, neighbour, network_line

TIMEOUT_S = 5.0


def route_of(rank: int, environment: Mapping[str, str] = os.environ) -> Route:
    """This rank's way to MASTER_ADDR, and its interfaces. Nothing is sent."""
    backend = "nccl" if torch.cuda.is_available() else "gloo"
    up = [name for name, state in psutil.net_if_stats().items() if state.isup]
    return Route(
        socket.gethostname(),
        rank,
        _interface_to(environment["MASTER_ADDR"]),
        {name: _address(name) for name in sorted(up)},
        environment.get(VARIABLES[backend], ""),
        backend,
        _resolved(socket.gethostname()),
    )


def _resolved(host: str) -> str:
    try:
        return str(socket.getaddrinfo(host, None)[0][4][0])
    except OSError:
        return "127.0.0.1"  # as gloo takes for a host that does not know its own name


def _address(interface: str) -> str:
    families = (socket.AF_INET, socket.AF_INET6)
    known = psutil.net_if_addrs().get(interface, [])
    addresses = [x.address for family in families for x in known if x.family == family]
    return addresses[0].partition("%")[0] if addresses else ""


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


def check_network(store: dist.Store, rank: int, world_size: int) -> Line:
    """Collective. The same line on every rank."""
    route = route_of(rank)
    with _listening(route.address(), rank) as port:
        route = replace(route, listens_at=(route.address(), port))
        values = _exchange(store, "route", rank, world_size, asdict(route))
        routes = [Route(**{**x, "listens_at": tuple(x["listens_at"])}) for x in values]
        if len({x.host for x in routes}) == 1:
            return network_line(routes)
        errors = _exchange(store, "reach", rank, world_size, reach(routes, rank))
    store.set(f"check/read/{rank}", "")
    if rank == 0:  # whose process is the store, and may end after this
        store.wait([f"check/read/{n}" for n in range(world_size)])
    return network_line(routes, {n: error for n, error in enumerate(errors) if error})


def reach(routes: Sequence[Route], rank: int) -> str:
    """Why this rank does not reach its neighbour from its own address; empty where it does."""
    target, own = neighbour(routes, rank), routes[rank].address()
    if not own or not target.listens_at[1]:
        return "one of them has no address"
    try:
        with socket.create_connection(target.listens_at, TIMEOUT_S, (own, 0)) as connection:
            answer = connection.recv(16).decode()
    except OSError as error:
        return error.strerror or str(error)
    return "" if answer == str(target.rank) else f"another process answers at {target.address()}"


@contextmanager
def _listening(address: str, rank: int) -> Iterator[int]:
    """The port at which this rank says its number to whoever connects; 0 without an address."""
    try:
        is_ipv6 = ipaddress.ip_address(address).version == 6
        family = socket.AF_INET6 if is_ipv6 else socket.AF_INET
        server = socket.create_server((address, 0), family=family, backlog=1024)
    except (OSError, ValueError):
        yield 0
        return
    thread = threading.Thread(target=_answer, args=(server, str(rank).encode()), daemon=True)
    thread.start()
    try:
        yield server.getsockname()[1]
    finally:
        server.shutdown(socket.SHUT_RDWR)  # wakes the thread, which close() would not
        thread.join()
        server.close()


def _answer(server: socket.socket, message: bytes) -> None:
    while True:
        try:
            connection, _ = server.accept()
        except OSError:  # shut down
            return
        with connection:
            connection.sendall(message)


def _exchange(store: dist.Store, what: str, rank: int, world_size: int, own: Any) -> list[Any]:
    """Collective. The value of each rank, in order."""
    store.set(f"check/{what}/{rank}", json.dumps(own))
    keys = [f"check/{what}/{n}" for n in range(world_size)]
    store.wait(keys)
    return [json.loads(value) for value in store.multi_get(keys)]
