"""Runs of the real loop on a tiny model, for the tests of checkpoints, deaths and faults."""

import json
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from models import documents, tiny_model
from parity_work import in_pieces
from plans import packed, written

from ropewalk.conf.errors import ConfigError, Stopped
from ropewalk.conf.log import log
from ropewalk.conf.schema import Config
from ropewalk.data.dataset import BatchLoader, DataArtifacts
from ropewalk.train import attention
from ropewalk.train.attention import ulysses
from ropewalk.train.checkpoint import async_writer, reshard, storage
from ropewalk.train.checkpoint.checkpointer import Checkpointer, TrainState
from ropewalk.train.launcher.stop import StopSignal
from ropewalk.train.loop.trainer import Trainer
from ropewalk.train.loop.validation import Validation
from ropewalk.train.metrics import StepMetrics
from ropewalk.train.model import save
from ropewalk.train.zero import engine
from ropewalk.train.zero.batch import accumulation_steps
from ropewalk.train.zero.flat_params import flat_tensors, optimizer_keys, optimizer_states
from ropewalk.train.zero.mesh import Mesh

SEQ_LEN = 64
LENGTHS = [50, 3, 17, 100, 9, 30, 5, 1, 21, 33, 12, 64, 40, 40, 22, 10, 70, 15, 28, 36]


def plan(path: Path) -> DataArtifacts:
    """Made once, by the test; the ranks read it."""
    return written(path, documents(LENGTHS), packed(LENGTHS, SEQ_LEN), seq_len=SEQ_LEN)


@dataclass
class Work:
    """What one rank is given: a run folder, its settings, and what shall go wrong."""

    folder: Path
    config: Config
    data: DataArtifacts
    content: Any = None
    death: tuple[int, str, int] | None = None
    """rank, moment, and at which of these moments"""
    trouble: Callable[["Work", Any], None] | None = None
    """a function of a module, called with the engine before the first step"""
    more: dict[str, Any] = field(default_factory=dict)


@dataclass
class Run:
    engine: Any
    checkpoints: Checkpointer
    feed: BatchLoader
    mesh: Mesh


def start(work: Work) -> Run:
    """A rank's engine and feed, as train.rank makes them."""
    config, mesh = work.config, Mesh.of(work.config.train.sp_size)
    model = tiny_model()
    model.set_attn_implementation(
        attention.register("sdpa", ulysses.kernel_wrapper(model.config, mesh))
    )
    accumulated = accumulation_steps(config, mesh.dp_size)
    with in_pieces():
        live = engine.build_engine(model, config, accumulated, mesh)
    feed = BatchLoader(
        work.data.sequences(),
        mesh,
        seed=config.seed,
        micro_batch_size=1,
        batch_ramp=[(0, accumulated)],
    )
    return Run(
        live,
        Checkpointer(live, work.folder / "checkpoints", config.train, mesh, work.content),
        feed,
        mesh,
    )


def trained(work: Work) -> dict[str, Any]:
    """The loop to its end; losses and batches of all steps, whole weights (rank 0), and where it began."""
    run = start(work)
    progress = run.checkpoints.load()
    began = progress.step
    if work.death is not None and work.death[0] == run.mesh.rank:
        arm(run.engine, *work.death[1:])
    if work.trouble is not None:
        work.trouble(work, run.engine)
    trainer(run, work, progress).train()
    return {
        "began": began,
        "failed": run.checkpoints.failed_saves,
        "weights": weights(run.engine),
        **told(work.folder),
    }


def trainer(run: Run, work: Work, state: TrainState) -> Trainer:
    engine, config, mesh = run.engine, work.config, run.mesh
    return Trainer(
        engine,
        config,
        run.feed,
        mesh,
        work.folder,
        run.checkpoints,
        state,
        StepMetrics(engine, config, mesh),
        work.more.get("validation") or Validation(engine, [], config, mesh),
    )


@dataclass
class LongValidation:
    """After the last of five steps: `windows`, half a second each."""

    windows: int
    windows_measured: int = 0

    def __call__(self, step: int) -> dict[str, Any]:
        for _ in range(self.windows if step == 5 else 0):
            time.sleep(0.5)
            self.windows_measured += 1
        return {"validation": {"nll": float(self.windows_measured)}} if step == 5 else {}


