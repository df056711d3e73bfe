"""A mixture of experts trained for one step with its router's loss, as a rank of
test_router_loss.py runs it.
"""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from architectures import small_model
from feeds import train_steps
from parity_ranks import full_gradients, partition_small_params

from ropewalk.conf.schema import Config
from ropewalk.data.dataset import BatchLoader, DataArtifacts
from ropewalk.train import attention
from ropewalk.train.attention import ulysses
from ropewalk.train.zero import engine
from ropewalk.train.zero.mesh import Mesh

SEQUENCES = 4  # of the global batch, whatever the cell


@dataclass(frozen=True)
class Cell:
    sp_size: int
    zero_stage: int
    accumulated: int
    checkpointing: bool = False


@dataclass
class Step:
    """The line of metrics.jsonl, and the gradient by parameter before the optimizer's step."""

    line: dict[str, Any]
    gradients: dict[str, np.ndarray]


def run_cells(
    kind: str, changes: dict[str, Any], cells: list[Cell], config: Config, data: DataArtifacts
) -> list[Step]:
    return [_step(kind, changes, cell, config, data) for cell in cells]


def _step(
    kind: str, changes: dict[str, Any], cell: Cell, config: Config, data: DataArtifacts
) -> Step:
    mesh = Mesh.of(cell.sp_size)
    size = SEQUENCES // (cell.accumulated * mesh.dp_size)
    memory = replace(config.train.memory, activation_checkpointing=cell.checkpointing)
    train = replace(
        config.train,
        zero_stage=cell.zero_stage,
        sp_size=cell.sp_size,
        micro_batch_size=size,
        memory=memory,
    )
    model = small_model(kind, changes)
    wrapper = ulysses.kernel_wrapper(model.config, mesh)
    model.set_attn_implementation(attention.register("sdpa", wrapper))
    settings = replace(config, train=train)
    with partition_small_params():
        live: Any = engine.build_engine(model, settings, cell.accumulated, mesh)
    loader = BatchLoader(
        data.sequences(),
        mesh,
        seed=0,
        micro_batch_size=size,
        batch_ramp=[(0, cell.accumulated)],
    )
    gradients: dict[str, np.ndarray] = {}
    original_step = live.step

    def step(*args: Any, **kwargs: Any) -> None:
        if live.is_gradient_accumulation_boundary():
            gradients.update(full_gradients(live))
        original_step(*args, **kwargs)

    live.step = step
    (line,) = train_steps(live, settings, loader, range(1))
    live.destroy()
    return Step(line, gradients)
