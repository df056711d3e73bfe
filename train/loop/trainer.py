"""The training loop: step k is a function of (seed, k)."""

from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from ropewalk.conf import phases
from ropewalk.conf.errors import RopewalkError, Stopped
from ropewalk.conf.log import log
from ropewalk.conf.schema import Config
from ropewalk.data.dataset import BatchLoader, Row, prefetch
from ropewalk.train.checkpoint.checkpointer import Checkpointer, TrainState
from ropewalk.train.launcher.stop import StopSignal
from ropewalk.train.loop.profiler import Profiler
from ropewalk.train.loop.progress import Heartbeat
from ropewalk.train.loop.stability import StabilityPolicy
from ropewalk.train.loop.step import train_step
from ropewalk.train.loop.validation import Validation
from ropewalk.train.loop.watchdog import phase
from ropewalk.train.metrics import MetricLogger, StepMetrics
from ropewalk.train.zero.engine import Engine
from ropewalk.train.zero.mesh import Mesh


@dataclass
class Trainer:
    """One rank's training: its parts as `assemble` builds them. Every rank calls `train`."""

    engine: Engine
    config: Config
    loader: BatchLoader
    mesh: Mesh
    folder: Path
    """Where metrics and profiles go (train.tmp of the run)."""
    checkpointer: Checkpointer
    state: TrainState
    metrics: StepMetrics
    validation: Validation

    def __post_init__(self) -> None:
        self.stability = StabilityPolicy(self.config.train.stability, self.state.state)
        self.stop = StopSignal(self.folder)
        self.first_step = self.state.step
        self.profiler = Profiler(self.config, self.folder, self.mesh)
        self.logger: MetricLogger | None = None
        if self.mesh.rank == 0:
            self.logger = MetricLogger(self.folder, self.config, self.state.step)

    def train(self) -> None:
        """Train from `state.step` to `train.steps`.

        Raises: Stopped after a checkpoint, RopewalkError when train.stability says to stop.
        """
        with closing(self), phase("training", heartbeat=self.heartbeat):
            self._save_for_rollback()
            while self.state.step < self.config.train.steps:
                self._run_steps(range(self.state.step, self.config.train.steps))
            self.checkpointer.wait()

    def heartbeat(self) -> Heartbeat:
        """How far this rank is; the watchdog calls it from its own thread."""
        events = self.metrics.timer.events
        # work that takes long between two events counts its parts
        parts = self.checkpointer.writer.finished_jobs + self.validation.windows_measured
        is_first = self.state.step == self.first_step
        extra_s = self.config.train.launcher.first_step_extra_s if is_first else 0.0
        return Heartbeat(self.state.step, len(events), events[-1][0], parts, extra_s)

    def _save_for_rollback(self) -> None:
        rule = self.config.train.stability
        if "rollback" in (rule.on_nan, rule.on_spike) and not self.state.loaded:
            self.checkpointer.save(self.state)
            self.checkpointer.finish()

    def _run_steps(self, steps: range) -> None:
        """Run `steps`, until one of them rolls back. Batches skipped earlier are not read."""
        skipped = {step for step in steps if str(step) in self.stability.skipped}
        batches = prefetch(
            self.loader.micro_batches(step for step in steps if step not in skipped),
            self.config.train.prefetch,
        )
        with closing(batches):
            for step in steps:
                if step in skipped:
                    self._log_skipped_step(step)
                else:
                    self._run_step(step, batches)
                if self.stability.decision.action == "rollback":
                    self._roll_back(step)
                    return
                self.state.step = step + 1
                self._after_step()

    def _run_step(self, step: int, batches: Iterator[Row]) -> None:
        """Raises: RopewalkError when the stability policy says to stop."""
        self.profiler.start_step(step + 1)
        line = train_step(
            self.engine,
            self.config,
            self.loader,
            batches,
            step,
            self.mesh,
            self.metrics,
            self.stability.accept_step,
        )
        self.profiler.end_step(step + 1)
        action = self.stability.decision.action
        if action == "apply":
            line |= phases.metrics_fields(self.config) | self.validation(step + 1)
            if self.logger is not None:
                self.logger.log_step(line)
        elif action == "skip":
            self._log_skipped_step(step)
        elif action == "stop" and self.logger is not None:
            self.logger.log_skipped_step(self.stability.skipped_line(step))
        # after a rollback the step's line is written when its batch is skipped on the second pass
        self.stability.refuse_to_continue(step)

    def _log_skipped_step(self, step: int) -> None:
        """Write the line of a step without its batch; validation is due all the same."""
        line = self.stability.skipped_line(step) | self.validation(step + 1)
        if self.logger is not None:
            self.logger.log_skipped_step(line)

    def _roll_back(self, step: int) -> None:
        """Go back to the last checkpoint; batches skipped since then stay skipped."""
        skipped, reason = self.stability.skipped, self.stability.decision.reason
        self.checkpointer.wait()
        self.state = self.checkpointer.load()
        if not self.state.loaded:
            raise RopewalkError(
                f"{reason}, at step {step + 1}; no checkpoint is undamaged, so there is none to "
                "roll back to; start a new run"
            )
        self.stability = StabilityPolicy(self.config.train.stability, self.state.state)
        self.stability.skipped |= skipped
        if self.logger is not None:
            self.logger.rewind(self.state.step)
        log.info(
            f"step {step + 1}: {reason}; back to step {self.state.step}, and on without this batch"
        )

    def _after_step(self) -> None:
        """Save a checkpoint that is due, and stop if requested. Raises: Stopped."""
        step, interval = self.state.step, self.config.train.checkpoint.interval_steps
        stop_requested, *flags = self.stop(*self.checkpointer.local_flags())
        self.checkpointer.poll(*flags)
        if step == self.config.train.steps:
            return
        if stop_requested or (interval and step % interval == 0):
            self.checkpointer.save(self.state)
        if stop_requested:
            self.checkpointer.finish()
            raise Stopped(
                f"stopped after step {step} with a checkpoint; run the same command again to resume"
            )

    def close(self) -> None:
        self.profiler.close()
        if self.logger is not None:
            self.logger.close()


def skip_counts(state: TrainState) -> dict[str, int]:
    """How many batches were left out, by the action taken."""
    events = [line["event"] for line in state.state.get("left_out", {}).values()]
    return {f"left_out_by_{event}": events.count(event) for event in sorted(set(events))}
