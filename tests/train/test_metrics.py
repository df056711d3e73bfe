"""metrics.jsonl first: what else a step tells comes after its line."""

import json
from pathlib import Path
from typing import Any

import pytest

from ropewalk.launch.compose import compose
from ropewalk.train.metrics import sinks

ROW = {"loss": 1.0, "grad_norm": None, "lr": 1e-3, "tokens_per_s": 1.0, "peak_memory_bytes": 1}


class Wandb:
    def __init__(self) -> None:
        self.steps: list[int] = []
        self.finished = False

    def log(self, _: dict[str, Any], step: int) -> None:
        self.steps.append(step)

    def finish(self) -> None:
        self.finished = True


@pytest.mark.parametrize("steps", [0, 2])
def test_the_first_step_is_written_before_wandb_starts_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, steps: int
) -> None:
    there: list[int] = []
    wandb = Wandb()

    def start(folder: Path, _: object) -> Wandb:
        there.append(len((folder / "metrics.jsonl").read_text().splitlines()))
        return wandb

    monkeypatch.setattr(sinks, "_wandb", start)
    told = sinks.Metrics(tmp_path, compose(["recipe=demo"]), 0)
    for step in range(1, steps + 1):
        told.step({"step": step, **ROW})
    told.close()
    assert there == [min(steps, 1)]
    assert wandb.steps == list(range(1, steps + 1)) and wandb.finished
    lines = (tmp_path / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line)["step"] for line in lines] == wandb.steps
