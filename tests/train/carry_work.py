"""What the ranks of test_carry.py do: phases of one training, each with an engine of its own."""

from dataclasses import replace
from pathlib import Path
from typing import Any

from checkpoint_work import Work, start, told, weights

from ropewalk.conf.schema import Config
from ropewalk.data.dataset import DataFolders
from ropewalk.train import carry, loop
from ropewalk.train.checkpoint import folder as checkpoint_folder


def phase(config: Config, folder: Path, data: DataFolders, begin: int) -> dict[str, Any]:
    """One of them, from sequence `begin` of the plan on; its losses, and the weights at its end."""
    (folder / "train").mkdir(parents=True, exist_ok=True)
    run = start(Work(folder / "train", config, data))
    progress = run.checkpoints.load()
    hashed: list[str] = []
    whole = checkpoint_folder.sha256
    checkpoint_folder.sha256 = lambda path: hashed.append(path.name) or whole(path)  # type: ignore[func-returns-value]
    said = carry.take(config, run.checkpoints, progress)
    checkpoint_folder.sha256 = whole
    loop.train(
        run.engine, config, replace(run.feed, start=begin), folder / "train", run.mesh, run.checkpoints, progress
    )
    carry.leave(config, run.checkpoints, progress)
    found = {"said": said, "hashed": hashed, "weights": weights(run.engine), **told(folder / "train")}
    run.engine.destroy()
    return found


def chain(parts: list[tuple[Config, Path, int]], data: DataFolders) -> list[dict[str, Any]]:
    return [phase(config, folder, data, begin) for config, folder, begin in parts]
