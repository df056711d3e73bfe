"""How the ranks meet: within minutes, or with a line that names those that did not come."""

import os
import socket
from datetime import timedelta

import torch.distributed as dist

from ropewalk.conf.errors import RopewalkError

KEY = "train.launcher.start_timeout_s"


def rank_and_world_size() -> tuple[int, int]:
    """As the launcher set them."""
    return int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])


def join(timeout_s: float) -> dist.Store:
    """The store of all ranks, once every rank is there; each says its host.

    Later waits for it have the same timeout. Raises: RopewalkError when rank 0's store, or a rank,
    is not there in time.
    """
    rank, world_size = rank_and_world_size()
    address, port = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
    timeout = timedelta(seconds=timeout_s)
    try:
        store = dist.TCPStore(
            address, port, world_size, rank == 0, timeout=timeout, wait_for_workers=False
        )
    except dist.DistError as error:
        raise RopewalkError(_no_store(rank, f"{address}:{port}", timeout_s, error)) from error
    store.set(_host_key(rank), socket.gethostname())
    try:
        store.wait([_host_key(n) for n in range(world_size)], timeout)
    except dist.DistStoreError as error:
        raise RopewalkError(_missing(store, world_size, timeout_s)) from error
    return store


def host_of(store: dist.Store, rank: int) -> str:
    return store.get(_host_key(rank)).decode()


def hosts(store: dist.Store | None, rank: int, world_size: int) -> dict[int, str]:
    """By rank: for rank 0 of all, for another rank its own and rank 0's."""
    if store is None:
        return {rank: socket.gethostname()}
    ranks = range(world_size) if rank == 0 else sorted({0, rank})
    values = store.multi_get([_host_key(n) for n in ranks])
    return {n: value.decode() for n, value in zip(ranks, values, strict=True)}


def _host_key(rank: int) -> str:
    return f"host/{rank}"


def _no_store(rank: int, address: str, timeout_s: float, error: Exception) -> str:
    reason = str(error).partition("\n")[0]
    if rank == 0:
        return (
            f"rank 0 cannot open its store at {address} ({reason}); the port must be free on the "
            "first host; run again, or set train.launcher.master_port"
        )
    return (
        f"{KEY} is {timeout_s:g}; rank 0's store at {address} did not answer in that time "
        f"({reason}); the first host must run, and be reached from every other by this address"
    )


def _missing(store: dist.Store, world_size: int, timeout_s: float) -> str:
    """Which ranks are not there, and the hosts of those that are."""
    present = {n: host_of(store, n) for n in range(world_size) if store.check([_host_key(n)])}
    missing = [n for n in range(world_size) if n not in present]
    hosts = sorted({*present.values()})
    return (
        f"{KEY} is {timeout_s:g}; {len(missing)} of {world_size} ranks did not come in that time: "
        f"{_ranges(missing)}; there are ranks from {', '.join(hosts[:8])}"
        f"{' and more' if len(hosts) > 8 else ''}; look at the other hosts' messages, or raise it"
    )


def _ranges(numbers: list[int]) -> str:
    """`0, 4-7`"""
    runs: list[list[int]] = []
    for n in numbers:
        if runs and runs[-1][-1] == n - 1:
            runs[-1] = [runs[-1][0], n]
        else:
            runs.append([n, n])
    return ", ".join(f"{a}" if a == b else f"{a}-{b}" for a, b in runs)
