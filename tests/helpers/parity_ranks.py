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
from ropewalk.train.loop import step as train_step
from ropewalk.train.zero import engine
from ropewalk.train.zero.mesh import Mesh

BATCH = 4  # sequences of the global batch, whatever the cell


@dataclass(frozen=True)
class Cell:
    """One place of the matrix; the mesh is that of the ranks. `fault` breaks what the comparison must notice."""

    zero_stage: int
    accumulated: int
    plan: str
    model: str
    fault: str = ""


@dataclass
class Found:
    losses: list[float]
    norms: list[float]
    gradients: dict[str, np.ndarray]  # of the first step, by parameter
    leaks: list["Leak"] = field(default_factory=list)


@dataclass
class Leak:
    """A micro-batch read twice, the second time with one token of its first document changed. Shapes (S,), of the whole line."""

    positions: np.ndarray
    before: np.ndarray  # loss of each token
    after: np.ndarray


def cells(
    sp_size: int,
    expected: list[Cell],
    config: Config,
    plans: dict[str, DataArtifacts],
    shapes: dict[str, dict[str, Any]],
) -> dict[Cell, Found] | None:
    """Each cell's curve, on rank 0."""
    mesh, result = Mesh.of(sp_size), {}
    for cell in expected:
        with broken(cell.fault):
            live, settings = start(cell, mesh, config, shapes[cell.model])
            read = feed(cell, mesh, plans[cell.plan])
            result[cell] = curve(live, settings, read, mesh)
            result[cell].leaks = [leak(live, read, mesh)]
            live.destroy()
    return result if mesh.rank == 0 else None


@contextmanager
def broken(fault: str) -> Iterator[None]:
    whole, scale = train_step.document_borders, train_step.gradient_scale
    if fault == "borders":
        train_step.document_borders = lambda cu_seqlens, at: whole(cu_seqlens[[0, -1]], at)
    if fault == "scale":
        # DeepSpeed's factor of stage 3 at the others, and theirs at stage 3
        train_step.gradient_scale = lambda mesh, accumulated, stage: scale(
            mesh, accumulated, 1 if stage == 3 else 3
        )
    yield
    train_step.document_borders, train_step.gradient_scale = whole, scale


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
    model = tiny_model(**shape)
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
    with in_pieces():
        return engine.build_engine(model, settings, cell.accumulated, mesh), settings


@contextmanager
def in_pieces() -> Iterator[None]:
    """At stage 3 parameters as small as a test's are left whole on each rank; not here."""
    plain = engine.deepspeed_config

    def settings(*given: Any) -> dict[str, Any]:
        result = plain(*given)
        result["zero_optimization"]["stage3_param_persistence_threshold"] = 0
        return result

    engine.deepspeed_config = settings
    yield
    engine.deepspeed_config = plain


def curve(live: Any, config: Config, feed: BatchLoader, mesh: Mesh) -> Found:
    gradients: dict[str, np.ndarray] = {}
    plain = live.step

    def step(*args: Any, **kwargs: Any) -> None:
        if live.is_gradient_accumulation_boundary() and not gradients:
            gradients.update(whole_gradients(live))
        plain(*args, **kwargs)

    live.step = step
    lines = train_steps(live, config, feed, range(config.train.steps))
    return Found([line["loss"] for line in lines], [line["grad_norm"] for line in lines], gradients)


def whole_gradients(live: Any) -> dict[str, np.ndarray]:
    """What the optimizer is about to be given, by DeepSpeed's own reader of its pieces."""
    named = live.module.model.named_parameters()
    return {
        name: deepspeed.utils.safe_get_full_grad(p).double().numpy().copy() for name, p in named
    }


def leak(live: Any, feed: BatchLoader, mesh: Mesh) -> Leak:
    """Sequences 0, 1, ... in one line; the token at place 20 is one of the first document's."""
    row = feed.read([SequenceRef(number, 0) for number in range(feed.micro_batch_size)])
    low, width = mesh.sp_rank * len(row.input_ids), len(row.input_ids)
    ids = row.input_ids.copy()
    if low <= 20 < low + width:
        ids[20 - low] = (ids[20 - low] + 1) % VOCAB
    losses = []
    for given in (row, replace(row, input_ids=ids)):
        with torch.no_grad():
            live(**train_step.to_device(given), total_labels=1)
        losses.append(of_line(live.module.nll, mesh))
    return Leak(of_line(torch.from_numpy(row.position_ids), mesh), *losses)


def of_line(mine: torch.Tensor, mesh: Mesh) -> np.ndarray:
    """The slices of this rank's line, end to end."""
    result = [torch.empty_like(mine) for _ in range(mesh.world_size)]
    dist.all_gather(result, mine)
    first = mesh.dp_rank * mesh.sp_size
    return torch.cat(result[first : first + mesh.sp_size]).numpy()
