"""This rank's micro-batches of a step, as the engine's arguments.

With a router's loss the first of them needs to know how the whole global batch is routed. A single
micro-batch knows it from its own forward pass; several are passed through the model twice, first
without gradients, to count. An adapter's dropout is told which tokens the row has.

    S tokens of this rank's row
"""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import islice
from typing import Any

import numpy as np
import torch

from ropewalk.conf.schema import Config
from ropewalk.data.dataset import IGNORE, BatchLoader, Row, SequenceRef
from ropewalk.train.adapters import dropout
from ropewalk.train.attention.borders import document_borders
from ropewalk.train.metrics.step_metrics import StepTimer
from ropewalk.train.router_loss import Routing
from ropewalk.train.transfer import copy_to_device
from ropewalk.train.zero.engine import Engine
from ropewalk.train.zero.mesh import device

Refs = list[SequenceRef]
"""The sequences of a micro-batch."""


class MicroBatches:
    """The micro-batches of one step after the other, read from `rows` (see BatchLoader)."""

    def __init__(
        self, engine: Engine, config: Config, loader: BatchLoader, rows: Iterator[Row]
    ) -> None:
        self.module, self.loader, self.rows = engine.module, loader, rows
        self.run = (config.seed, config.phase)
        self.drawn = dropout.row_of(engine.module)

    def of_step(self, step: int, timer: StepTimer) -> Iterator[tuple[Row, dict[str, Any]]]:
        """Rows and the model's arguments. Collective with a router's loss."""
        self.drawn.key = (*self.run, step)
        refs = self.loader.local_micro_batches(step)
        rows, routing = islice(self.rows, len(refs)), None
        if self.module.router_loss is not None and len(refs) > 1:
            own = list(rows)
            timer("data")
            routing = self._count_routing(own, refs)
            timer("forward")
            rows = islice(own, len(own))
        for row, micro_batch in zip(rows, refs, strict=True):
            yield row, self._arguments(row, micro_batch) | {"batch_routing": routing}

    def _arguments(self, row: Row, refs: Refs) -> dict[str, Any]:
        """Until the next call an adapter's dropout is that of this row."""
        self.drawn.spans = self.loader.token_spans(refs)
        batch = to_device(row)
        if self.module.router_loss is not None:
            batch["is_text"] = copy_to_device(self.loader.is_text(refs), device())
        return batch

    @torch.no_grad()
    def _count_routing(self, rows: Sequence[Row], refs: Sequence[Refs]) -> Routing:
        """Collective. How the global batch is routed, by forward passes without losses."""
        total: Routing | None = None
        for row, micro_batch in zip(rows, refs, strict=True):
            unlabelled = replace(row, labels=np.full_like(row.labels, IGNORE))
            self.module(**self._arguments(unlabelled, micro_batch), total_labels=1)
            routing = self.module.routing
            assert routing is not None
            total = routing if total is None else total + routing
        assert total is not None
        return total


def to_device(row: Row, target: torch.device | None = None) -> dict[str, Any]:
    """A micro-batch as the model's arguments: (1, S) tensors, where labels count (N,), and borders.

    They lie on `target`, which is this rank's device unless another is asked for.
    """
    target = device() if target is None else target
    return {
        "input_ids": copy_to_device(row.input_ids, target)[None],
        "position_ids": copy_to_device(row.position_ids, target)[None],
        "labels": copy_to_device(row.labels, target)[None],
        "label_positions": copy_to_device(np.flatnonzero(row.labels != IGNORE), target),
        **document_borders(torch.from_numpy(row.cu_seqlens), target),
    }
