"""Runs of the real trainer on a tiny model, for the tests of checkpoints, deaths and bad
batches."""

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
import torch.distributed as dist
from models import documents, tiny_model
from parity_ranks import partition_small_params
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
from ropewalk.train.zero.config import accumulation_steps
from ropewalk.train.zero.engine import Engine, build_engine
from ropewalk.train.zero.flat_params import flat_tensors, optimizer_keys, optimizer_states
from ropewalk.train.zero.mesh import Mesh

SEQ_LEN = 64
LENGTHS = [50, 3, 17, 100, 9, 30, 5, 1, 21, 33, 12, 64, 40, 40, 22, 10, 70, 15, 28, 36]


def make_data(path: Path) -> DataArtifacts:
    """Written once, by the test; the ranks read it."""
    return written(path, documents(LENGTHS), packed(LENGTHS, SEQ_LEN), seq_len=SEQ_LEN)


@dataclass
class RunSpec:
    """The arguments of a rank: a run folder, its settings, and what goes wrong."""

    folder: Path
    config: Config
    data: DataArtifacts
    content: Any = None
    death: tuple[int, str, int] | None = None
    """Rank, kind of moment, and the number of the moment at which it is killed (see `arm`)."""
    sabotage: Callable[["RunSpec", Engine], None] | None = None
    """A module-level function, called before the first step."""
    options: dict[str, Any] = field(default_factory=dict)


@dataclass
class Run:
    engine: Engine
    checkpoints: Checkpointer
    loader: BatchLoader
    mesh: Mesh


def start(spec: RunSpec) -> Run:
    """A rank's engine, checkpointer and loader, as `train.worker` builds them."""
    config, mesh = spec.config, Mesh.of(spec.config.train.sp_size)
    model = tiny_model()
    model.set_attn_implementation(
        attention.register("sdpa", ulysses.kernel_wrapper(model.config, mesh))
    )
    accumulated = accumulation_steps(config, mesh.dp_size)
    with partition_small_params():
        engine = build_engine(model, config, accumulated, mesh)
    loader = BatchLoader(
        spec.data.sequences(),
        mesh,
        seed=config.seed,
        micro_batch_size=1,
        batch_ramp=[(0, accumulated)],
    )
    checkpoints = Checkpointer(
        engine, spec.folder / "checkpoints", config.train, mesh, spec.content
    )
    return Run(engine, checkpoints, loader, mesh)


def train(spec: RunSpec, *, save_final: bool = False) -> dict[str, Any]:
    """Train to the end; losses and batches of all steps, full weights (rank 0), and the first
    step."""
    run = start(spec)
    train_state = run.checkpoints.load()
    first_step = train_state.step
    if spec.death is not None and spec.death[0] == run.mesh.rank:
        arm(run.engine, *spec.death[1:])
    if spec.sabotage is not None:
        spec.sabotage(spec, run.engine)
    build_trainer(run, spec, train_state).train()
    if save_final:
        run.checkpoints.save_final(train_state)
    return {
        "first_step": first_step,
        "failed_saves": run.checkpoints.failed_saves,
        "weights": full_weights(run.engine),
        **read_lines(spec.folder),
    }


def build_trainer(run: Run, spec: RunSpec, train_state: TrainState) -> Trainer:
    engine, config, mesh = run.engine, spec.config, run.mesh
    return Trainer(
        engine,
        config,
        run.loader,
        mesh,
        spec.folder,
        run.checkpoints,
        train_state,
        StepMetrics(engine, config, mesh),
        spec.options.get("validation") or Validation(engine, [], config, mesh),
    )


def train_and_save_final(spec: RunSpec) -> dict[str, Any]:
    return train(spec, save_final=True)


@dataclass
class SlowValidation:
    """After the last of five steps: `windows`, half a second each."""

    windows: int
    windows_measured: int = 0

    def __call__(self, step: int) -> dict[str, Any]:
        if step != 5:
            return {}
        for _ in range(self.windows):
            time.sleep(0.5)
            self.windows_measured += 1
        return {"validation": {"nll": float(self.windows_measured)}}


def read_lines(folder: Path) -> dict[str, Any]:
    """Steps, losses and sequences of the applied steps, and the lines of the others."""
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    rows = [line for line in lines if "event" not in line]
    return {
        "steps": [row["step"] for row in rows],
        "losses": [row["loss"] for row in rows],
        "sequences": [row["sequences"] for row in rows],
        "events": [line for line in lines if "event" in line],
    }


