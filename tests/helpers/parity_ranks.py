"""The trainer's own step on a plan at any parallel degree, as a rank of test_parity.py runs it."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import deepspeed
import numpy as np
import torch
import torch.distributed as dist
from feeds import train_steps
from models import VOCAB, tiny_model

from ropewalk.conf.schema import Config
from ropewalk.data.dataset import BatchLoader, DataArtifacts
from ropewalk.data.loading.loader import SequenceRef
from ropewalk.train import attention
from ropewalk.train.attention import ulysses
from ropewalk.train.loop import micro_batches
from ropewalk.train.loop import step as train_step
from ropewalk.train.loop.step import use_deterministic_kernels
from ropewalk.train.zero import engine
from ropewalk.train.zero.mesh import Mesh, device

BATCH = 4  # sequences of the global batch, whatever the cell

BY_HEADS: dict[str, dict[str, Any]] = {
    f"{heads} heads, {shared} keys": {
        "hidden_size": max(32, 8 * heads) if 32 % heads == 0 else 8 * heads,
        "intermediate_size": 32,
        "num_attention_heads": heads,
        "num_key_value_heads": shared,
    }
    for heads, shared in ((1, 1), (2, 1), (2, 2), (3, 1), (3, 3))
    + ((6, 3), (7, 1), (7, 7), (9, 3), (9, 9))
}
"""Models by heads that few numbers of ranks divide."""


@dataclass(frozen=True)
class Cell:
    """One cell of the matrix, on the mesh of its ranks. `fault` breaks the computation."""

    zero_stage: int
    accumulated: int
    plan: str
    model: str
    fault: str = ""


@dataclass
class Curve:
    losses: list[float]
    norms: list[float]
    gradients: dict[str, np.ndarray]  # of the first step, by parameter
    leaks: list["Leak"] = field(default_factory=list)


@dataclass
class Leak:
    """Losses (S,) of a micro-batch before and after a change to one token of its first document."""

    positions: np.ndarray
    loss_before: np.ndarray  # loss of each token
    loss_after: np.ndarray


def run_cells(
    sp_size: int,
    matrix_cells: list[Cell],
    config: Config,
    plans: dict[str, DataArtifacts],
    shapes: dict[str, dict[str, Any]],
) -> dict[Cell, Curve] | None:
    """The curve of every cell, on rank 0."""
    use_deterministic_kernels()  # a leak is told by bits
    mesh, result = Mesh.of(sp_size), {}
    for cell in matrix_cells:
        with inject_fault(cell.fault):
            live, settings = start(cell, mesh, config, shapes[cell.model])
            read = feed(cell, mesh, plans[cell.plan])
            result[cell] = train_curve(live, settings, read, mesh)
            result[cell].leaks = [measure_leak(live, read, mesh)]
            live.destroy()
    return result if mesh.rank == 0 else None


@contextmanager
def inject_fault(fault: str) -> Iterator[None]:
    original_borders, original_scale = micro_batches.document_borders, train_step.gradient_scale
    if fault == "borders":
        micro_batches.document_borders = lambda cu_seqlens, device: original_borders(
            cu_seqlens[[0, -1]], device
        )
    if fault == "scale":
        # stage 3's factor at the other stages, and theirs at stage 3
        train_step.gradient_scale = lambda mesh, accumulated, stage: original_scale(
            mesh, accumulated, 1 if stage == 3 else 3
        )
    yield
    micro_batches.document_borders, train_step.gradient_scale = original_borders, original_scale


def micro(cell: Cell, mesh: Mesh) -> int:
    return BATCH // (cell.accumulated * mesh.dp_size)


def feed(cell: Cell, mesh: Mesh, folders: DataArtifacts) -> BatchLoader:
    return BatchLoader(
        folders.sequences(),
        mesh,
        seed=0,
        micro_batch_size=micro(cell, mesh),
        batch_ramp=[(0, cell.accumulated)],
    )


def start(cell: Cell, mesh: Mesh, config: Config, shape: dict[str, Any]) -> tuple[Any, Config]:
    model = tiny_model(**shape).to(device())
    model.set_attn_implementation(
        attention.register("sdpa", ulysses.kernel_wrapper(model.config, mesh))
    )
    train = replace(
        config.train,
        zero_stage=cell.zero_stage,
        sp_size=mesh.sp_size,
        micro_batch_size=micro(cell, mesh),
    )
    settings = replace(config, train=train)
    with partition_small_params():
        return engine.build_engine(model, settings, cell.accumulated, mesh), settings


@contextmanager
def partition_small_params() -> Iterator[None]:
    """Let ZeRO 3 partition a test's small parameters, which it would replicate by default."""
    original = engine.deepspeed_config

    def settings(*args: Any) -> dict[str, Any]:
        result = original(*args)
        result["zero_optimization"]["stage3_param_persistence_threshold"] = 0
        return result

    engine.deepspeed_config = settings
    yield
    engine.deepspeed_config = original


def train_curve(live: Any, config: Config, feed: BatchLoader, mesh: Mesh) -> Curve:
    gradients: dict[str, np.ndarray] = {}
    original_step = live.step

    def step(*args: Any, **kwargs: Any) -> None:
        if live.is_gradient_accumulation_boundary() and not gradients:
            gradients.update(full_gradients(live))
        original_step(*args, **kwargs)

    live.step = step
    lines = train_steps(live, config, feed, range(config.train.steps))
    return Curve([line["loss"] for line in lines], [line["grad_norm"] for line in lines], gradients)


def full_gradients(live: Any) -> dict[str, np.ndarray]:
    """Full gradients before the optimizer step, read by DeepSpeed's own function."""
    named = live.module.model.named_parameters()
    return {
        name: deepspeed.utils.safe_get_full_grad(p).cpu().double().numpy().copy()
        for name, p in named
    }


def measure_leak(live: Any, feed: BatchLoader, mesh: Mesh) -> Leak:
    """Of sequences 0, 1, ... in one row; token 20 belongs to the first document."""
    row = feed.read([SequenceRef(number, 0) for number in range(feed.micro_batch_size)])
    low, width = mesh.sp_rank * len(row.input_ids), len(row.input_ids)
    ids = row.input_ids.copy()
    if low <= 20 < low + width:
        ids[20 - low] = (ids[20 - low] + 1) % VOCAB
    losses = []
    for batch in (row, replace(row, input_ids=ids)):
        with torch.no_grad():
            live(**micro_batches.to_device(batch), total_labels=1)
        losses.append(gather_row(live.module.nll, mesh))
    return Leak(gather_row(torch.from_numpy(row.position_ids), mesh), *losses)


def gather_row(local: torch.Tensor, mesh: Mesh) -> np.ndarray:
    """The full row (S,) of this rank's sequence group, from the local slices."""
    local = local.to(device())
    result = [torch.empty_like(local) for _ in range(mesh.world_size)]
    dist.all_gather(result, local)
    first = mesh.dp_rank * mesh.sp_size
    return torch.cat(result[first : first + mesh.sp_size]).cpu().numpy()
