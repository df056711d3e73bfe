"""The ranks' collectives, in the training's own groups and payloads: right values, and their rates.

W ranks
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.distributed as dist

from ropewalk.conf.hardware_file import Hardware
from ropewalk.launch.check.line import Line
from ropewalk.launch.check.rates import LEAST_OF_FILE
from ropewalk.launch.check.speed import timed
from ropewalk.launch.check.together import Ranks
from ropewalk.train.cost.traffic import Collective
from ropewalk.train.zero.mesh import Mesh, device, process_groups

LARGEST = {"cpu": 4 << 20, "cuda": 512 << 20}
"""Bytes of a payload: a larger one is measured at this size, at which rates are level."""
LEAST_JUDGED = 16 << 20
"""Bytes of a payload. The time of a smaller one is that of its start."""
ROUNDS = 3


def collective_lines(
    planned: Sequence[Collective], mesh: Mesh, ranks: Ranks, hardware: Hardware | None
) -> list[Line]:
    """Collective. `planned`: of one step of the whole model; each kind and payload once."""
    distinct = {(x.kind, x.bytes, x.ranks): x for x in planned if x.ranks > 1}
    if not distinct:
        return [Line.skipped("collectives", "a single rank exchanges nothing")]
    return [_collective_line(x, mesh, ranks, hardware) for x in distinct.values()]


def _collective_line(
    planned: Collective, mesh: Mesh, ranks: Ranks, hardware: Hardware | None
) -> Line:
    """One collective: whether its result is right, and its rate as a rank sends it."""
    group, kind = _group(planned, mesh), device().type
    size = min(planned.bytes, LARGEST[kind])
    count = max(planned.ranks, size // 4 // planned.ranks * planned.ranks)
    run, expected = _KINDS[planned.kind](count, group)
    results = []
    seconds = min(timed(lambda: results.append(run())) for _ in range(ROUNDS))
    wrong = ranks.first("" if _is(results[-1], expected) else f"rank {ranks.rank} got other values")
    slowest = max(ranks.gather(seconds))
    measured = Collective(planned.kind, planned.tensor, 1, count * 4, planned.ranks)
    value = f"{dist.get_backend()}, {measured.bytes / 2**20:,.1f} MiB"
    if size < planned.bytes:
        value += f" of {planned.bytes / 2**20:,.1f}"
    return judged(measured, measured.bytes_sent / slowest / 1e9, wrong, hardware, value)


def judged(
    measured: Collective, rate: float, wrong: str, hardware: Hardware | None, what: str
) -> Line:
    """`rate`: GB/s that the slowest rank sends. `wrong`: whose values are."""
    bar, of_file = "the right values", rate_of_file(measured, hardware)
    value = wrong or f"{rate:.2f} GB/s sent a rank, {what} over {measured.ranks} ranks"
    if of_file is not None:
        bar += f" at {LEAST_OF_FILE:.0%} of the hardware file's rate at least"
        value += f", {rate / of_file:.0%} of the hardware file's {of_file:,.0f}"
    return Line.judged(
        f"{measured.kind} of {measured.tensor}",
        not wrong and rate >= LEAST_OF_FILE * (of_file or 0.0),
        value,
        bar,
        "see the line transport; NCCL_DEBUG=INFO shows what was chosen, NCCL_SOCKET_IFNAME and "
        "NCCL_IB_HCA choose",
    )


def rate_of_file(measured: Collective, hardware: Hardware | None) -> float | None:
    """GB/s at this payload, over the network where the group is larger than a node."""
    if hardware is None or measured.bytes < LEAST_JUDGED:
        return None
    outside = measured.ranks > hardware.gpus_per_node
    return (hardware.network if outside else hardware.link).rate_gb_s(measured.bytes)


def _group(planned: Collective, mesh: Mesh) -> Any:
    """The ranks of a sequence for the exchange of heads, else all."""
    if planned.kind == "all_to_all":
        return process_groups(mesh).get_sequence_parallel_group()
    return dist.group.WORLD


def _is(result: torch.Tensor, expected: torch.Tensor) -> bool:
    return bool(torch.equal(result, expected))


Runner = tuple[Callable[[], torch.Tensor], torch.Tensor]
"""The collective and its result."""


def _values(count: int, group: Any) -> torch.Tensor:
    return torch.full((count,), float(dist.get_rank(group) + 1), device=device())


def _total(group: Any) -> float:
    size = dist.get_world_size(group)
    return size * (size + 1) / 2


def _all_reduce(count: int, group: Any) -> Runner:
    def run() -> torch.Tensor:
        values = _values(count, group)
        dist.all_reduce(values, group=group)
        return values

    return run, torch.full((count,), _total(group), device=device())


def _reduce_scatter(count: int, group: Any) -> Runner:
    part = torch.empty(count // dist.get_world_size(group), device=device())
    values = _values(count, group)

    def run() -> torch.Tensor:
        dist.reduce_scatter_tensor(part, values, group=group)
        return part

    return run, torch.full_like(part, _total(group))


def _all_gather(count: int, group: Any) -> Runner:
    size = dist.get_world_size(group)
    values, whole = _values(count // size, group), torch.empty(count, device=device())

    def run() -> torch.Tensor:
        dist.all_gather_into_tensor(whole, values, group=group)
        return whole

    return run, _ranks_in_turn(count, size)


def _all_to_all(count: int, group: Any) -> Runner:
    values, received = _values(count, group), torch.empty(count, device=device())

    def run() -> torch.Tensor:
        dist.all_to_all_single(received, values, group=group)
        return received

    return run, _ranks_in_turn(count, dist.get_world_size(group))


def _ranks_in_turn(count: int, size: int) -> torch.Tensor:
    numbers = torch.arange(1, size + 1, dtype=torch.float32, device=device())
    return numbers.repeat_interleave(count // size)


_KINDS: dict[str, Callable[[int, Any], Runner]] = {
    "all_reduce": _all_reduce,
    "reduce_scatter": _reduce_scatter,
    "all_gather": _all_gather,
    "all_to_all": _all_to_all,
}
