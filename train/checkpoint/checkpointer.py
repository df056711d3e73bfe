"""A run's checkpoints as the loop uses them. What says "every rank" is called by all of them in the same step."""

import copy
import shutil
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

from ropewalk.conf.errors import RopewalkError
from ropewalk.conf.log import log
from ropewalk.conf.train import TrainConfig
from ropewalk.train.checkpoint import reshard, storage
from ropewalk.train.checkpoint.async_writer import AsyncWriter
from ropewalk.train.checkpoint.trainable_only import load_trainable, trainable_names
from ropewalk.train.zero.checkpoint import use_checkpoint_writer
from ropewalk.train.zero.engine import Engine
from ropewalk.train.zero.flat_params import base_optimizer, flat_tensors
from ropewalk.train.zero.mesh import Mesh


@dataclass
class TrainState:
    """What a run is beside its weights and optimizer states; the same on every rank."""

    step: int = 0
    """Steps that are done; the next one reads the batch of this number."""
    state: dict[str, Any] = field(default_factory=dict)
    """Whatever else later steps depend on, in plain values."""
    loaded: str = ""
    """The checkpoint that it was read from; empty at a start from nothing."""


class Checkpointer:
    """Writes and reads `folder/step-N`. `content`: the plain values that decide what is trained; a checkpoint of others is refused."""

    def __init__(
        self, engine: Engine, path: Path, train: TrainConfig, mesh: Mesh, content: Any = None
    ) -> None:
        self.engine, self.path, self.train, self.mesh, self.content = (
            engine,
            path,
            train,
            mesh,
            content,
        )
        self.writer = AsyncWriter()
        use_checkpoint_writer(engine, self.writer, trainable_names)
        self.pending: dict[str, Any] | None = None
        self.publishing = False
        self.failed_saves = 0
        self.last_saved_step = -1
        """The step of the last one that was published or loaded."""

    # -- writing -------------------------------------------------------------------------------------------------------

    def save(self, progress: TrainState) -> None:
        """Copy to host memory and begin to write; every rank. One that is still being written is waited for."""
        self.wait()
        name, started = storage.checkpoint_name(progress.step), time.monotonic()
        if self.mesh.rank == 0:
            shutil.rmtree(self.path / f"{name}.tmp", ignore_errors=True)
        self.engine.save_checkpoint(
            str(self.path),
            tag=f"{name}.tmp",
            client_state={"step": progress.step},
            save_latest=False,
            exclude_frozen_parameters=True,
        )
        mine = (
            flat_tensors(self.engine)
            if self.mesh.rank == 0 or self.engine.zero_optimization()
            else []
        )
        at = self.path / f"{name}.tmp"
        self.writer.adopt_files(at, sorted(at.glob(f"offloaded_tensors/rank{self.mesh.rank}/**/*")))
        self.writer.write_file_list(at, self.mesh.rank, [flat.fragments for flat in mine])
        self.pending = self._facts(progress)
        self.save_stall_s = time.monotonic() - started
        if not self.train.checkpoint.async_write:
            self.wait()

    def _facts(self, progress: TrainState) -> dict[str, Any]:
        mesh = {"world_size": self.mesh.world_size, "sp_size": self.mesh.sp_size}
        stage = {
            "zero_stage": self.engine.zero_optimization_stage(),
            "optimizer": type(base_optimizer(self.engine)).__name__,
        }
        now = {"step": progress.step, "state": copy.deepcopy(progress.state)}
        return {"schema": 1, **now, **mesh, **stage, "content": self.content}

    def local_flags(self) -> list[float]:
        """This rank's part of what the loop reduces once a step by the largest: still at work, failed."""
        return [float(self.writer.busy), float(self.writer.error is not None)]

    def poll(self, busy: bool, failed: bool) -> bool:
        """What all ranks' flags say of the checkpoint being written; every rank. False when it is given up, which is said.

        When all are done, rank 0's thread publishes it; when that is done too, it stands.
        """
        if self.pending is None or busy:
            return True
        if failed:
            self._give_up(self.pending["step"])
            return False
        facts, self.pending = self.pending, None if self.publishing else self.pending
        self.last_saved_step = facts["step"] if self.pending is None else self.last_saved_step
        self.publishing = self.pending is not None
        if self.publishing and self.mesh.rank == 0:
            self.writer.submit(lambda: self._publish(facts))
        return True

    def _publish(self, facts: dict[str, Any]) -> None:
        storage.publish(self.path, storage.checkpoint_name(facts["step"]), facts)
        name = storage.checkpoint_name(facts["step"])
        try:
            storage.prune(
                self.path,
                name,
                self.train.checkpoint.keep_last,
                self.train.checkpoint.keep_every_steps,
            )
        except OSError as error:
            # it stands all the same
            print(
                f"{name} is written; an older one could not be removed: {error}",
                file=sys.stderr,
                flush=True,
            )

    def _give_up(self, step: int) -> None:
        if self.writer.error is not None:
            error = self.writer.error
            disk = isinstance(error, OSError)
            print(
                f"rank {self.mesh.rank}: the checkpoint of step {step} could not be written: {error if disk else repr(error)}; "
                "the one before it stands"
                + ("; make room, or set train.checkpoint.keep_last lower" if disk else ""),
                file=sys.stderr,
                flush=True,
            )
        if self.mesh.rank == 0:
            shutil.rmtree(self.path / f"{storage.checkpoint_name(step)}.tmp", ignore_errors=True)
        self.failed_saves, self.pending, self.publishing, self.writer.error = (
            self.failed_saves + 1,
            None,
            False,
            None,
        )

    def wait(self) -> bool:
        """Until what was begun is published or given up; every rank. False when it was given up."""
        good = True
        while self.pending is not None:
            self.writer.wait()
            good = self.poll(False, self._any(self.writer.error is not None))
        return good

    def finish(self) -> None:
        """The last one must stand; every rank. Raises: RopewalkError."""
        if not self.wait():
            raise RopewalkError(
                "the last checkpoint could not be written; a run that stops must leave one; make room and run again: the one before stands"
            )

    def save_final(self, progress: TrainState) -> None:
        """After the last step, so that a failing export costs no step; every rank. One that finds no room is only said."""
        if self.train.checkpoint.interval_steps and self.last_saved_step != progress.step:
            self.save(progress)
            self.wait()

    def _any(self, mine: bool) -> bool:
        flag = torch.tensor([float(mine)], device=self.engine.device)
        dist.all_reduce(flag, op=dist.ReduceOp.MAX)
        return bool(flag.item())

    # -- reading -------------------------------------------------------------------------------------------------------

    def load(self) -> TrainState:
        """Load the newest one that is whole; every rank. Without one the run starts anew, and says so where some lie there torn.

        Raises: ConfigError when it was made of something else.
        """
        if self.mesh.rank == 0:
            storage.remove_unfinished(self.path)
        names = self._same([storage.list_checkpoints(self.path)])[0]
        for name, facts in names:
            if trouble := self.verify(self.path / name, facts):
                log.info(f"checkpoint {name}: {trouble}; the one before it is taken")
                continue
            storage.refuse_other_content(name, facts["content"], self.content)
            self._read(name, facts)
            self._quarantine(name)
            self.last_saved_step = facts["step"]
            return TrainState(facts["step"], facts["state"], name)
        if self._any(any(self.path.glob(storage.NAME_PATTERN))):
            log.info("no checkpoint is whole; training starts anew")
            self._quarantine("")
        return TrainState()

    def _quarantine(self, after: str) -> None:
        """Torn ones of later steps would be counted as kept, and the whole ones removed for them."""
        if self.mesh.rank == 0 and (aside := storage.quarantine(self.path, after)):
            log.info(
                f"set aside: {', '.join(aside)}; removed when a whole one of as late a step stands"
            )
        dist.barrier()

    def verify(self, path: Path, facts: dict[str, Any]) -> str:
        """Every rank hashes its share of the files; what the first one with trouble says."""
        said: list[Any] = [None] * self.mesh.world_size
        mine = storage.find_damage(path, facts["files"], self.mesh.rank, self.mesh.world_size)
        dist.all_gather_object(said, mine)
        return next((trouble for trouble in said if trouble), "")

    def _read(self, name: str, facts: dict[str, Any]) -> None:
        if self._is_ours(name, facts):
            self.engine.load_checkpoint(str(self.path), tag=name, custom_load_fn=load_trainable)
            return
        reshard.load(
            self.engine,
            self.path / name,
            facts["world_size"],
            facts["zero_stage"],
            self.writer.load,
        )
        self.engine.global_steps = facts["step"]
        self.engine.global_samples = facts["step"] * self.engine.train_batch_size()

    def _is_ours(self, name: str, facts: dict[str, Any]) -> bool:
        """Whether DeepSpeed itself can load it: as many ranks, the same stage and optimizer, each parameter where it was on every rank."""
        now = (
            self.mesh.world_size,
            self.engine.zero_optimization_stage(),
            type(base_optimizer(self.engine)).__name__,
        )
        if (facts["world_size"], facts["zero_stage"], facts.get("optimizer", now[2])) != now:
            return False
        said = storage.read_json(self.path / name / f"rank-{self.mesh.rank}.json")["flats"]
        mine = [[list(piece) for piece in flat.fragments] for flat in flat_tensors(self.engine)]
        return now[1] == 0 or not self._any(said != mine)

    def _same(self, value: list[Any]) -> list[Any]:
        """Rank 0's, on every rank."""
        dist.broadcast_object_list(value, src=0, device=self.engine.device)
        return value
