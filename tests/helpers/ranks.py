"""Real ranks for the tests, one process each: on gloo, or with `device="cuda"` on NCCL.

On a CPU a fork server imports torch, transformers and DeepSpeed once. A rank is a fork of it, which
starts in some hundredths of a second instead of five seconds. A rank on a GPU is a new process: one
that asked for a device must not be forked, and DeepSpeed asks at its import.

The environment of every rank is made here; the one of the tests' own process stays as it is.
"""

import multiprocessing
import os
import socket
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing import forkserver
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
# more threads than cores make gloo ranks wait for one another
ON_CPU = {"DS_ACCELERATOR": "cpu", "CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"}
NOT_ON_GPU = ("DS_ACCELERATOR", "OMP_NUM_THREADS")
START_METHODS = {"cpu": "forkserver", "cuda": "spawn"}


def environment(device: str) -> dict[str, str]:
    """The environment of a process that computes on `device`, `cpu` or `cuda`.

    On a CPU no GPU is visible, also where the machine has some.
    """
    if device == "cpu":
        return {**os.environ, **ON_CPU}
    return {name: value for name, value in os.environ.items() if name not in NOT_ON_GPU}


@contextmanager
def _child_environment(device: str) -> Iterator[None]:
    """Processes that start while this is open get `environment(device)`."""
    original, changed = dict(os.environ), environment(device)
    _replace_environment(changed)
    try:
        yield
    finally:
        _replace_environment(original)


def _replace_environment(variables: dict[str, str]) -> None:
    for name in os.environ.keys() - variables.keys():
        del os.environ[name]
    os.environ.update(variables)


def run(
    world: int,
    work: Callable[..., Any],
    *args: Any,
    timeout_s: float = TIMEOUT_S,
    joined: bool = True,
    device: str = "cpu",
) -> list[Any]:
    """Results of `work(*args)` by rank, run in `world` ranks of one process group.

    Without `joined` the ranks have joined no group yet, and `work` does.

    `work` is a function of a module (not a closure). Arguments and results must be picklable
    (tensors as numpy arrays). No rank outlives the call.

    Raises: AssertionError with a rank's traceback when one fails or takes too long.
    """
    with _started(world, device, work, args, joined) as (_, pipes):
        return _collect(pipes, timeout_s)


def run_to_exit(
    world: int,
    work: Callable[..., Any],
    *args: Any,
    timeout_s: float = TIMEOUT_S,
    device: str = "cpu",
) -> tuple[list[Any], float]:
    """Exit codes of ranks that must end by themselves, and seconds from the first end to the last.

    The exit code of a rank that still runs after `timeout_s` is None.
    """
    with _started(world, device, work, args) as (ranks, _):
        wait([rank.sentinel for rank in ranks], timeout_s)
        first = time.monotonic()
        for rank in ranks:
            rank.join(max(0.0, first + timeout_s - time.monotonic()))
        return [rank.exitcode for rank in ranks], time.monotonic() - first


@contextmanager
def _started(
    world: int, device: str, work: Callable[..., Any], args: Any, joined: bool = True
) -> Iterator[tuple[list[Any], list[Connection]]]:
    context: Any = multiprocessing.get_context(START_METHODS[device])
    port = free_port()
    pipes = [context.Pipe(duplex=False) for _ in range(world)]
    ranks = [
        context.Process(
            target=_rank,
            args=(rank, world, port, device, pipe, sys.path, work, args, joined),
            daemon=True,
        )
        for rank, (_, pipe) in enumerate(pipes)
    ]
    try:
        with _child_environment(device):
            if device == "cpu":
                context.set_forkserver_preload(PRELOAD)
                forkserver.ensure_running()  # its forks have its environment, not this process's
            for rank in ranks:
                rank.start()
        for _, sender in pipes:
            sender.close()
        yield ranks, [receiver for receiver, _ in pipes]
    finally:
        for rank in ranks:
            if rank.pid is not None:
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
    device: str,
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
    if device == "cpu":
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
