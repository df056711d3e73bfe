"""This rank's micro-batches of a step, as the engine's arguments.

With a router's loss the first of them needs to know how the whole global batch is routed. A single
micro-batch knows it from its own forward pass; several are passed through the model twice, first
without gradients, to count.

    S tokens of this rank's row
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from itertools import islice
from typing import Any

import numpy as np
import torch

from ropewalk.data.dataset import IGNORE, BatchLoader, Row
from ropewalk.train.attention.borders import document_borders
from ropewalk.train.metrics.step_metrics import StepTimer
from ropewalk.train.router_loss import Routing
from ropewalk.train.zero.engine import Engine
from ropewalk.train.zero.mesh import device


def micro_batches(
    engine: Engine,
    loader: BatchLoader,
    rows: Iterator[Row],
    step: int,
    timer: StepTimer,
    reseed: Callable[[], None],
) -> Iterator[tuple[Row, dict[str, Any]]]:
    """The next rows of `rows` that belong to `step`, with their arguments.

    Collective with a router's loss. `reseed` starts the step's random numbers again after a count.
    """
    count = loader.num_micro_batches(step)
    if engine.module.router_loss is None:
        yield from ((row, to_device(row)) for row in islice(rows, count))
        return
    texts = [loader.is_text(refs) for refs in loader.local_micro_batches(step)]
    if count == 1:
        yield from ((row, _routed(row, texts[0], None)) for row in islice(rows, 1))
        return
    own = list(islice(rows, count))
    timer("data")
    routing = _count_routing(engine, own, texts)
    timer("forward")
    reseed()
    yield from ((row, _routed(row, text, routing)) for row, text in zip(own, texts, strict=True))


def _routed(row: Row, is_text: np.ndarray, routing: Routing | None) -> dict[str, Any]:
    text = torch.from_numpy(is_text).to(device())
    return {**to_device(row), "is_text": text, "batch_routing": routing}


def _count_routing(engine: Engine, rows: Sequence[Row], texts: Sequence[np.ndarray]) -> Routing:
    """Collective. How the global batch is routed, by forward passes without gradients or losses."""
    total: Routing | None = None
    with torch.no_grad():
        for row, text in zip(rows, texts, strict=True):
            unlabelled = replace(row, labels=np.full_like(row.labels, IGNORE))
            engine.module(**_routed(unlabelled, text, None), total_labels=1)
            routing = engine.module.routing
            assert routing is not None
            total = routing if total is None else total + routing
    assert total is not None
    return total


def to_device(row: Row) -> dict[str, Any]:
    """A micro-batch as the model's arguments:
    (1, S) tensors on the device, and document borders.
    """
    target = device()

    def tensor(array: np.ndarray) -> torch.Tensor:
        host = torch.from_numpy(array)
        # a copy from pinned memory does not wait for the device
        pinned = host.pin_memory() if target.type == "cuda" else host
        return pinned.to(target, non_blocking=True)[None]

    return {
        "input_ids": tensor(row.input_ids),
        "position_ids": tensor(row.position_ids),
        "labels": tensor(row.labels),
        **document_borders(torch.from_numpy(row.cu_seqlens), target),
    }