def ended(work: Work) -> dict[str, Any]:
    """To the end, and what is saved then."""
    run = start(work)
    progress = run.checkpoints.load()
    began = progress.step
    if work.trouble is not None:
        work.trouble(work, run.engine)
    trainer(run, work, progress).train()
    run.checkpoints.save_final(progress)
    return {
        "began": began,
        "failed": run.checkpoints.failed_saves,
        "weights": weights(run.engine),
        **told(work.folder),
    }


def told(folder: Path) -> dict[str, Any]:
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    rows = [line for line in lines if "event" not in line]
    return {
        "steps": [row["step"] for row in rows],
        "losses": [row["loss"] for row in rows],
        "sequences": [row["sequences"] for row in rows],
        "events": [line for line in lines if "event" in line],
    }


def weights(live: Any) -> dict[str, np.ndarray]:
    return {
        name: t.float().numpy()
        for name, t in save.gather_full_state_dict(live.module.named_parameters()).items()
    }


def loaded(work: Work) -> dict[str, Any]:
    """What lies in the weights and optimizer after a load, before any step: whole, by name, gathered by plain exchange."""
    run, said = start(work), []
    log.info = said.append  # type: ignore[method-assign,assignment]
    progress = run.checkpoints.load()
    return {
        "step": progress.step,
        "said": said,
        "weights": weights(run.engine),
        "states": whole_states(run.engine),
    }


def whole_states(live: Any) -> dict[str, dict[str, np.ndarray]]:
    """Every fp32 weight and optimizer state put together from all ranks' pieces."""
    mine = []
    for flat, key in zip(flat_tensors(live), optimizer_keys(live), strict=True):
        held = {"fp32": flat.tensor, **optimizer_states(live).get(key, {})}
        for piece in flat.fragments:
            for name, value in held.items():
                part = (
                    value.reshape(-1)[piece.offset : piece.offset + piece.numel]
                    if value.dim()
                    else value
                )
                mine.append((piece.name, name, piece.start, part.detach().clone().numpy()))
    everyone: list[Any] = [None] * torch.distributed.get_world_size()
    torch.distributed.all_gather_object(everyone, mine)
    sizes = {name: getattr(p, "ds_numel", p.numel()) for name, p in live.module.named_parameters()}
    found: dict[str, dict[str, np.ndarray]] = {}
    for name, key, begin, part in (piece for rank in everyone for piece in rank):
        if part.ndim == 0:
            found.setdefault(key, {})[name] = part
            continue
        full = found.setdefault(key, {}).setdefault(name, np.full(sizes[name], np.nan, part.dtype))
        full[begin : begin + len(part)] = part
    return found


# -- a bad batch -------------------------------------------------------------------------------------------------------


def spoil(work: Work, live: Any) -> None:
    """The loss of one sequence is `work.more["times"]` what it is, and the weights are looked at before and after each step."""
    bad = torch.from_numpy(work.data.sequences().read(work.more["bad"]).input_ids)
    forward, seen = live.module.forward, work.more.setdefault("seen", [])

    def instead(input_ids: torch.Tensor, **given: Any) -> torch.Tensor:
        times = work.more["times"] if torch.equal(input_ids[0].cpu(), bad) else 1.0
        found = forward(input_ids=input_ids, **given) * times
        live.module.cross_entropy *= times
        return found

    live.module.forward = instead
    seen.append(whole_states(live))
    _before(StopSignal, "__call__", lambda *_: seen.append(whole_states(live)))


def spoiled(work: Work) -> dict[str, Any]:
    found = trained(work)
    return {**found, "seen": work.more["seen"]}


# -- deaths ------------------------------------------------------------------------------------------------------------


def die(*_: Any, **__: Any) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def arm(live: Any, moment: str, number: int) -> None:
    """SIGKILL of this rank at the `number`-th (from 1) of its moments of a kind."""
    left = [number]

    def now(*_: Any, **__: Any) -> None:
        left[0] -= 1
        if left[0] == 0:
            die()

    if moment == "time":
        threading.Timer(number / 1000, die).start()
    elif moment == "forward":
        live.module.model.model.layers[1].register_forward_pre_hook(now)
    elif moment == "backward":
        live.module.model.get_input_embeddings().weight.register_hook(now)
    elif moment == "between":
        _before(StopSignal, "__call__", now)
    elif moment == "copying":
        _before(async_writer.PinnedBuffers, "copy", now)
    elif moment == "writing":
        _halfway(now)
    elif moment == "listing":
        _before(async_writer, "write_json", now)
    elif moment == "publishing":
        _before(storage, "publish", now)
    elif moment == "completing":
        _before(storage, "write_json", now)
    elif moment == "renaming":
        _before(storage.os, "replace", now)
    elif moment == "renamed":
        _before(storage, "_point", now)
    elif moment == "pruning":
        _before(storage, "prune", now)
    else:
        raise ValueError(moment)


