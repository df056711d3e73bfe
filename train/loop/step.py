"""One optimizer step. The loss is that of the whole global batch, however it is cut.

No generator's state matters: a base trains without dropout, and an adapter's is drawn by step,
sequence and token, so a step repeated after a resume, or on other ranks, drops the same elements.

dp_size data-parallel groups   sp_size ranks of a group, each with a slice
"""

import os
from collections.abc import Callable, Iterator
from typing import Any

import torch

from ropewalk.conf.schema import Config
from ropewalk.data.dataset import BatchLoader, Row
from ropewalk.train.loop.micro_batches import MicroBatches
from ropewalk.train.metrics.step_metrics import StepMetrics
from ropewalk.train.optim.schedule import lr_at
from ropewalk.train.zero.engine import Engine
from ropewalk.train.zero.mesh import Mesh, all_reduce_sum
from ropewalk.train.zero.optimizer_step import OptimizerStep, accumulate, gradient_scale

AcceptStep = Callable[[int, float, float], bool]


def train_step(
    engine: Engine,
    config: Config,
    loader: BatchLoader,
    batches: Iterator[Row],
    step: int,
    mesh: Mesh,
    metrics: StepMetrics,
    accept_step: AcceptStep,
) -> dict[str, Any]:
    """Train on the next micro-batches of `batches`; returns the line of metrics.jsonl.

    `step` counts from 0. `accept_step(step, loss, gradient norm)` gets the same values on every
    rank and decides whether the weights change.
    """
    timer = metrics.start_step(step)
    sequence_ids, num_labels = loader.sequence_ids(step), loader.num_labels(step)
    lr = set_learning_rate(engine, lr_at(step, config.train))
    num_micro_batches = loader.num_micro_batches(step)
    scale = gradient_scale(mesh, num_micro_batches, config.train.zero_stage)
    rows = MicroBatches(engine, config, loader, batches).of_step(step, timer)
    for _ in accumulate(engine, num_micro_batches):
        row, batch = next(rows)
        timer("data")
        # where no label counts, the loss is 0
        loss = engine(**batch, total_labels=max(num_labels, 1))
        timer("forward")
        metrics.add_micro_batch(row, batch, loss)
        engine.backward(loss * scale)
        timer("backward")
    metrics.add_gradients()
    global_loss_on_device = all_reduce_sum(metrics.loss)
    timer("wait")  # for the slowest rank
    optimizer_step = OptimizerStep(engine)
    global_loss = optimizer_step.read_with(global_loss_on_device)
    if accept_step(step, global_loss, optimizer_step.grad_norm):
        optimizer_step.apply()
    else:
        optimizer_step.skip()
    timer("optimizer")
    tokens = len(sequence_ids) * loader.sequences.seq_len
    measured = metrics.finish_step(tokens, num_labels)
    return {
        "step": step + 1,
        "loss": measured.pop("loss"),
        "grad_norm": optimizer_step.grad_norm,
        "lr": lr,
        "tokens": tokens,
        "labels": num_labels,
        **measured,
        "sequences": sequence_ids,
    }


def set_learning_rate(engine: Engine, lr: float) -> float:
    """Give each parameter group `lr` times its own `scale`; returns `lr`."""
    for group in engine.optimizer.param_groups:
        group["lr"] = lr * group["scale"]
    return lr


def use_deterministic_kernels() -> None:
    """Allow only kernels that sum in a fixed order; others raise.

    Call it before using the device.
    """
    os.environ.setdefault(
        "CUBLAS_WORKSPACE_CONFIG", ":4096:8"
    )  # without it cuBLAS may take another way each time
    torch.use_deterministic_algorithms(True)
    # this would only find reads of uninitialised memory, at a cost
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
