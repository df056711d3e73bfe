"""Held-out loss by position while training, by the ranks as they are: windows are dealt to the data-parallel groups, a window's slices to
the ranks that share a sequence, and every rank makes as many forward passes as the others, as ZeRO-3 needs.

Training does not notice: no random number is drawn, no gradient kept, and the model's mode is given back.
"""

import math
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch

from ropewalk.conf.errors import DataError
from ropewalk.conf.schema import Config
from ropewalk.data.dataset import IGNORE, DataArtifacts, Row, Window, concatenate, heldout_windows
from ropewalk.train.loop.step import to_device
from ropewalk.train.metrics import buckets
from ropewalk.train.zero.device import device
from ropewalk.train.zero.engine import Engine
from ropewalk.train.zero.mesh import Mesh


class Validation:
    """Windows of held-out tokens, each (L,), measured every so many steps and after the last one."""

    def __init__(
        self, engine: Engine, windows: Sequence[np.ndarray], config: Config, mesh: Mesh
    ) -> None:
        self.engine, self.windows, self.mesh = engine, windows, mesh
        self.every, self.steps = config.train.validation.interval_steps, config.train.steps
        self.done = 0  # windows of this rank, over all times

    def __call__(self, step: int) -> dict[str, Any]:
        """After step `step` (from 1): what its line has more, nothing when it is not its turn. Every rank calls it."""
        if not self.every or not (step % self.every == 0 or step == self.steps):
            return {}
        return {"validation": self.measure()}

    def measure(self) -> dict[str, Any]:
        """Mean loss of every token but a window's first, and by position in the window, over all windows."""
        started, at = time.perf_counter(), device()
        found = buckets.BucketSums(len(buckets.bucket_starts()), at)
        with evaluating(self.engine):
            for row in self._rows():
                batch = to_device(row)
                self.engine.module(**batch, total_labels=1)
                nll, counts = self.engine.module.nll, batch["labels"][0] != IGNORE
                found.add(buckets.position_bucket(batch["position_ids"][0]), nll, counts)
                self.done += 1
        every = buckets.all_reduce(
            {"positions": found.sums}, [], self.mesh.rank, self.mesh.world_size
        )["positions"]
        total, tokens = every.sum(0).tolist()
        return {
            "nll": total / tokens,
            "perplexity": math.exp(total / tokens),
            "tokens": int(tokens),
            "windows": len(self.windows),
            "nll_by_position": buckets.position_rows(every),
            "seconds": time.perf_counter() - started,
        }

    def _rows(self) -> Iterator[Row]:
        """This rank's, as many as every other rank's: where a group has no window left it reads one whose labels do not count."""
        mesh = self.mesh
        for first in range(0, len(self.windows), mesh.dp_size):
            place = first + mesh.dp_rank
            whole = _line(self.windows[min(place, len(self.windows) - 1)], mesh.sp_size)
            labels = (
                whole.labels if place < len(self.windows) else np.full_like(whole.labels, IGNORE)
            )
            width = len(labels) // mesh.sp_size
            cut = slice(mesh.sp_rank * width, (mesh.sp_rank + 1) * width)
            yield Row(whole.input_ids[cut], labels[cut], whole.position_ids[cut], whole.cu_seqlens)


def _line(window: np.ndarray, sp_size: int) -> Row:
    """A window as a row that `sp_size` divides: what is added is padding, a document of its own."""
    return concatenate([window], -(-len(window) // sp_size) * sp_size)


@contextmanager
def evaluating(engine: Engine) -> Iterator[None]:
    """No gradients, no dropout; the mode is given back whatever happens."""
    engine.module.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        engine.module.train()


def build_validation(engine: Engine, config: Config, data: DataArtifacts, mesh: Mesh) -> Validation:
    """The run's. Raises: DataError when it is asked for and no held-out document is long enough."""
    asked = config.train.validation
    length = asked.length or config.data.seq_len
    windows: list[Window] = []
    if asked.interval_steps:
        stores = data.text_stores(config.data)
        windows = heldout_windows(stores, length, asked.windows, asked.windows_per_document)
    if asked.interval_steps and not windows:
        raise DataError(
            f"train.validation.length is {length}; no held-out document has so many tokens; raise data.heldout_share (now {config.data.heldout_share}), "
            "lower train.validation.length or set train.validation.interval_steps=0"
        )
    return Validation(engine, [window.ids for window in windows], config, mesh)


def summary(lines: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Of the lines of metrics.jsonl: the lowest held-out loss and the last one, each with its step; empty without any."""
    found = [
        {"step": line["step"], "nll": line["validation"]["nll"]}
        for line in lines
        if "validation" in line
    ]
    finite = [one for one in found if math.isfinite(one["nll"])]
    if not finite:
        return {}
    return {"validation": {"best": min(finite, key=lambda one: one["nll"]), "last": found[-1]}}
