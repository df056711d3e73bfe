"""One optimizer step: the loss is that of the whole global batch, whatever ranks and micro-batches it is cut into.

dp_size data-parallel groups   sp_size ranks of a group, each with a slice   A micro-steps accumulated
"""

from collections.abc import Callable, Iterator
from typing import Any

import torch

from ropewalk.conf.schema import Config
from ropewalk.data.dataset import BatchLoader, Row
from ropewalk.train.attention import document_borders
from ropewalk.train.loop import seeds
from ropewalk.train.metrics import StepMetrics
from ropewalk.train.optim.schedule import lr_at
from ropewalk.train.zero.batch import set_accumulation_steps
from ropewalk.train.zero.device import device
from ropewalk.train.zero.mesh import Mesh, all_reduce_sum
from ropewalk.train.zero.optimizer_step import OptimizerStep


def gradient_scale(mesh: Mesh, accumulated: int, zero_stage: int) -> int:
    """What undoes the engine's averages, so that the gradient is that of the sum of all ranks' shares of the loss.

    Stages 0 to 2 divide by dp_size and accumulation, stage 3 by the whole world: pinned by test against one process.
    """
    return mesh.dp_size * accumulated * (mesh.sp_size if zero_stage == 3 else 1)


def always(step: int, loss: float, norm: float) -> bool:
    return True


def train_step(
    engine: Any,
    config: Config,
    feed: BatchLoader,
    rows: Iterator[Row],
    step: int,
    mesh: Mesh,
    seen: StepMetrics,
    admit: Callable[[int, float, float], bool] = always,
) -> dict[str, Any]:
    """One optimizer step on the next micro-batches of `rows`; returns its line of metrics.jsonl.

    `admit(step, loss, gradient norm)` is asked before the weights change, on every rank with the same values.
    """
    mark = seen.start_step(step)
    seeds.seed_step(config.seed, config.phase, step, mesh.rank)
    numbers, labels = feed.sequence_ids(step), feed.num_labels(step)
    lr = lr_at(step, config.train)
    for group in engine.optimizer.param_groups:
        group["lr"] = lr * group["scale"]
    accumulated = feed.num_micro_batches(step)
    set_accumulation_steps(engine, accumulated)
    scale = gradient_scale(mesh, accumulated, config.train.zero_stage)
    for micro in range(accumulated):
        engine.set_gradient_accumulation_boundary(micro + 1 == accumulated)
        row = next(rows)
        mark("data")
        batch = to_device(row)
        # a batch of context only has no labels, and a loss of 0
        found = engine(**batch, total=max(labels, 1))
        mark("forward")
        seen.add_micro_batch(row, batch, found)
        engine.backward(found * scale)  # the loss is already a share of the whole batch
        mark("backward")
        seen.add_gradients()
        if micro + 1 < accumulated:
            engine.step()
    loss = all_reduce_sum(seen.loss)
    mark("wait")  # for the slowest rank
    gate = OptimizerStep(engine)
    gate.step(admit(step, loss, gate.norm))
    mark("optimizer")
    tokens = len(numbers) * feed.sequences.seq_len
    told = seen.finish_step(tokens, labels)
    return {
        "step": step + 1,
        "loss": told.pop("loss"),
        "grad_norm": gate.norm,
        "lr": lr,
        "tokens": tokens,
        "labels": labels,
        **told,
        "sequences": numbers,
    }


def to_device(row: Row) -> dict[str, Any]:
    """A row as the model takes it: (1, S) tensors on the device, and the borders once for all layers."""
    at = device()

    def put(x: Any) -> torch.Tensor:
        # from pinned memory a copy does not wait
        held = torch.from_numpy(x)
        return (held.pin_memory() if at.type == "cuda" else held).to(at, non_blocking=True)

    ids, positions, labels = (put(x)[None] for x in (row.input_ids, row.position_ids, row.labels))
    return {
        "input_ids": ids,
        "position_ids": positions,
        "labels": labels,
        **document_borders(torch.from_numpy(row.cu_seqlens), at),
    }