def full_weights(engine: Engine) -> dict[str, np.ndarray]:
    state_dict = save.gather_full_state_dict(engine.module.named_parameters())
    return {name: tensor.float().numpy() for name, tensor in state_dict.items()}


def load(spec: RunSpec) -> dict[str, Any]:
    """Full weights and optimizer states after a load, before any step, and what was printed."""
    run, messages = start(spec), []
    log.info = messages.append  # type: ignore[method-assign,assignment]
    train_state = run.checkpoints.load()
    return {
        "step": train_state.step,
        "messages": messages,
        "weights": full_weights(run.engine),
        "states": full_states(run.engine),
    }


def full_states(engine: Engine) -> dict[str, dict[str, np.ndarray]]:
    """Every fp32 weight and optimizer state, put together from all ranks' fragments."""
    local = []
    for flat, key in zip(flat_tensors(engine), optimizer_keys(engine), strict=True):
        tensors = {"fp32": flat.tensor, **optimizer_states(engine).get(key, {})}
        for fragment in flat.fragments:
            for name, value in tensors.items():
                if value.dim():
                    value = value.reshape(-1)[fragment.offset : fragment.offset + fragment.numel]
                values = value.detach().clone().numpy()
                local.append((fragment.name, name, fragment.start, values))
    by_rank: list[Any] = [None] * dist.get_world_size()
    dist.all_gather_object(by_rank, local)
    parameters = engine.module.named_parameters()
    sizes = {name: getattr(p, "ds_numel", p.numel()) for name, p in parameters}
    states: dict[str, dict[str, np.ndarray]] = {}
    for name, key, begin, values in (fragment for rank in by_rank for fragment in rank):
        tensors = states.setdefault(key, {})
        if values.ndim == 0:
            tensors[name] = values
            continue
        full = tensors.setdefault(name, np.full(sizes[name], np.nan, values.dtype))
        full[begin : begin + len(values)] = values
    return states


# -- a bad batch ---------------------------------------------------------------------------------


def spoil_batch(spec: RunSpec, engine: Engine) -> None:
    """Multiply one sequence's loss by `options["times"]`; record the states before and after each
    step."""
    bad = torch.from_numpy(spec.data.sequences().read(spec.options["bad"]).input_ids)
    forward, states = engine.module.forward, spec.options.setdefault("states", [])

    def spoiled_forward(input_ids: torch.Tensor, **kwargs: Any) -> torch.Tensor:
        times = spec.options["times"] if torch.equal(input_ids[0].cpu(), bad) else 1.0
        loss = forward(input_ids=input_ids, **kwargs) * times
        engine.module.cross_entropy *= times
        return loss

    engine.module.forward = spoiled_forward  # type: ignore[method-assign]
    states.append(full_states(engine))
    call_before(StopSignal, "__call__", lambda *_: states.append(full_states(engine)))


def train_spoiled(spec: RunSpec) -> dict[str, Any]:
    result = train(spec)
    return {**result, "states": spec.options["states"]}


# -- deaths --------------------------------------------------------------------------------------


def die(*_: Any, **__: Any) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def at_call(number: int, action: Callable[[], None]) -> Callable[..., None]:
    """A hook that runs `action` at its `number`-th call, from 1."""
    calls = 0

    def hook(*_: Any, **__: Any) -> None:
        nonlocal calls
        calls += 1
        if calls == number:
            action()

    return hook


PATCHED: dict[str, tuple[Any, str]] = {
    "between": (StopSignal, "__call__"),
    "copying": (async_writer.PinnedBuffers, "copy"),
    "listing": (async_writer, "write_json"),
    "publishing": (storage, "publish"),
    "completing": (storage, "write_json"),
    "renaming": (storage.os, "replace"),
    "renamed": (storage, "_point"),
    "pruning": (storage, "prune"),
}
"""Moments that are calls: the killing comes before the call."""


def arm(engine: Engine, moment: str, number: int) -> None:
    """SIGKILL this rank at the `number`-th (from 1) of its moments of a kind."""
    hook = at_call(number, die)
    model: Any = engine.module.model
    if moment == "time":
        threading.Timer(number / 1000, die).start()
    elif moment == "forward":
        model.model.layers[1].register_forward_pre_hook(hook)
    elif moment == "backward":
        model.get_input_embeddings().weight.register_hook(hook)
    elif moment == "writing":
        die_halfway(hook)
    else:
        call_before(*PATCHED[moment], hook)


