"""Checkpoints that are either whole or absent: written under a temporary name, checked, then renamed."""

import os
import shutil
from pathlib import Path
from typing import Any

import torch.distributed as dist

from ropewalk.conf.errors import ConfigError
from ropewalk.conf.manifest import read_json, write_json

COMPLETE = "complete.json"


def save(engine: Any, folder: Path, step: int, keep: int) -> None:
    """Write `folder/step-N`; every rank calls it. Older ones beyond `keep` are removed once the new one stands."""
    name = f"step-{step:08d}"
    if dist.get_rank() == 0:
        shutil.rmtree(folder / f"{name}.tmp", ignore_errors=True)
        folder.mkdir(parents=True, exist_ok=True)
    dist.barrier()
    engine.save_checkpoint(str(folder), tag=f"{name}.tmp", client_state={"step": step}, save_latest=False)
    dist.barrier()
    if dist.get_rank() == 0:
        _complete(folder / f"{name}.tmp", step)
        shutil.rmtree(folder / name, ignore_errors=True)
        os.replace(folder / f"{name}.tmp", folder / name)
        for old in _complete_ones(folder)[:-keep]:
            shutil.rmtree(old)
    dist.barrier()


def _complete(folder: Path, step: int) -> None:
    """List the files with their sizes; a rank whose file is missing makes the checkpoint no checkpoint."""
    files = {p.name: p.stat().st_size for p in sorted(folder.iterdir()) if p.is_file()}
    shards = [name for name in files if name.endswith("optim_states.pt")]
    if shards and len(shards) != dist.get_world_size():
        raise RuntimeError(
            f"checkpoint of step {step}: {len(shards)} of {dist.get_world_size()} optimizer files are there"
        )
    write_json(folder / COMPLETE, {"step": step, "world_size": dist.get_world_size(), "files": files})


def _whole(folder: Path) -> bool:
    if not (folder / COMPLETE).is_file():
        return False
    files = read_json(folder / COMPLETE)["files"]
    return all((folder / n).is_file() and (folder / n).stat().st_size == size for n, size in files.items())


def _complete_ones(folder: Path) -> list[Path]:
    found = folder.glob("step-????????") if folder.is_dir() else []
    return sorted(p for p in found if _whole(p))


def load(engine: Any, folder: Path) -> int:
    """Load the newest whole checkpoint; returns the step to go on from, 0 without one.

    Raises: ConfigError when it was written by another number of ranks.
    """
    found = _complete_ones(folder)
    if not found:
        return 0
    facts = read_json(found[-1] / COMPLETE)
    if facts["world_size"] != dist.get_world_size():
        raise ConfigError(
            f"train.processes is {dist.get_world_size()}; the checkpoint {found[-1].name} was written by {facts['world_size']}; "
            f"set train.processes={facts['world_size']} to resume, or another name to start anew"
        )
    _, state = engine.load_checkpoint(str(folder), tag=found[-1].name)
    return int(state["step"])
