"""Programs of a rank in test_batch.py: steps under a ramp of micro-steps."""

from dataclasses import replace
from typing import Any

import deepspeed
import numpy as np
import torch
from feeds import Rows, config, train_steps
from models import tiny_model

from ropewalk.data.dataset import IGNORE, BatchLoader, Row
from ropewalk.train import attention
from ropewalk.train.zero import engine
from ropewalk.train.zero.mesh import Mesh

RAMP = ((0, 1), (1, 3), (3, 2), (4, 4))
"""(first step, micro-steps); every number of micro-steps differs."""


def stages(zero_stages: list[int], steps: int) -> list[list[dict[str, Any]]]:
    """Metrics and full gradients before the optimizer step, by ZeRO stage and step."""
    return [_stage(stage, steps) for stage in zero_stages]


def _stage(stage: int, steps: int) -> list[dict[str, Any]]:
    # the weights must not change, so that every gradient is of the same weights
    settings, mesh = config(zero_stage=stage, optimizer__lr=1e-20, steps=steps), Mesh.of(1)
    model = tiny_model()
    model.set_attn_implementation(attention.register("sdpa"))
    live: Any = engine.build_engine(model, settings, RAMP[0][1])
    feed = BatchLoader(Rows(), mesh, seed=0, micro_batch_size=1, batch_ramp=RAMP)
    gradients: list[dict[str, np.ndarray]] = []
    original_step = live.step

    def record_gradients() -> None:
        if live.is_gradient_accumulation_boundary():
            named = live.module.model.named_parameters()
            gradients.append(
                {n: deepspeed.utils.safe_get_full_grad(p).numpy().copy() for n, p in named}
            )
        original_step()

    live.step = record_gradients
    lines = train_steps(live, settings, feed, range(steps))
    live.destroy()
    return [{**line, "gradients": result} for line, result in zip(lines, gradients, strict=True)]


class Context(Rows):
    """A plan without labels."""

    def read(self, number: int, epoch: int = 0, low: int = 0, high: int | None = None) -> Row:
        row = super().read(number, epoch, low, high)
        return replace(row, labels=np.full_like(row.labels, IGNORE))

    def num_labels(self, number: int) -> int:
        return 0


def context_only() -> tuple[dict[str, Any], bool]:
    """The metrics of a step without labels, and whether the weights are unchanged."""
    settings = config(zero_stage=1)
    model = tiny_model()
    model.set_attn_implementation(attention.register("sdpa"))
    initial = {name: p.detach().clone() for name, p in model.named_parameters()}
    live = engine.build_engine(model, settings, 2)
    feed = BatchLoader(Context(), Mesh.of(1), seed=0, micro_batch_size=1, batch_ramp=[(0, 2)])
    (line,) = train_steps(live, settings, feed, [0])
    return line, all(torch.equal(p, initial[name]) for name, p in model.named_parameters())
