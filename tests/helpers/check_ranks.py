"""The checks of `ropewalk check` as a rank runs them, with a fault planted in what trains."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from deepspeed import comm

from ropewalk.data.dataset import IGNORE, BatchLoader, Row
from ropewalk.launch.check import checks, speed, worker
from ropewalk.launch.check.line import Line
from ropewalk.launch.check.rehearsal import Rehearsal
from ropewalk.train.loop import micro_batches
from ropewalk.train.loop.step import use_deterministic_kernels
from ropewalk.train.loss_model import LossModel

Patch = tuple[Any, str, Any]
"""An owner, the name of its attribute, the value meanwhile."""


def lines_of_checks(folder: Path) -> list[Line]:
    """Of all checks, none of them faulty."""
    use_deterministic_kernels()
    rank = checks.Rank(Rehearsal.read(folder))
    return [line for one in checks.CHECKS for line in worker.lines_of(one, rank)]


def lines_with_faults(folder: Path, faults: Sequence[tuple[str, tuple[str, ...]]]) -> Any:
    """By fault: the lines of the checks named beside it, on new trainers."""
    use_deterministic_kernels()
    return {fault: _lines(folder, fault, names) for fault, names in faults}


def _lines(folder: Path, fault: str, names: tuple[str, ...]) -> list[Line]:
    by_name = {one.name: one for one in checks.CHECKS}
    rank = checks.Rank(Rehearsal.read(folder))
    with planted(FAULTS[fault]()):
        lines = [line for name in names for line in worker.lines_of(by_name[name], rank)]
    if "trainer" in vars(rank):
        rank.trainer.engine.destroy()
    return lines


@contextmanager
def planted(patches: Sequence[Patch]) -> Iterator[None]:
    originals = [(owner, name, getattr(owner, name)) for owner, name, _ in patches]
    for owner, name, value in patches:
        setattr(owner, name, value)
    try:
        yield
    finally:
        for owner, name, value in originals:
            setattr(owner, name, value)


def loss_averaged_per_rank() -> list[Patch]:
    """Each slice divides by its own labels, and the means are averaged."""
    original = LossModel.forward

    def forward(self: Any, *args: Any, labels: torch.Tensor, total_labels: int, **rest: Any) -> Any:
        own = max(int((labels != IGNORE).sum()), 1)
        shared = str(self.model.config._attn_implementation).endswith("_wrapped")
        slices = dist.get_world_size() * (2 if shared else 1)
        return original(self, *args, labels=labels, total_labels=own * slices, **rest)

    return [(LossModel, "forward", forward)]


def _with_rows(change: Callable[[Row], Row]) -> list[Patch]:
    original = BatchLoader.read
    return [(BatchLoader, "read", lambda self, refs: change(original(self, refs)))]


def labels_shifted_after_slicing() -> list[Patch]:
    def shift(row: Row) -> Row:
        labels = np.append(row.input_ids[1:], IGNORE)
        return replace(row, labels=np.where(row.labels == IGNORE, IGNORE, labels))

    return _with_rows(shift)


def positions_local() -> list[Patch]:
    """Each slice counts its positions from 0."""
    return _with_rows(lambda row: replace(row, position_ids=np.arange(len(row.input_ids))))


def mask_dropped() -> list[Patch]:
    """The row is one document for the attention."""
    original = micro_batches.document_borders
    whole = lambda borders, target=None: original(borders[[0, -1]], target)  # noqa: E731
    return [(micro_batches, "document_borders", whole)]


def gradient_not_reduced() -> list[Patch]:
    """Every rank keeps its own sum: of large tensors, which are buckets of gradients here, and of
    what ZeRO 3 scatters."""
    original = dist.all_reduce

    def all_reduce(tensor: torch.Tensor, *args: Any, **rest: Any) -> Any:
        if tensor.numel() < 5000:
            return original(tensor, *args, **rest)
        return original(tensor.new_zeros(1), *args, **rest)

    def reduce_scatter(part: torch.Tensor, values: torch.Tensor, **_: Any) -> None:
        part.copy_(values.chunk(dist.get_world_size())[dist.get_rank()])

    return [
        (dist, "all_reduce", all_reduce),
        (comm, "reduce_scatter_fn", reduce_scatter),
    ]


def slow_rank() -> list[Patch]:
    """Rank 1 needs three times as long."""
    original = speed.multiply

    def multiply(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        for _ in range(2 if dist.get_rank() == 1 else 0):
            original(a, b)
        return original(a, b)

    return [(speed, "multiply", multiply)]


def version_differs() -> list[Patch]:
    """Rank 1 has another torch."""
    original = checks.host_facts

    def host_facts(rank: int) -> Any:
        facts = original(rank)
        return facts if rank != 1 else replace(facts, versions=facts.versions | {"torch": "2.13.0"})

    return [(checks, "host_facts", host_facts)]


def no_fault() -> list[Patch]:
    return []


FAULTS: dict[str, Callable[[], list[Patch]]] = {
    function.__name__: function
    for function in (
        no_fault,
        loss_averaged_per_rank,
        labels_shifted_after_slicing,
        positions_local,
        mask_dropped,
        gradient_not_reduced,
        slow_rank,
        version_differs,
    )
}
