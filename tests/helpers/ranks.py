"""Real ranks on gloo for the tests: one process each.

A fork server imports torch, transformers and DeepSpeed once. A rank is a fork of it, which starts
in some hundredths of a second instead of five seconds.
"""

import multiprocessing
import os
import socket
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection, wait
from typing import Any

import torch.distributed as dist

from ropewalk.train.zero.mesh import start_distributed

PRELOAD = [
    "torch",
    "deepspeed",
    "transformers",
    "transformers.models.llama.modeling_llama",
    "ropewalk.train.worker",
]
# deepspeed.initialize imports it; it loads torch inductor, which takes some seconds in each rank
PRELOAD += ["deepspeed.runtime.zero.muon.muon_optimizer"]
TIMEOUT_S = 300.0
store: dist.Store | None = None
"""In a rank: that of all ranks."""
os.environ.setdefault("DS_ACCELERATOR", "cpu")
os.environ["OMP_NUM_THREADS"] = "1"  # more threads than cores make gloo ranks wait for one another


def run(
    world: int,
    work: Callable[..., Any],
    *args: Any,
    timeout_s: float = TIMEOUT_S,
    joined: bool = True,
) -> list[Any]:
    """Results of `work(*args)` by rank, run in `world` ranks of one process group.

    Without `joined` the ranks have joined no group yet, and `work` does.

    `work` is a function of a module (not a closure). Arguments and results must be picklable
    (tensors as numpy arrays). No rank outlives the call.

    Raises: AssertionError with a rank's traceback when one fails or takes too long.
    """
    with _started(world, work, args, joined) as (_, pipes):
        return _collect(pipes, timeout_s)


def run_to_exit(
    world: int, work: Callable[..., Any], *args: Any, timeout_s: float = TIMEOUT_S
) -> tuple[list[Any], float]:
    """Exit codes of ranks that must end by themselves, and seconds from the first end to the last.

    The exit code of a rank that still runs after `timeout_s` is None.
    """
    with _started(world, work, args) as (ranks, _):
        wait([rank.sentinel for rank in ranks], timeout_s)
        first = time.monotonic()
        for rank in ranks:
            rank.join(max(0.0, first + timeout_s - time.monotonic()))
        return [rank.exitcode for rank in ranks], time.monotonic() - first


@contextmanager
def _started(
    world: int, work: Callable[..., Any], args: Any, joined: bool = True
) -> Iterator[tuple[list[Any], list[Connection]]]:
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(PRELOAD)
    port = free_port()
    pipes = [context.Pipe(duplex=False) for _ in range(world)]
    ranks = [
        context.Process(
            target=_rank, args=(rank, world, port, pipe, sys.path, work, args, joined), daemon=True
        )
        for rank, (_, pipe) in enumerate(pipes)
    ]
    try:
        for rank in ranks:
            rank.start()
        for _, sender in pipes:
            sender.close()
        yield ranks, [receiver for receiver, _ in pipes]
    finally:
        for rank in ranks:
            rank.kill()
            rank.join()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _collect(pipes: list[Connection], timeout_s: float) -> list[Any]:
    result: dict[int, Any] = {}
    while len(result) < len(pipes):
        waiting = {pipe: rank for rank, pipe in enumerate(pipes) if rank not in result}
        ready = wait(list(waiting), timeout_s)
        assert ready, f"ranks {[*waiting.values()]} sent nothing for {timeout_s:.0f} s"
        for pipe, number in waiting.items():
            if pipe not in ready:
                continue
            try:
                good, message = pipe.recv()
            except EOFError:
                good, message = False, "it died without a traceback"
            assert good, f"rank {number}: {message}"
            result[number] = message
    return [result[n] for n in range(len(pipes))]


def _rank(
    rank: int,
    world: int,
    port: int,
    pipe: Connection,
    path: list[str],
    work: Any,
    args: Any,
    joined: bool,
) -> None:
    sys.path[:] = path
    variables = {
        "RANK": rank,
        "LOCAL_RANK": rank,
        "WORLD_SIZE": world,
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": port,
    }
    os.environ.update({name: str(value) for name, value in variables.items()})
    import torch

    global store
    torch.set_num_threads(1)
    try:
        if joined:
            store = start_distributed()
        pipe.send((True, work(*args)))
        if joined:
            dist.barrier()
            dist.destroy_process_group()
    except BaseException:
        pipe.send((False, traceback.format_exc()))
        raise