def call_before(owner: Any, name: str, hook: Callable[..., None]) -> None:
    """Let every call of `owner.name` call `hook` first."""
    original = getattr(owner, name)

    def patched(*args: Any, **kwargs: Any) -> Any:
        hook()
        return original(*args, **kwargs)

    setattr(owner, name, patched)


def die_halfway(hook: Callable[..., None]) -> None:
    """Call `hook` when a file has some of its bytes."""
    write_file = async_writer.write_file

    def patched(path: Path, value: Any) -> dict[str, Any]:
        path.write_bytes(b"half of it")
        hook()
        return write_file(path, value)

    async_writer.write_file = patched


# -- other failures ------------------------------------------------------------------------------


def at_step(engine: Any, step: int, action: Callable[[], None]) -> None:
    """Run `action` in the first forward pass of a step, from 1."""
    number = engine.gradient_accumulation_steps() * (step - 1) + 1
    engine.module.model.model.layers[0].register_forward_pre_hook(at_call(number, action))


def terminate(_: RunSpec, engine: Engine) -> None:
    if dist.get_rank() == 1:
        at_step(engine, 3, lambda: os.kill(os.getpid(), signal.SIGTERM))


def freeze(_: RunSpec, engine: Engine) -> None:
    if dist.get_rank() == 1:
        at_step(engine, 3, lambda: os.kill(os.getpid(), signal.SIGSTOP))


def exit_code(spec: RunSpec) -> int:
    try:
        train(spec)
    except Stopped as stop:
        return stop.exit_code
    return 0


def train_until(spec: RunSpec) -> int:
    """Stopped in good order after `options["until"]` steps of this run."""
    remaining, original = [spec.options["until"]], StopSignal.__call__

    def patched(self: StopSignal, *flags: float) -> list[bool]:
        remaining[0] -= 1
        self.requested = self.requested or remaining[0] == 0
        return original(self, *flags)

    StopSignal.__call__ = patched  # type: ignore[method-assign]
    return exit_code(spec)


def load_incomplete(spec: RunSpec) -> None:
    """Load while a parameter's fragments are missing from every list."""
    original = reshard._saved_by
    reshard._saved_by = lambda *args: [
        saved for saved in original(*args) if "layers.1.mlp" not in saved.fragment.name
    ]
    start(spec).checkpoints.load()


def load_incomplete_on_one_rank(spec: RunSpec) -> str:
    """As `load_incomplete`, but only on rank 1; returns each rank's error."""
    try:
        if dist.get_rank() == 1:
            load_incomplete(spec)
        else:
            start(spec).checkpoints.load()
    except ConfigError as error:
        return str(error)
    return ""


def fail_write(number: int, path: Path | None, error: Exception | None = None) -> None:
    """Rank 1's `number`-th file goes to `path`, or its writing raises `error`."""
    write_file, calls = async_writer.write_file, [0]

    def patched(target: Path, value: Any) -> dict[str, Any]:
        calls[0] += 1
        fails = dist.get_rank() == 1 and calls[0] == number
        if fails and error is not None:
            raise error
        return write_file(path if fails and path is not None else target, value)

    async_writer.write_file = patched


def fill_disk(_: RunSpec, engine: Engine) -> None:
    """Rank 1's second checkpoint goes to a device without room."""
    fail_write(2, Path("/dev/full"))


def fill_disk_at_the_end(_: RunSpec, engine: Engine) -> None:
    fail_write(3, Path("/dev/full"))


def fail_memory(_: RunSpec, engine: Engine) -> None:
    """Rank 1's second checkpoint gets no memory."""
    fail_write(2, None, MemoryError("none left"))


def fill_disk_and_terminate(spec: RunSpec, engine: Engine) -> None:
    """The first checkpoint is published, that of the stop is not."""
    fill_disk(spec, engine)
    terminate(spec, engine)


def fail_prune(_: RunSpec, engine: Engine) -> None:
    """No published checkpoint can be removed."""
    rmtree: Callable[..., None] = storage.shutil.rmtree

    def patched(path: Path, **kwargs: Any) -> None:
        if path.name == "step-00000002" and not kwargs:
            raise OSError("busy")
        rmtree(path, **kwargs)

    storage.shutil.rmtree = patched  # type: ignore[assignment]


def train_with_stderr(spec: RunSpec) -> dict[str, Any]:
    """`train`, with stderr in a file."""
    sys.stderr = (spec.folder / f"stderr-{dist.get_rank()}").open("w", buffering=1)
    return train(spec)
