"""Faults of the runs in checkpoint_runs.py: bad batches, killed ranks, full disks, bad files."""

import os
import signal
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from checkpoint_runs import RunSpec, full_states, start, train

from ropewalk.conf.errors import ConfigError
from ropewalk.train.checkpoint import async_writer, reshard, storage
from ropewalk.train.launcher.stop import StopSignal
from ropewalk.train.loop.trainer import Trainer
from ropewalk.train.zero.engine import Engine

# -- a bad batch ---------------------------------------------------------------------------------


def spoil_batch(spec: RunSpec, engine: Engine) -> None:
    """Multiply one sequence's loss by `options["times"]`; record all states before each step."""
    bad = torch.from_numpy(spec.data.sequences().read(spec.options["bad"]).input_ids)
    forward, states = engine.module.forward, spec.options.setdefault("states", [])

    def spoiled_forward(input_ids: torch.Tensor, **kwargs: Any) -> torch.Tensor:
        times = spec.options["times"] if torch.equal(input_ids[0].cpu(), bad) else 1.0
        loss = forward(input_ids=input_ids, **kwargs) * times
        engine.module.token_loss.cross_entropy *= times
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
"""Moments that are calls: the rank is killed before the call."""


def kill(rank: int, moment: str, number: int, _: RunSpec, engine: Engine) -> None:
    """SIGKILL `rank` at the `number`-th (from 1) of its moments of a kind."""
    if dist.get_rank() != rank:
        return
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
    """Call `hook` when a file is half written."""
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


def fail_watchdog(_: RunSpec, engine: Engine) -> None:
    """The second poll of the watchdog raises an error."""

    def fail() -> None:
        raise ValueError("the poll failed")

    call_before(Trainer, "heartbeat", at_call(2, fail))


def freeze(_: RunSpec, engine: Engine) -> None:
    if dist.get_rank() == 1:
        at_step(engine, 3, lambda: os.kill(os.getpid(), signal.SIGSTOP))


def load_without_reshard(spec: RunSpec) -> int:
    """The step that is loaded when the load for another layout would fail."""

    def fail() -> None:
        raise AssertionError("the checkpoint has this run's layout")

    call_before(reshard, "load", fail)
    return start(spec).checkpoints.load().step


def opened_files(spec: RunSpec) -> list[str]:
    """The names of the checkpoint's files that this rank reads in a load for another layout."""
    names: list[str] = []
    tensors, lists = reshard.saved_flat_tensors, reshard.read_json

    def spied_tensors(path: Path, *args: Any) -> Any:
        names.append(path.name)
        return tensors(path, *args)

    def spied_lists(path: Path) -> Any:
        names.append(path.name)
        return lists(path)

    reshard.saved_flat_tensors, reshard.read_json = spied_tensors, spied_lists
    start(spec).checkpoints.load()
    return names


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
    """The first checkpoint is published, the one of the stop is not."""
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
