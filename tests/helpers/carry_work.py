"""What the ranks of test_carry.py do: phases of one training, each with an engine of its own."""

from dataclasses import replace
from pathlib import Path
from typing import Any

from checkpoint_work import Work, start, told, trainer, weights

from ropewalk.conf.schema import Config
from ropewalk.data.dataset import DataArtifacts
from ropewalk.train.checkpoint import previous_phase, storage


def phase(config: Config, folder: Path, data: DataArtifacts, begin: int) -> dict[str, Any]:
    """One of them, from sequence `begin` of the plan on; its losses, and the weights at its end."""
    (folder / "train").mkdir(parents=True, exist_ok=True)
    work = Work(folder / "train", config, data)
    run = start(work)
    run.feed = replace(run.feed, start=begin)
    progress = run.checkpoints.load()
    hashed: list[str] = []
    whole = storage.sha256
    storage.sha256 = lambda path: hashed.append(path.name) or whole(path)  # type: ignore[func-returns-value]
    said = previous_phase.load_optimizer_state(config, run.checkpoints, progress)
    storage.sha256 = whole
    trainer(run, work, progress).train()
    previous_phase.save_for_next_phase(config, run.checkpoints, progress)
    found = {
        "said": said,
        "hashed": hashed,
        "weights": weights(run.engine),
        **told(folder / "train"),
    }
    run.engine.destroy()
    return found


def chain(parts: list[tuple[Config, Path, int]], data: DataArtifacts) -> list[dict[str, Any]]:
    return [phase(config, folder, data, begin) for config, folder, begin in parts]
