"""Phases of one training, each with an engine of its own, for test_previous_phase.py."""

from dataclasses import replace
from pathlib import Path
from typing import Any

from checkpoint_runs import RunSpec, build_trainer, full_weights, read_lines, start

from ropewalk.conf.schema import Config
from ropewalk.data.dataset import DataArtifacts
from ropewalk.train.checkpoint import previous_phase, storage


def run_phase(
    config: Config, folder: Path, data: DataArtifacts, first_sequence: int
) -> dict[str, Any]:
    """One phase, which reads the plan from `first_sequence` on: its losses and its final
    weights."""
    train_dir = folder / "train"
    train_dir.mkdir(parents=True, exist_ok=True)
    spec = RunSpec(train_dir, config, data)
    run = start(spec)
    train_state = run.checkpoints.load()
    hashed: list[str] = []
    original = storage.file_digest
    storage.file_digest = lambda path: hashed.append(path.name) or original(path)  # type: ignore[func-returns-value]
    message = previous_phase.load_optimizer_state(config, run.checkpoints, train_state)
    storage.file_digest = original
    run.loader = replace(run.loader, start=first_sequence)
    build_trainer(run, spec, train_state).train()
    previous_phase.save_for_next_phase(config, run.checkpoints, train_state)
    result = {
        "message": message,
        "hashed": hashed,
        "weights": full_weights(run.engine),
        **read_lines(train_dir),
    }
    run.engine.destroy()  # type: ignore[attr-defined]
    return result


def run_phases(phases: list[tuple[Config, Path, int]], data: DataArtifacts) -> list[dict[str, Any]]:
    return [run_phase(config, folder, data, first) for config, folder, first in phases]
