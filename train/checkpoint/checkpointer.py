"""A run's checkpoints as the trainer uses them.

"Collective": all ranks call the method in the same step.
"""

import copy
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch.distributed as dist

from ropewalk.conf.artifacts.manifest import read_json
from ropewalk.conf.artifacts.records import remove, write_text
from ropewalk.conf.errors import RopewalkError
from ropewalk.conf.log import log
from ropewalk.conf.train import TrainConfig
from ropewalk.train.checkpoint import reshard, storage
from ropewalk.train.checkpoint.async_writer import AsyncWriter
from ropewalk.train.results import METRICS_FILE
from ropewalk.train.zero.checkpoint import load_trainable, use_checkpoint_writer
from ropewalk.train.zero.engine import Engine
from ropewalk.train.zero.flat_params import base_optimizer, flat_tensors
from ropewalk.train.zero.mesh import Mesh, any_rank, first_message


@dataclass
class TrainState:
    """A run's state besides weights and optimizer states; the same on every rank."""

    step: int = 0
    """Finished steps; the next step reads the batch of this number."""
    state: dict[str, Any] = field(default_factory=dict)
    """Plain values that later steps depend on."""
    loaded: str = ""
    """Name of the checkpoint that it was read from; empty at a fresh start."""


class Checkpointer:
    """Writes and reads `path/step-N`."""

    def __init__(
        self, engine: Engine, path: Path, train: TrainConfig, mesh: Mesh, content: object = None
    ) -> None:
        """`content`: JSON values; a checkpoint with other content is refused."""
        self.engine, self.path, self.train, self.mesh = engine, path, train, mesh
        self.content = content
        self.metrics_file = path.parent / METRICS_FILE
        """Each checkpoint has a copy: its lines cannot be computed again."""
        self.writer = AsyncWriter()
        use_checkpoint_writer(engine, self.writer)
        self.pending: dict[str, Any] | None = None
        """Metadata of the checkpoint that is being written."""
        self.publishing = False
        self.failed_saves = 0
        self.last_saved_step = -1
        """Step of the newest checkpoint that was published or loaded."""
        self.save_stall_s = 0.0
        """Seconds that the last save held the training."""

    # -- writing

    def save(self, train_state: TrainState) -> None:
        """Collective. Copy to host memory and start writing, once no other save is pending."""
        self.wait()
        name, started = storage.checkpoint_name(train_state.step), time.monotonic()
        temporary = self.path / f"{name}.tmp"
        if self.mesh.rank == 0:
            remove(temporary)
        self.engine.save_checkpoint(
            str(self.path),
            tag=temporary.name,
            client_state={"step": train_state.step},
            save_latest=False,
            exclude_frozen_parameters=True,
        )
        swapped = sorted(temporary.glob(f"offloaded_tensors/rank{self.mesh.rank}/**/*"))
        self.writer.adopt_files(temporary, swapped)
        has_states = self.mesh.rank == 0 or self.engine.zero_optimization()
        flats = flat_tensors(self.engine) if has_states else []
        if self.mesh.rank == 0 and self.metrics_file.is_file():
            lines = self.metrics_file.read_bytes()
            self.writer.save_bytes(lines, temporary / self.metrics_file.name)
        fragments = [flat.fragments for flat in flats]
        self.writer.write_file_list(temporary, self.mesh.rank, train_state.step, fragments)
        self.pending = self._metadata(train_state)
        self.save_stall_s = time.monotonic() - started
        if not self.train.checkpoint.async_write:
            self.wait()

    def _metadata(self, train_state: TrainState) -> dict[str, Any]:
        return {
            "schema": storage.SCHEMA,
            "step": train_state.step,
            "state": copy.deepcopy(train_state.state),
            "world_size": self.mesh.world_size,
            "sp_size": self.mesh.sp_size,
            "zero_stage": self.engine.zero_optimization_stage(),
            "optimizer": type(base_optimizer(self.engine)).__name__,
            "content": self.content,
        }

    def local_flags(self) -> tuple[bool, bool]:
        """This rank's arguments of `poll`, which are true if they are on any rank."""
        return self.writer.busy, self.writer.error is not None

    def poll(self, busy: bool, failed: bool) -> bool:
        """Collective. Act on the flags of the pending checkpoint; returns False if it was dropped.

        When every rank has written, rank 0's thread publishes it; when that is done too, it counts
        as saved.
        """
        if self.pending is None or busy:
            return True
        metadata = self.pending
        if failed:
            self._drop(metadata["step"])
            return False
        if self.publishing:
            self.pending, self.publishing = None, False
            self.last_saved_step = metadata["step"]
            return True
        self.publishing = True
        if self.mesh.rank == 0:
            self.writer.submit(lambda: self._publish(metadata))
        return True

    def _publish(self, metadata: dict[str, Any]) -> None:
        name, settings = storage.checkpoint_name(metadata["step"]), self.train.checkpoint
        storage.publish(self.path, name, metadata)
        try:
            storage.prune(self.path, name, settings.keep_last, settings.keep_every_steps)
        except OSError as error:
            # the new checkpoint is published all the same
            _warn(f"{name} is written; an older one could not be removed: {error}")

    def _drop(self, step: int) -> None:
        """Give up the pending checkpoint; a rank with an error prints it."""
        if error := self.writer.error:
            reason, way_out = repr(error), ""
            if isinstance(error, OSError):
                reason = str(error)
                way_out = "; make room, or set train.checkpoint.keep_last lower"
            _warn(
                f"rank {self.mesh.rank}: the checkpoint of step {step} could not be written: "
                f"{reason}; the one before it is kept{way_out}"
            )
        if self.mesh.rank == 0:
            temporary = self.path / f"{storage.checkpoint_name(step)}.tmp"
            remove(temporary)
        self.failed_saves += 1
        self.pending, self.publishing = None, False
        self.writer.error = None

    def wait(self) -> bool:
        """Collective. Wait until the pending checkpoint is published (True) or dropped (False)."""
        saved = True
        while self.pending is not None:
            self.writer.wait()
            saved = self.poll(*any_rank(*self.local_flags()))
        return saved

    def finish(self) -> None:
        """Collective. Wait for the last checkpoint. Raises: RopewalkError when it was dropped."""
        if not self.wait():
            raise RopewalkError(
                "the last checkpoint could not be written; a run that stops must leave one; "
                "make room and run again: the one before it is kept"
            )

    def save_final(self, train_state: TrainState) -> None:
        """Collective. Save after the last step, so that a failed export repeats no step.

        A full disk is only reported.
        """
        if self.train.checkpoint.interval_steps and self.last_saved_step != train_state.step:
            self.save(train_state)
            self.wait()

    # -- reading

    def load(self) -> TrainState:
        """Collective. Load the newest undamaged checkpoint; without one return a fresh state.

        Damaged checkpoints are reported and quarantined. Raises: ConfigError when the checkpoint
        has other content.
        """
        if self.mesh.rank == 0:
            storage.remove_unfinished(self.path)
        for name, metadata in self._checkpoints():
            if damage := self.verify(self.path / name, metadata):
                log.info(f"checkpoint {name}: {damage}; loading the one before it")
                continue
            storage.refuse_other_content(name, metadata["content"], self.content)
            self._read(name, metadata)
            self._quarantine(name)
            self._restore_metrics(name)
            self.last_saved_step = metadata["step"]
            return TrainState(metadata["step"], metadata["state"], name)
        if any(any_rank(any(self.path.glob(storage.NAME_PATTERN)))):
            log.info("no checkpoint is undamaged; training starts anew")
            self._quarantine("")
        return TrainState()

    def _restore_metrics(self, name: str) -> None:
        """Rank 0: go back to the lines of the checkpoint, and say so if they were damaged."""
        saved = self.path / name / self.metrics_file.name
        if self.mesh.rank != 0 or not saved.is_file():
            return
        lines, current = saved.read_bytes(), b""
        if self.metrics_file.is_file():
            current = self.metrics_file.read_bytes()
        if not current.startswith(lines):
            log.info(f"{self.metrics_file} lacks lines of checkpoint {name}; restored from it")
        if current != lines:
            write_text(self.metrics_file, lines.decode())

    def _checkpoints(self) -> list[tuple[str, dict[str, Any]]]:
        """Collective. Name and metadata of the checkpoints that rank 0 sees, newest first."""
        checkpoints = [storage.list_checkpoints(self.path)]
        dist.broadcast_object_list(checkpoints, src=0, device=self.engine.device)
        return checkpoints[0]

    def _quarantine(self, newest_good: str) -> None:
        """Collective. Rename damaged checkpoints of later steps, or pruning would keep them in
        place of good ones."""
        if self.mesh.rank == 0 and (names := storage.quarantine(self.path, newest_good)):
            log.info(
                f"renamed damaged checkpoints: {', '.join(names)}; they are removed when a "
                "checkpoint of their step or a later one is published"
            )
        dist.barrier()

    def verify(self, path: Path, metadata: dict[str, Any]) -> str:
        """Collective. Every rank hashes its share of the files.

        Returns the first problem, or an empty string.
        """
        files = metadata["files"]
        return first_message(storage.find_damage(path, files, self.mesh.rank, self.mesh.world_size))

    def _read(self, name: str, metadata: dict[str, Any]) -> None:
        if self._has_same_layout(name, metadata):
            self.engine.load_checkpoint(str(self.path), tag=name, custom_load_fn=load_trainable)
            return
        reshard.load(self.engine, self.path / name, metadata)
        self.engine.global_steps = metadata["step"]
        self.engine.global_samples = metadata["step"] * self.engine.train_batch_size()

    def _has_same_layout(self, name: str, metadata: dict[str, Any]) -> bool:
        """Collective. Whether DeepSpeed can load it: same ranks, stage and optimizer, and every
        parameter in the same place."""
        zero_stage = self.engine.zero_optimization_stage()
        optimizer = type(base_optimizer(self.engine)).__name__
        saved = metadata["world_size"], metadata["zero_stage"], metadata.get("optimizer", optimizer)
        if saved != (self.mesh.world_size, zero_stage, optimizer):
            return False
        file_list = read_json(self.path / name / f"rank-{self.mesh.rank}.json")
        flats = [[list(fragment) for fragment in f.fragments] for f in flat_tensors(self.engine)]
        return zero_stage == 0 or not any(any_rank(file_list["flats"] != flats))


def _warn(message: str) -> None:
    print(message, file=sys.stderr, flush=True)
