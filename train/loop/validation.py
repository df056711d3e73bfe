"""Held-out loss by position and key-value retrieval while training, on the training's own ranks.

Windows are dealt to the data-parallel groups, slices of a window to the ranks that share it, and
every rank runs as many forward passes as the others, as ZeRO 3 needs. Training is not affected: no
generator of torch is drawn from, no gradient kept, and the model's mode is restored.
"""

import math
import time
from collections.abc import Sequence
from typing import Any

import numpy as np

from ropewalk.conf.errors import DataError
from ropewalk.conf.log import log
from ropewalk.conf.schema import Config
from ropewalk.data.dataset import IGNORE, DataArtifacts, Row, concatenate, describe
from ropewalk.train.loop.dealing import local_slices, padded
from ropewalk.train.loop.key_value import Haystack, KeyValueRetrieval
from ropewalk.train.loop.micro_batches import to_device
from ropewalk.train.metrics import sums as metrics_sums
from ropewalk.train.model.build import evaluating
from ropewalk.train.zero.engine import Engine
from ropewalk.train.zero.mesh import Mesh, device


class Validation:
    """Windows of held-out tokens, each (L,), and questions about haystacks, measured every
    `interval_steps` steps and last."""

    def __init__(
        self,
        engine: Engine,
        windows: Sequence[np.ndarray],
        config: Config,
        mesh: Mesh,
        haystacks: Sequence[Haystack] = (),
    ) -> None:
        self.engine, self.windows, self.mesh = engine, windows, mesh
        self.every, self.steps = config.train.validation.interval_steps, config.train.steps
        self.retrieval = KeyValueRetrieval(engine.module, haystacks, mesh) if haystacks else None
        self.windows_measured = 0
        """Forward passes of this rank, over all validations."""

    def __call__(self, step: int) -> dict[str, Any]:
        """Collective. The fields it adds to the line of `step` (from 1); none if it is not due."""
        if not self.every or not (step % self.every == 0 or step == self.steps):
            return {}
        return {"validation": self.measure()}

    def measure(self) -> dict[str, Any]:
        """Collective. The fields of every task that is set."""
        started = time.perf_counter()
        result: dict[str, Any] = {}
        with evaluating(self.engine.module):
            if self.windows:
                result |= self._losses()
            if self.retrieval is not None:
                result["json_kv"] = self.retrieval.measure(self._count_pass)
        return {**result, "seconds": time.perf_counter() - started}

    def _losses(self) -> dict[str, Any]:
        """Mean loss over all tokens but each window's first, and by position in the window."""
        sums = metrics_sums.BucketSums(len(metrics_sums.bucket_starts()), device())
        module = self.engine.module
        for _, _, row in local_slices(len(self.windows), self._row, self.mesh):
            batch = to_device(row)
            module(**batch, total_labels=1)
            position_bucket = metrics_sums.position_bucket(batch["position_ids"][0])
            sums.add(position_bucket, module.nll, batch["labels"][0] != IGNORE)
            self._count_pass()
        by_position = metrics_sums.all_reduce(
            {"positions": sums.sums}, [], self.mesh.rank, self.mesh.world_size
        ).read()["positions"]
        nll, tokens = by_position.sum(0).tolist()
        return {
            "nll": nll / tokens,
            "perplexity": math.exp(nll / tokens),
            "tokens": int(tokens),
            "windows": len(self.windows),
            "nll_by_position": metrics_sums.position_rows(by_position),
        }

    def _row(self, number: int) -> Row:
        window = self.windows[number]
        return concatenate([window], padded(len(window), self.mesh.sp_size))

    def _count_pass(self) -> None:
        self.windows_measured += 1


def build_validation(engine: Engine, config: Config, data: DataArtifacts, mesh: Mesh) -> Validation:
    """The run's validation. Raises: DataError when no held-out document is long enough for it."""
    settings = config.train.validation
    length = settings.length or config.data.seq_len
    if not settings.interval_steps:
        return Validation(engine, [], config, mesh)
    heldout = data.heldout_text(config.data)
    windows = heldout.windows(length, settings.windows, settings.windows_per_document)
    if not windows:
        raise DataError(
            f"train.validation.length is {length}; no held-out document has that many tokens; "
            f"raise data.heldout_share (now {config.data.heldout_share}), lower "
            "train.validation.length or set train.validation.interval_steps=0"
        )
    log.info(f"validation: held-out {describe(heldout.layout(windows))}")
    return Validation(engine, [window.ids for window in windows], config, mesh)


def summary(lines: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The lowest and the last held-out loss of metrics.jsonl, with their steps; {} without any."""
    losses = [
        {"step": line["step"], "nll": line["validation"]["nll"]}
        for line in lines
        if "validation" in line
    ]
    finite = [loss for loss in losses if math.isfinite(loss["nll"])]
    if not finite:
        return {}
    return {"validation": {"best": min(finite, key=lambda loss: loss["nll"]), "last": losses[-1]}}
