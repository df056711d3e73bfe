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
from ropewalk.train.checkpoint.keeper import Checkpoints, Progress
from ropewalk.train.engine import device
from ropewalk.train.mesh import Mesh
from ropewalk.train.metrics import Metrics, Seen
from ropewalk.train.profile import Profiler
from ropewalk.train.step import one_step
from ropewalk.train.validate import Validation

STOP = "stop"  # launch asks for a stop in good order by this file


class StopSignal:
    """SIGTERM, SIGINT, SIGUSR1 (Slurm's --signal=USR1@SECONDS) or the stop file: noticed between steps, by all ranks in the same one."""

    def __init__(self, folder: Path) -> None:
        self.file, self.asked = folder / STOP, False
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1):
            signal.signal(number, self._ask)

    def _ask(self, *_: Any) -> None:
        self.asked = True

    def __call__(self, *flags: float) -> list[bool]:
        """Whether a stop is asked of any rank, and whether any has each of `flags`: one small exchange a step."""
        mine = torch.tensor([float(self.asked or self.file.exists()), *flags], device=device())
        dist.all_reduce(mine, op=dist.ReduceOp.MAX)
        return [bool(flag) for flag in mine.tolist()]


def train(
    engine: Any,
    config: Config,
    feed: Feed,
    folder: Path,
    mesh: Mesh,
    checkpoints: Checkpoints,
    progress: Progress,
    seen: Seen | None = None,
    validation: Validation | None = None,
) -> None:
    """Steps `progress.step` to `train.steps`. Raises: Stopped after a checkpoint, RopewalkError on a loss that is no number."""
    metrics = Metrics(folder, config, progress.step) if mesh.rank == 0 else None
    seen = seen or Seen(engine, config, mesh)
    profiler = Profiler(config, folder, mesh)
    stop, every = StopSignal(folder), config.train.checkpoint_steps
    steps = range(progress.step, config.train.steps)
    with closing(ahead(feed.micro_batches(steps), config.train.prefetch)) as rows:
        for step in steps:
            profiler.before(step + 1)
            row = one_step(engine, config, feed, rows, step, mesh, seen) | phases.mark(config)
            profiler.after(step + 1)
            row |= validation(step + 1) if validation else {}
            if metrics is not None:
                metrics.step(row)
            if not math.isfinite(row["loss"]):
                raise RopewalkError(
                    f"loss is {row['loss']} at step {step + 1}; it must be finite; lower train.lr or look at the batch"
                )
            progress.step = step + 1
            asked, *written = stop(*checkpoints.flags())
            checkpoints.settle(*written)
            last = progress.step == config.train.steps
            if not last and (asked or (every and progress.step % every == 0)):
                checkpoints.save(progress)
            if asked and not last:
                checkpoints.finish()
                if metrics is not None:
                    metrics.close()
                raise Stopped(f"stopped after step {step + 1} with a checkpoint; run the same command again to resume")
    checkpoints.wait()
    if metrics is not None:
        metrics.close()
