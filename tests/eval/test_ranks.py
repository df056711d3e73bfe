"""Who measures: this process, or ranks that the launcher starts; their end, and their errors."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from changed_settings import GOOD

from ropewalk.conf.errors import RopewalkError
from ropewalk.conf.schema import Config
from ropewalk.eval import ranks, stage
from ropewalk.eval.measure import columns
from ropewalk.eval.worker import JOB, Job
from ropewalk.launch.config.compose import compose
from ropewalk.train.base import Base


def config_with(
    hostfile: str | None = None, train_ranks: int | None = None, **eval_: Any
) -> Config:
    config: Config = compose([*GOOD, "model.path=organisation/model"])
    launcher = replace(config.train.launcher, hostfile=hostfile, ranks_per_node=train_ranks)
    train = replace(config.train, launcher=launcher, precision="bf16")
    return replace(config, train=train, eval=replace(config.eval, **eval_))


@pytest.fixture
def devices(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    def have(count: int) -> None:
        monkeypatch.setattr(torch.cuda, "is_available", lambda: count > 0)
        monkeypatch.setattr(torch.cuda, "device_count", lambda: count)

    return have


@pytest.mark.parametrize(
    ("gpus", "settings", "expected"),
    [
        (0, {}, False),
        (0, {"train_ranks": 2}, False),
        (0, {"hostfile": "hosts"}, False),
        (0, {"ranks_per_node": 2}, True),
        (0, {"zero_stage": 3}, True),
        (0, {"sp_size": 2}, True),
        (1, {}, False),
        (1, {"hostfile": "hosts"}, True),
        (8, {}, True),
        (8, {"train_ranks": 1}, False),
        (8, {"ranks_per_node": 1}, False),
    ],
)
def test_ranks_are_started_for_several_gpus_or_as_set(
    devices: Callable[[int], None], gpus: int, settings: dict[str, Any], expected: bool
) -> None:
    devices(gpus)
    assert ranks.starts_ranks(config_with(**settings)) == expected


@pytest.mark.parametrize(
    ("gpus", "set_to", "expected"),
    [(0, None, "fp32"), (8, None, "bf16"), (8, "fp32", "fp32"), (0, "bf16", "bf16")],
)
def test_the_precision_is_the_trainings_on_a_gpu(
    devices: Callable[[int], None], gpus: int, set_to: str | None, expected: str
) -> None:
    devices(gpus)
    config = config_with(precision=set_to)
    assert columns.precision(config) == expected
    assert columns.dtype(config) == (torch.bfloat16 if expected == "bf16" else torch.float32)


def test_the_fingerprint_has_the_precision_and_not_the_ranks(
    devices: Callable[[int], None], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """One that was set to fp32 before there was a default by device stays finished on a CPU."""
    monkeypatch.setattr(stage, "run_stage", lambda name, key, output, work: (key, ""))

    def key(gpus: int, **settings: Any) -> Any:
        devices(gpus)
        return stage.run(config_with(**settings), Base(None), {}, tmp_path / "eval")[0]

    assert key(0) == key(0, precision="fp32") == key(0, ranks_per_node=4, zero_stage=3)
    assert key(8) == key(1) == key(0, precision="bf16") != key(0)
    assert key(0)["eval"]["precision"] == "fp32"  # as FORMAT 3 has always stored it


def test_an_error_of_all_ranks_is_one_line_and_names_the_first(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """Two ranks by the launcher; the run that they measure has no data."""
    (tmp_path / "eval.tmp").mkdir()
    (tmp_path / "rope.json").write_text("{}")
    config = config_with(ranks_per_node=2)
    job = Job(config, Base(None), tmp_path)
    with pytest.raises(RopewalkError) as raised:
        ranks.measure(job, tmp_path / "eval.tmp")
    assert "eval: the ranks ended with exit code" in str(raised.value)
    assert "; rank " in str(raised.value) and "was the first" in str(raised.value)
    lines = [line for line in capfd.readouterr().err.splitlines() if line.startswith("rank ")]
    assert len(lines) == 1
    assert not [name for name in JOB if (tmp_path / "eval.tmp" / name).exists()]
