"""A disk without room for the least that a command writes is refused before the first stage."""

import shutil
from collections import namedtuple
from pathlib import Path

import pytest
from safetensors import safe_open

from ropewalk.conf.artifacts.free_space import Need, space_problems
from ropewalk.launch.cli import main
from ropewalk.launch.config.compose import compose
from ropewalk.train.base import BASES
from ropewalk.train.disk_space import checkpoint_bytes, checkpoints_at_once, model_bytes

Usage = namedtuple("Usage", "total used free")


def set_free(monkeypatch: pytest.MonkeyPatch, size: int) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: Usage(size, 0, size))


@pytest.mark.parametrize(
    ("settings", "count"),
    [
        ({"steps": 300, "interval_steps": 100, "keep_last": 2}, 3),  # the third beside two
        ({"steps": 300, "interval_steps": 100, "keep_last": 3}, 3),
        ({"steps": 250, "interval_steps": 100, "keep_last": 9}, 3),  # 100, 200 and the last
        ({"steps": 300, "interval_steps": 0, "keep_last": 2}, 1),
        ({"steps": 900, "interval_steps": 100, "keep_last": 1, "keep_every_steps": 300}, 4),
    ],
)
def test_checkpoints_on_disk_together(settings: dict[str, int], count: int) -> None:
    steps = settings.pop("steps")
    overrides = [f"train.checkpoint.{key}={value}" for key, value in settings.items()]
    config = compose(["recipe=demo", f"train.steps={steps}", *overrides])
    assert checkpoints_at_once(config.train) == count


def test_bytes_of_a_parameter_are_those_of_the_zero_paper() -> None:
    """arXiv 1910.02054: 4 for the fp32 copy and 8 for Adam's moments; 2 for a model in bf16."""
    train = compose(["recipe=demo", "train.precision=bf16"]).train
    assert (checkpoint_bytes(train, 8_000_000_000), model_bytes(train, 5)) == (96_000_000_000, 10)
    adapters = compose(["recipe=demo", "train.lora.rank=8"]).train
    assert checkpoint_bytes(adapters, 8_000_000_000) == 0


def test_parts_on_one_disk_are_added(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    set_free(monkeypatch, 10 << 30)
    needs = [
        Need("runs_dir", tmp_path / "runs" / "a", "checkpoints", 6 << 30),
        Need("cache_dir", tmp_path / "cache", "tokens", 4 << 30),
        Need("cache_dir", tmp_path / "cache", "other tokens", -(9 << 30)),
    ]
    assert space_problems(needs) == []
    set_free(monkeypatch, (10 << 30) - 1)
    (line,) = space_problems(needs)
    assert "room for checkpoints 6.0 GiB and tokens 4.0 GiB at least, and has 10.0 GiB" in line
    assert line.endswith("make room, or set another runs_dir or cache_dir")


def test_a_dry_run_tells_of_the_disk_and_runs_no_stage(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "texts").mkdir()
    for number in range(20):
        (tmp_path / "texts" / f"{number}.txt").write_text(f"text {number} " * 500)
    with safe_open(str(BASES / "demo" / "model.safetensors"), "pt") as file:
        parameters = sum(file.get_tensor(name).numel() for name in file.keys())  # noqa: SIM118
    arguments = [
        "train", "recipe=demo", f"model.path={BASES / 'demo'}", f"runs_dir={tmp_path / 'runs'}",
        f"cache_dir={tmp_path / 'cache'}", "train.steps=10", "train.checkpoint.interval_steps=10",
        "train.precision=fp32", "--dry-run",
    ]  # fmt: skip
    least = parameters * (12 + 4)
    set_free(monkeypatch, 20 * least)
    main(arguments)
    assert "train: settings, model, sources and disks pass" in capsys.readouterr().out
    set_free(monkeypatch, least - 1)
    with pytest.raises(SystemExit) as exit_info:
        main(arguments)
    assert exit_info.value.code == 2
    assert "its disk must have room for" in capsys.readouterr().err
    assert not (tmp_path / "runs").exists()
