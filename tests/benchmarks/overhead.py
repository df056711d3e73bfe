"""Seconds that `Trainer.train` adds to forward, backward and optimizer step.

Metrics and offline wandb are on.
"""

import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from sides import One, documents, our_config, our_model

from ropewalk.train.zero.mesh import start_distributed


class Inside:
    """Seconds inside the engine's calls and the gradient norm; and the end of each step."""

    def __init__(self, engine: Any) -> None:
        self.seconds, self.ends = 0.0, []
        self.inside: list[float] = []
        from ropewalk.train.zero.optimizer_step import OptimizerStep

        # the optimizer's method cannot be patched: OptimizerStep patches it for each step
        OptimizerStep._compute_norms = self._timed(OptimizerStep._compute_norms)
        for name in ("forward", "backward", "step"):
            setattr(engine, name, self._timed(getattr(engine, name), last=name == "step"))

    def _timed(self, function: Callable[..., Any], last: bool = False) -> Callable[..., Any]:
        def timed(*args: Any, **kwargs: Any) -> Any:
            started = time.perf_counter()
            result = function(*args, **kwargs)
            self.seconds += time.perf_counter() - started
            if last:
                self.inside.append(self.seconds)
                self.ends.append(time.perf_counter())
                self.seconds = 0.0
            return result

        return timed


def ours(length: int, count: int) -> dict[str, list[float]]:
    """Seconds from one step's end to the next, with data and metrics; and those outside."""
    from ropewalk.data.dataset import BatchLoader, concatenate
    from ropewalk.train.checkpoint.checkpointer import Checkpointer
    from ropewalk.train.loop.trainer import Trainer
    from ropewalk.train.loop.validation import Validation
    from ropewalk.train.metrics import StepMetrics
    from ropewalk.train.zero import engine
    from ropewalk.train.zero.mesh import Mesh

    config = our_config(
        length,
        steps=count,
        metrics__wandb="offline",
        checkpoint__interval_steps=0,
        memory__activation_checkpointing=False,
    )
    start_distributed()
    live = engine.build_engine(our_model(config), config, 1)
    watch = Inside(live)
    feed = BatchLoader(
        One(concatenate(documents(length, single_document=False), length)),
        Mesh(),
        seed=0,
        micro_batch_size=1,
        batch_ramp=[(0, 1)],
    )
    with tempfile.TemporaryDirectory() as folder:
        checkpoints = Checkpointer(live, Path(folder) / "checkpoints", config.train, Mesh(), {})
        metrics, validation = (
            StepMetrics(live, config, Mesh()),
            Validation(live, [], config, Mesh()),
        )
        path, state = Path(folder), checkpoints.load()
        Trainer(live, config, feed, Mesh(), path, checkpoints, state, metrics, validation).train()
    total = [b - a for a, b in zip(watch.ends, watch.ends[1:], strict=False)]
    return {
        "whole": total,
        "outside": [t - i for t, i in zip(total, watch.inside[1:], strict=True)],
    }
