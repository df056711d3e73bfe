"""The training loop: step k is a function of (seed, k)."""

import math
import signal
from contextlib import closing
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

from ropewalk.conf import phases
from ropewalk.conf.errors import RopewalkError, Stopped
from ropewalk.conf.schema import Config
from ropewalk.data.dataset import Feed, ahead
from ropewalk.train import checkpoint
from ropewalk.train.engine import device
from ropewalk.train.mesh import Mesh
from ropewalk.train.metrics import Metrics, Seen
from ropewalk.train.step import one_step

STOP = "stop"  # launch asks for a stop in good order by this file


class StopSignal:
    """SIGTERM, SIGINT or the stop file: noticed between steps, by all ranks in the same step."""

    def __init__(self, folder: Path) -> None:
        self.file, self.asked = folder / STOP, False
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._ask)

    def _ask(self, *_: Any) -> None:
        self.asked = True

    def __call__(self) -> bool:
        flag = torch.tensor([float(self.asked or self.file.exists())], device=device())
        dist.all_reduce(flag, op=dist.ReduceOp.MAX)
        return bool(flag.item())


def train(engine: Any, config: Config, feed: Feed, folder: Path, first_step: int, mesh: Mesh) -> None:
    """Steps `first_step` to `train.steps`. Raises: Stopped after a checkpoint, RopewalkError on a loss that is no number."""
    metrics = Metrics(folder, config, first_step) if mesh.rank == 0 else None
    seen = Seen(engine, config, mesh)
    stop, checkpoints = StopSignal(folder), folder / "checkpoints"
    every, keep = config.train.checkpoint_steps, config.train.keep_checkpoints
    steps = range(first_step, config.train.steps)
    with closing(ahead(feed.micro_batches(steps), config.train.prefetch)) as rows:
        for step in steps:
            row = one_step(engine, config, feed, rows, step, mesh, seen) | phases.mark(config)
            if metrics is not None:
                metrics.step(row)
            if not math.isfinite(row["loss"]):
                raise RopewalkError(
                    f"loss is {row['loss']} at step {step + 1}; it must be finite; lower train.lr or look at the batch"
                )
            asked = stop() and step + 1 < config.train.steps
            if asked or (every and (step + 1) % every == 0 and step + 1 < config.train.steps):
                checkpoint.save(engine, checkpoints, step + 1, keep)
            if asked:
                if metrics is not None:
                    metrics.close()
                raise Stopped(f"stopped after step {step + 1} with a checkpoint; run the same command again to resume")
    if metrics is not None:
        metrics.close()
