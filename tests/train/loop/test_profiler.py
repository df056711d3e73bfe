"""A window of steps under torch's profiler."""

import gzip
import json
import socket
from pathlib import Path

import pytest
import torch

from ropewalk.conf.errors import ConfigError
from ropewalk.launch.config.compose import compose
from ropewalk.train.loop.profiler import Profiler
from ropewalk.train.zero.mesh import Mesh


def run(folder: Path, rank: int, first: int, *overrides: str, last: int = 6) -> list[str]:
    """Run steps `first` to `last`, each of another size; returns the names of the files."""
    config = compose(["recipe=demo", "train.profiler.steps=[3,4]", *overrides])
    profiler = Profiler(config, folder, Mesh(rank=rank))
    for step in range(first, last + 1):
        profiler.start_step(step)
        torch.empty(step, step) @ torch.empty(step, 1)
        profiler.end_step(step)
    profiler.close()
    return sorted(p.name for p in (folder / "profile").glob("*"))


def test_the_window_is_written_and_nothing_else(tmp_path: Path) -> None:
    assert run(tmp_path, 0, 1) == ["rank-0.steps-3-4.json.gz"]
    path = tmp_path / "profile" / "rank-0.steps-3-4.json.gz"
    text = gzip.decompress(path.read_bytes()).decode()
    events = json.loads(text)["traceEvents"]
    assert [event.get("name") for event in events].count("aten::mm") == 2
    assert "host_name" not in text and "traceName" not in text and str(Path.home()) not in text
    assert f'"{socket.gethostname()}"' not in text


def test_other_ranks_are_recorded_if_set(tmp_path: Path) -> None:
    assert run(tmp_path, 1, 1) == []
    assert run(tmp_path, 1, 1, "train.profiler.ranks=all") == ["rank-1.steps-3-4.json.gz"]


def test_a_run_resumed_inside_the_window_records_the_rest(tmp_path: Path) -> None:
    assert run(tmp_path, 0, 4) == ["rank-0.steps-4-4.json.gz"]


def test_a_run_that_ends_inside_the_window_records_its_steps(tmp_path: Path) -> None:
    assert run(tmp_path, 0, 1, last=3) == ["rank-0.steps-3-3.json.gz"]


def test_a_window_after_the_last_step_is_refused() -> None:
    message = r"train.profiler.steps is \[30, 40\]; the training has 20 steps"
    with pytest.raises(ConfigError, match=message):
        compose(["recipe=demo", "train.steps=20", "train.profiler.steps=[30,40]"])


def test_a_run_resumed_after_the_window_records_nothing(tmp_path: Path) -> None:
    assert run(tmp_path, 0, 5) == []


@pytest.mark.parametrize("steps", ["[4]", "[0,3]", "[5,4]", "[1,2,3]"])
def test_steps_that_are_no_window_are_refused(steps: str) -> None:
    message = r"train.profiler.steps is \[.*\]; it must be a first and a last step"
    with pytest.raises(ConfigError, match=message):
        compose(["recipe=demo", f"train.profiler.steps={steps}"])


@pytest.mark.skipif(torch.cuda.is_available(), reason="refused without a CUDA device only")
def test_recording_allocations_needs_a_cuda_device(tmp_path: Path) -> None:
    message = "train.profiler.memory is True; it records the allocations of a CUDA device"
    with pytest.raises(ConfigError, match=message):
        run(tmp_path, 0, 1, "train.profiler.memory=true")
