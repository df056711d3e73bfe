"""Real ranks on gloo for the tests: separate processes that find torch, transformers and DeepSpeed loaded already.

A fork server imports them once; a rank is then a fork of it, started in some hundredths of a second instead of five seconds.
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

from ropewalk.train.zero.mesh import start_distributed

PRELOAD = [
    "torch",
    "deepspeed",
    "transformers",
    "transformers.models.llama.modeling_llama",
    "ropewalk.train.worker",
]
# what deepspeed.initialize imports: it compiles a function, for which torch loads inductor, some seconds in each rank
PRELOAD += ["deepspeed.runtime.zero.muon.muon_optimizer"]
TIMEOUT_S = 300.0
os.environ.setdefault("DS_ACCELERATOR", "cpu")
os.environ["OMP_NUM_THREADS"] = "1"  # more threads than cores make gloo ranks wait for one another


def run(
    world: int, work: Callable[..., Any], *given: Any, timeout_s: float = TIMEOUT_S
) -> list[Any]:
    """`work(*given)` in each of `world` ranks with the process group of `train.engine` open; what each returned, by rank.

    `work` is a function of a module (not a closure), and what it is given and returns can be pickled (tensors as numpy arrays).
    Raises: AssertionError with the ranks' tracebacks when one fails or takes too long; none is left behind.
    """
    with _started(world, work, given) as (_, pipes):
        return _collect(pipes, timeout_s)


def left_alone(
    world: int, work: Callable[..., Any], *given: Any, timeout_s: float = TIMEOUT_S
) -> tuple[list[Any], float]:
    """Exit codes of ranks that nobody ends (None: still there after `timeout_s`), and the seconds from the first end to the last."""
    with _started(world, work, given) as (ranks, _):
        wait([rank.sentinel for rank in ranks], timeout_s)
        first = time.monotonic()
        for rank in ranks:
            rank.join(max(0.0, first + timeout_s - time.monotonic()))
        return [rank.exitcode for rank in ranks], time.monotonic() - first


@contextmanager
def _started(
    world: int, work: Callable[..., Any], given: Any
) -> Iterator[tuple[list[Any], list[Connection]]]:
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(PRELOAD)
    port = free_port()
    pipes = [context.Pipe(duplex=False) for _ in range(world)]
    ranks = [
        context.Process(
            target=_rank, args=(rank, world, port, pipe, sys.path, work, given), daemon=True
        )
        for rank, (_, pipe) in enumerate(pipes)
    ]
    try:
        for rank in ranks:
            rank.start()
        for _, theirs in pipes:
            theirs.close()
        yield ranks, [ours for ours, _ in pipes]
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
        waiting = [pipe for n, pipe in enumerate(pipes) if n not in result]
        ready = wait(waiting, timeout_s)
        assert ready, (
            f"ranks {[n for n in range(len(pipes)) if n not in result]} said nothing for {timeout_s:.0f} s"
        )
        for pipe in ready:
            number = pipes.index(pipe)  # type: ignore[arg-type]
            try:
                good, message = pipe.recv()  # type: ignore[union-attr]
            except EOFError:
                good, message = False, "it died without a word"
            assert good, f"rank {number}: {message}"
            result[number] = message
    return [result[n] for n in range(len(pipes))]


def _rank(
    rank: int, world: int, port: int, pipe: Connection, path: list[str], work: Any, given: Any
) -> None:
    sys.path[:] = path
    here = {
        "RANK": rank,
        "LOCAL_RANK": rank,
        "WORLD_SIZE": world,
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": port,
    }
    os.environ.update({name: str(value) for name, value in here.items()})
    import torch
    import torch.distributed as dist

    torch.set_num_threads(1)
    try:
        start_distributed()
        pipe.send((True, work(*given)))
        dist.barrier()
        dist.destroy_process_group()
    except BaseException:
        pipe.send((False, traceback.format_exc()))
        raise
