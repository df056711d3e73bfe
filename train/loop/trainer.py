"""The training loop: step k is a function of (seed, k)."""

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

from ropewalk.conf import phases
from ropewalk.conf.errors import RopewalkError, Stopped
from ropewalk.conf.schema import Config
from ropewalk.data.dataset import BatchLoader, Row, prefetch
from ropewalk.train.checkpoint.checkpointer import Checkpointer, TrainState
from ropewalk.train.launcher.stop import StopSignal
from ropewalk.train.loop.profiler import Profiler
from ropewalk.train.loop.stability import StabilityPolicy
from ropewalk.train.loop.step import train_step
from ropewalk.train.loop.validation import Validation
from ropewalk.train.loop.watchdog import HangWatchdog, Heartbeat
from ropewalk.train.metrics import MetricLogger, StepMetrics
from ropewalk.train.zero.engine import Engine
from ropewalk.train.zero.mesh import Mesh


def train(
    engine: Engine,
    config: Config,
    feed: BatchLoader,
    folder: Path,
    mesh: Mesh,
    checkpoints: Checkpointer,
    progress: TrainState,
    seen: StepMetrics | None = None,
    validation: Validation | None = None,
) -> TrainState:
    """Steps `progress.step` to `train.steps`; returns where it is then.

    Raises: Stopped after a checkpoint, RopewalkError on a loss that is no number, or what else train.stability says to stop at.
    """
    loop = Trainer(engine, config, feed, folder, mesh, checkpoints, progress, seen, validation)
    with (
        HangWatchdog(
            folder / "watch",
            mesh.rank,
            mesh.world_size,
            config.train.launcher.hang_timeout_s,
            loop.place,
        ),
        closing(loop),
    ):
        loop.run()
    return loop.progress


def skip_counts(progress: TrainState) -> dict[str, int]:
    """How many batches were left out, by what was done."""
    left_out = [line["event"] for line in progress.state.get("left_out", {}).values()]
    return {f"left_out_by_{event}": left_out.count(event) for event in sorted(set(left_out))}


class Trainer:
    """One rank's training while it goes."""

    def __init__(
        self,
        engine: Engine,
        config: Config,
        feed: BatchLoader,
        folder: Path,
        mesh: Mesh,
        checkpoints: Checkpointer,
        progress: TrainState,
        seen: StepMetrics | None = None,
        validation: Validation | None = None,
    ) -> None:
        self.engine, self.config, self.feed, self.folder, self.mesh = (
            engine,
            config,
            feed,
            folder,
            mesh,
        )
        self.checkpoints, self.progress = checkpoints, progress
        self.faults = StabilityPolicy(config.train.stability, progress.state)
        self.seen, self.stop = seen or StepMetrics(engine, config, mesh), StopSignal(folder)
        self.validation, self.profiler = validation, Profiler(config, folder, mesh)
        self.metrics = MetricLogger(folder, config, progress.step) if mesh.rank == 0 else None

    def place(self) -> Heartbeat:
        """How far it is; read by the watch, from another thread."""
        marks = self.seen.timer.events
        # what takes long between two marks counts what it has done
        moved = self.checkpoints.writer.finished_jobs + (
            self.validation.done if self.validation else 0
        )
        return Heartbeat(self.progress.step, len(marks), marks[-1][0], moved)

    def run(self) -> None:
        rule = self.config.train.stability
        if "rollback" in (rule.on_nan, rule.on_spike) and not self.progress.loaded:
            self.checkpoints.save(self.progress)
            self.checkpoints.finish()
        while self.progress.step < self.config.train.steps:
            self._stretch(range(self.progress.step, self.config.train.steps))
        self.checkpoints.wait()

    def _stretch(self, steps: range) -> None:
        """Steps to the last, or until one sends back to a checkpoint. Batches that are left out are not read."""
        out = {step for step in steps if str(step) in self.faults.left_out}
        rows = prefetch(
            self.feed.micro_batches(s for s in steps if s not in out), self.config.train.prefetch
        )
        with closing(rows):
            for step in steps:
                self._left_out(step) if step in out else self._step(step, rows)
                if self.faults.verdict.action == "rollback":
                    return self._roll_back(step)
                self.progress.step = step + 1
                self._between()

    def _step(self, step: int, rows: Iterator[Row]) -> None:
        admit = self.faults.admit
        self.profiler.before(step + 1)
        row = train_step(
            self.engine, self.config, self.feed, rows, step, self.mesh, self.seen, admit
        )
        self.profiler.after(step + 1)
        action = self.faults.verdict.action
        if action == "apply":
            return self._write(row | phases.metrics_fields(self.config) | self._validated(step))
        if (
            action == "skip"
        ):  # one that is gone back from has its line written when its batch is passed over
            self._left_out(step)
        elif action == "stop":
            self._write(self.faults.line(step))
        self.faults.refuse(step)

    def _left_out(self, step: int) -> None:
        """A step without its batch: the weights are as they were, and measured all the same when it is their turn."""
        self._write(self.faults.line(step) | self._validated(step))

    def _validated(self, step: int) -> dict[str, Any]:
        return self.validation(step + 1) if self.validation else {}

    def _write(self, line: dict[str, Any]) -> None:
        if self.metrics is not None:
            self.metrics.log_skipped_step(line) if "event" in line else self.metrics.log_step(line)

    def _roll_back(self, step: int) -> None:
        """To the last checkpoint; what is left out since stays left out."""
        left_out, why = self.faults.left_out, self.faults.verdict.why
        self.checkpoints.wait()
        self.progress = self.checkpoints.load()
        if not self.progress.loaded:
            raise RopewalkError(
                f"{why}, at step {step + 1}; no checkpoint is whole, so none can be gone back to; begin anew"
            )
        self.faults = StabilityPolicy(self.config.train.stability, self.progress.state)
        self.faults.left_out |= left_out
        if self.metrics is not None:
            self.metrics.rewind(self.progress.step)
            print(
                f"step {step + 1}: {why}; back to step {self.progress.step}, and on without this batch",
                flush=True,
            )

    def _between(self) -> None:
        """Between two steps: a stop that is asked for, and checkpoints. Raises: Stopped."""
        done, every = self.progress.step, self.config.train.checkpoint.interval_steps
        asked, *written = self.stop(*self.checkpoints.local_flags())
        self.checkpoints.poll(*written)
        if done == self.config.train.steps:
            return
        if asked or (every and done % every == 0):
            self.checkpoints.save(self.progress)
        if asked:
            self.checkpoints.finish()
            raise Stopped(
                f"stopped after step {done} with a checkpoint; run the same command again to resume"
            )

    def close(self) -> None:
        self.profiler.close()
        if self.metrics is not None:
            self.metrics.close()
