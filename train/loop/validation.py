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

from ropewalk.conf.log import log
from ropewalk.conf.schema import Config
from ropewalk.data.dataset import IGNORE, DataArtifacts, Row, concatenate
from ropewalk.data.retrieval import Haystack
from ropewalk.train.loop import validation_inputs as inputs
from ropewalk.train.loop.dealing import local_slices, padded
from ropewalk.train.loop.key_value import KeyValueRetrieval
from ropewalk.train.loop.micro_batches import to_device
from ropewalk.train.loop.validation_cost import interval
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
        self.every, self.steps = config.train.validation.interval_steps or 0, config.train.steps
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
    """The run's validation. Raises: DataError when the data does not give what is measured."""
    settings = config.train.validation
    if not settings.is_on:
        return Validation(engine, [], config, mesh)
    windows, haystacks = inputs.windows(config, data), inputs.haystacks(config, data)
    validation = Validation(engine, windows, config, mesh, haystacks)
    if settings.interval_steps is None:
        passes = validation.retrieval.passes if validation.retrieval is not None else []
        model, sequences = engine.module.model, data.sequences()
        validation.every = interval(model, config, windows, passes, sequences, mesh)
        log.info(f"validation: every {validation.every} steps, by its FLOPs")
    return validation


def summary(lines: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The lowest and the last held-out loss of metrics.jsonl, with their steps; {} without any."""
    losses = [
        {"step": line["step"], "nll": line["validation"]["nll"]}
        for line in lines
        if "nll" in line.get("validation", {})
    ]
    finite = [loss for loss in losses if math.isfinite(loss["nll"])]
    if not finite:
        return {}
    return {"validation": {"best": min(finite, key=lambda loss: loss["nll"]), "last": losses[-1]}}
