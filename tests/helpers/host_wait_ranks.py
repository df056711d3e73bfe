"""Training steps on a rank, with the host's waits for the device counted."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import host_waits
import metrics_runs
import torch
from feeds import accept_step
from transformers.models.llama.modeling_llama import LlamaMLP

from ropewalk.train.launcher.stop import StopSignal
from ropewalk.train.loop.step import train_step
from ropewalk.train.metrics import StepMetrics
from ropewalk.train.zero.mesh import Mesh

STEPS = 4
"""DeepSpeed checks the order of the parameters in the first steps, and times from the third on."""


def waits_of_step(stage: int, accumulated: int, folder: str, *overrides: str) -> dict[str, int]:
    """The waits of the last step, from its batch to the exchange after it, by place."""
    mesh = Mesh.of(1)
    engine, config, loader = metrics_runs.start(stage, accumulated, mesh, *overrides)
    metrics = StepMetrics(engine, config, mesh, loader, metrics_runs.NAMES)
    batches, stop = loader.micro_batches(range(STEPS)), StopSignal(Path(folder))
    for step in range(STEPS - 1):
        train_step(engine, config, loader, batches, step, mesh, metrics, accept_step)
    with host_waits.counted() as waits:
        train_step(engine, config, loader, batches, STEPS - 1, mesh, metrics, accept_step)
        stop(False, False)
    return dict(waits)


def waits_by_case(cases: list[Any], folder: str) -> list[dict[str, int]]:
    return [waits_of_step(stage, count, folder, *changes) for stage, count, *changes in cases]


def waits_with_a_fault(folder: str) -> dict[str, int]:
    """Every MLP reads a number back from the device."""
    with _reading_mlp():
        return waits_of_step(1, 1, folder)


@contextmanager
def _reading_mlp() -> Iterator[None]:
    original = LlamaMLP.forward

    def forward(self: Any, x: torch.Tensor) -> torch.Tensor:
        return original(self, x) * (1.0 if x[0, 0, 0].item() < 1e9 else 2.0)

    LlamaMLP.forward = forward
    try:
        yield
    finally:
        LlamaMLP.forward = original
