"""metrics.jsonl first: what else a step tells comes after its line."""

import importlib.util
import json
import socket
from pathlib import Path
from typing import Any

import pytest

from ropewalk.conf.errors import ConfigError
from ropewalk.launch.config.compose import compose
from ropewalk.train.metrics import dashboards, writers

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
    written: list[int] = []
    wandb = Wandb()

    def start(folder: Path, _: object) -> Wandb:
        written.append(len((folder / "metrics.jsonl").read_text().splitlines()))
        return wandb

    monkeypatch.setattr(dashboards, "start_wandb", start)
    logger = writers.MetricLogger(tmp_path, compose(["recipe=demo"]), 0)
    for step in range(1, steps + 1):
        logger.log_step({"step": step, **ROW})
    logger.close()
    assert written == [1] * bool(
        steps
    )  # no wandb run for a training that fails before its first step
    assert wandb.steps == list(range(1, steps + 1)) and wandb.finished == bool(steps)
    lines = (tmp_path / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line)["step"] for line in lines] == wandb.steps


LINE = {
    "step": 7,
    "loss": 2.5,
    "mfu": None,
    "time": {"forward": 0.5},
    "loss_by_position": [
        {"from": 0, "to": 64, "nll": 3.0, "tokens": 9},
        {"from": 64, "to": None, "nll": 2.0, "tokens": 1},
    ],
    "loss_by_source": {"code": {"nll": 1.5, "tokens": 10}},
    "validation": {
        "nll": 2.25,
        "nll_by_position": [{"from": 0, "to": 64, "nll": 4.0, "tokens": 2}],
        "json_kv": {"accuracy": 0.5, "by_depth": [{"depth": 0.125, "n": 4, "accuracy": 0.25}]},
    },
    "sequences": [4, 5],
}
NUMBERS = {
    "step": 7,
    "loss": 2.5,
    "time/forward": 0.5,
    "loss_by_position/0-64": 3.0,
    "loss_by_position/64-": 2.0,
    "loss_by_source/code/nll": 1.5,
    "loss_by_source/code/tokens": 10,
    "validation/nll": 2.25,
    "validation/nll_by_position/0-64": 4.0,
    "validation/json_kv/accuracy": 0.5,
    "validation/json_kv/by_depth/0.125": 0.25,
}


def test_every_number_of_a_line_has_a_name() -> None:
    assert dashboards.scalars_of(LINE) == NUMBERS


def test_tensorboard_reads_what_was_written_and_no_machine_is_named(tmp_path: Path) -> None:
    """A run dies after step 9 and resumes from 6: TensorBoard's own reader shows each step once."""
    accumulator = pytest.importorskip(
        "tensorboard.backend.event_processing.event_accumulator",
        reason="needs the extra tensorboard",
    )
    config = compose(["recipe=demo", "train.metrics.tensorboard=true", "train.metrics.wandb=off"])
    for first, last, loss in ((0, 9, 1.0), (6, 8, 2.0)):
        logger = writers.MetricLogger(tmp_path, config, first)
        for step in range(first + 1, last + 1):
            logger.log_step({**LINE, **ROW, "step": step, "loss": loss})
        logger.close()
    files = sorted(p.name for p in (tmp_path / "tensorboard").iterdir())
    assert files == [
        "events.out.tfevents.0000000000.ropewalk",
        "events.out.tfevents.0000000006.ropewalk",
    ]
    assert not any(
        socket.gethostname().encode() in p.read_bytes()
        for p in (tmp_path / "tensorboard").iterdir()
    )
    read = accumulator.EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    assert {(e.step, e.value) for e in read.Scalars("loss")} == {
        (s, 1.0 if s <= 6 else 2.0) for s in range(1, 9)
    }
    assert set(read.Tags()["scalars"]) == set(NUMBERS) | {
        k for k, v in ROW.items() if v is not None
    }


def test_tensorboard_that_is_absent_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    dashboards.refuse_missing_trackers(compose(["recipe=demo"]))
    with pytest.raises(
        ConfigError,
        match=r"train.metrics.tensorboard is True; it needs the package tensorboard; pip install",
    ):
        dashboards.refuse_missing_trackers(
            compose(["recipe=demo", "train.metrics.tensorboard=true"])
        )
