"""How fast each rank multiplies, and the ranks' collectives in the training's groups and payloads.

W ranks
"""

import statistics
import time
from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.distributed as dist

from ropewalk.launch.check.line import Line
from ropewalk.launch.check.together import Ranks
from ropewalk.train.cost.traffic import Collective
from ropewalk.train.zero.mesh import Mesh, device, process_groups

SIZE = {"cpu": 256, "cuda": 8192}
TRIES = {"cpu": 40, "cuda": 20}
SLOWEST_SHARE = {"cpu": 0.5, "cuda": 0.93}
"""Of the median rank's rate. GPUs of one model are within some percent of one another; CPU ranks
share cores with other work."""
LARGEST = {"cpu": 4 << 20, "cuda": 512 << 20}
"""Bytes of a payload: a larger one is measured at this size, at which rates are level."""
ROUNDS = 3


def multiply(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    return a @ b


def matmul_line(ranks: Ranks) -> Line:
    """Collective. All ranks at once, as in a step; each rank's best of some tries."""
    kind, where = device().type, device()
    dtype = torch.bfloat16 if kind == "cuda" else torch.float32
    a, b = (torch.ones(SIZE[kind], SIZE[kind], dtype=dtype, device=where) for _ in range(2))
    ranks.barrier()
    seconds = min(_timed(lambda: multiply(a, b)) for _ in range(TRIES[kind]))
    rates = ranks.gather(2 * SIZE[kind] ** 3 / seconds)
    median, least = statistics.median_high(rates), SLOWEST_SHARE[kind]
    slow = [(n, rate / median) for n, rate in enumerate(rates) if rate < least * median]
    unit, scale = ("TFLOP/s", 1e12) if kind == "cuda" else ("GFLOP/s", 1e9)
    told = "".join(f"; rank {n} has {share:.0%} of the median" for n, share in slow)
    return Line.judged(
        "matrix product",
        not slow,
        f"{median / scale:.1f} {unit} a rank, {min(rates) / scale:.1f} to "
        f"{max(rates) / scale:.1f}{told}",
        f"every rank at least {least:.0%} of the median",
        "all ranks wait for the slowest: look for heat, a power limit or other processes there, or "
        "leave it out",
    )


def _timed(work: Callable[[], Any]) -> float:
    """Seconds until the device is done."""
    _wait()
    started = time.perf_counter()
    work()
    _wait()
    return time.perf_counter() - started


def _wait() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def collective_lines(planned: Sequence[Collective], mesh: Mesh, ranks: Ranks) -> list[Line]:
    """Collective. `planned`: of one step of the whole model; each kind and payload once."""
    distinct = {(x.kind, x.bytes, x.ranks): x for x in planned if x.ranks > 1}
    if not distinct:
        return [Line.skipped("collectives", "a single rank exchanges nothing")]
    return [_collective_line(x, mesh, ranks) for x in distinct.values()]


def _collective_line(planned: Collective, mesh: Mesh, ranks: Ranks) -> Line:
    """One collective: its rate as a rank sends it, and whether its result is right."""
    group, kind = _group(planned, mesh), device().type
    size = min(planned.bytes, LARGEST[kind])
    count = max(planned.ranks, size // 4 // planned.ranks * planned.ranks)
    run, expected = _KINDS[planned.kind](count, group)
    results = []
    seconds = min(_timed(lambda: results.append(run())) for _ in range(ROUNDS))
    wrong = ranks.first("" if _is(results[-1], expected) else f"rank {ranks.rank} got other values")
    slowest = max(ranks.gather(seconds))
    sent = Collective(planned.kind, planned.tensor, 1, count * 4, planned.ranks).bytes_sent
    smaller = f" of {planned.bytes / 2**20:,.1f}" if size < planned.bytes else ""
    return Line.judged(
        f"{planned.kind} of {planned.tensor}",
        not wrong,
        wrong
        or f"{sent / slowest / 1e9:.2f} GB/s sent a rank, {count * 4 / 2**20:,.1f}{smaller} MiB "
        f"over {planned.ranks} ranks of the {dist.get_backend()} group",
        "the right values",
        "NCCL_DEBUG=INFO shows the interface that was chosen; set NCCL_SOCKET_IFNAME",
    )


def _group(planned: Collective, mesh: Mesh) -> Any:
    """The ranks of a sequence for the exchange of heads, else all."""
    if planned.kind == "all_to_all":
        return process_groups(mesh).get_sequence_parallel_group()
    return dist.group.WORLD


def _is(result: torch.Tensor, expected: torch.Tensor) -> bool:
    return bool(torch.equal(result, expected))


Made = tuple[Callable[[], torch.Tensor], torch.Tensor]
"""The collective and its result."""


def _values(count: int, group: Any) -> torch.Tensor:
    return torch.full((count,), float(dist.get_rank(group) + 1), device=device())


def _total(group: Any) -> float:
    size = dist.get_world_size(group)
    return size * (size + 1) / 2


def _all_reduce(count: int, group: Any) -> Made:
    def run() -> torch.Tensor:
        values = _values(count, group)
        dist.all_reduce(values, group=group)
        return values

    return run, torch.full((count,), _total(group), device=device())


def _reduce_scatter(count: int, group: Any) -> Made:
    part = torch.empty(count // dist.get_world_size(group), device=device())
    values = _values(count, group)

    def run() -> torch.Tensor:
        dist.reduce_scatter_tensor(part, values, group=group)
        return part

    return run, torch.full_like(part, _total(group))


def _all_gather(count: int, group: Any) -> Made:
    size = dist.get_world_size(group)
    values, whole = _values(count // size, group), torch.empty(count, device=device())

    def run() -> torch.Tensor:
        dist.all_gather_into_tensor(whole, values, group=group)
        return whole

    return run, _ranks_in_turn(count, size)


def _all_to_all(count: int, group: Any) -> Made:
    values, received = _values(count, group), torch.empty(count, device=device())

    def run() -> torch.Tensor:
        dist.all_to_all_single(received, values, group=group)
        return received

    return run, _ranks_in_turn(count, dist.get_world_size(group))


def _ranks_in_turn(count: int, size: int) -> torch.Tensor:
    numbers = torch.arange(1, size + 1, dtype=torch.float32, device=device())
    return numbers.repeat_interleave(count // size)


_KINDS: dict[str, Callable[[int, Any], Made]] = {
    "all_reduce": _all_reduce,
    "reduce_scatter": _reduce_scatter,
    "all_gather": _all_gather,
    "all_to_all": _all_to_all,
}