# -- other troubles ----------------------------------------------------------------------------------------------------


def at_step(live: Any, step: int, now: Callable[[], None]) -> None:
    """In the first forward pass of a step, from 1."""
    left = [live.gradient_accumulation_steps() * (step - 1) + 1]

    def hook(*_: Any) -> None:
        left[0] -= 1
        if left[0] == 0:
            now()

    live.module.model.model.layers[0].register_forward_pre_hook(hook)


def terminate(_: Work, live: Any) -> None:
    if torch.distributed.get_rank() == 1:
        at_step(live, 3, lambda: os.kill(os.getpid(), signal.SIGTERM))


def stopped(work: Work) -> int:
    try:
        trained(work)
    except Stopped as end:
        return end.exit_code
    return 0


def until(work: Work) -> int:
    """Stopped in good order after so many steps of this run."""
    left, whole = [work.more["until"]], StopSignal.__call__

    def instead(self: StopSignal, *flags: float) -> list[bool]:
        left[0] -= 1
        self.requested = self.requested or left[0] == 0
        return whole(self, *flags)

    StopSignal.__call__ = instead  # type: ignore[method-assign]
    return stopped(work)


def lacking(work: Work) -> None:
    """A parameter's pieces are left out of every list."""
    whole = reshard._of_rank
    reshard._of_rank = lambda *at: [s for s in whole(*at) if "layers.1.mlp" not in s.piece.name]
    start(work).checkpoints.load()


def lacking_on_one(work: Work) -> str:
    """As `lacking`, but only what rank 1 reads; what a rank then says."""
    try:
        lacking(work) if torch.distributed.get_rank() == 1 else start(work).checkpoints.load()
    except ConfigError as error:
        return str(error)
    return ""


def fill_disk(_: Work, live: Any, first: int = 2) -> None:
    """From the `first` checkpoint on, what rank 1 writes goes to a device without room."""
    whole, number = async_writer.write_file, [0]

    def instead(path: Path, value: Any) -> Any:
        number[0] += 1
        if torch.distributed.get_rank() == 1 and number[0] == first:
            path = Path("/dev/full")
        return whole(path, value)

    async_writer.write_file = instead


def fail_memory(_: Work, live: Any) -> None:
    """Rank 1's second checkpoint finds no memory."""
    whole, number = async_writer.write_file, [0]

    def instead(path: Path, value: Any) -> Any:
        number[0] += 1
        if torch.distributed.get_rank() == 1 and number[0] == 2:
            raise MemoryError("none left")
        return whole(path, value)

    async_writer.write_file = instead


def fail_prune(_: Work, live: Any) -> None:
    """Nothing that stands can be removed."""
    remove = storage.shutil.rmtree

    def instead(path: Path, **words: Any) -> None:
        if path.name == "step-00000002" and not words:
            raise OSError("busy")
        remove(path, **words)

    storage.shutil.rmtree = instead  # type: ignore[assignment]


def fill_disk_at_the_end(work: Work, live: Any) -> None:
    fill_disk(work, live, first=3)


def fill_disk_and_terminate(work: Work, live: Any) -> None:
    """The first checkpoint stands, that of the stop does not."""
    fill_disk(work, live)
    terminate(work, live)


def freeze(work: Work, live: Any) -> None:
    if torch.distributed.get_rank() == 1:
        at_step(live, 3, lambda: os.kill(os.getpid(), signal.SIGSTOP))


def watched(work: Work) -> dict[str, Any]:
    """`trained`, with what it says to stderr in a file."""
    rank = torch.distributed.get_rank()
    sys.stderr = (work.folder / f"stderr-{rank}").open("w", buffering=1)
    return trained(work)


def _before(where: Any, name: str, now: Callable[..., None]) -> None:
    whole = getattr(where, name)

    def instead(*given: Any, **named: Any) -> Any:
        now()
        return whole(*given, **named)

    setattr(where, name, instead)


def _halfway(now: Callable[..., None]) -> None:
    """Some bytes of the file are there."""
    whole = async_writer.write_file

    def instead(path: Path, value: Any) -> Any:
        path.write_bytes(b"half of it")
        now()
        return whole(path, value)

    async_writer.write_file = instead
