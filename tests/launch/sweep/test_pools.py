"""Each run's share of a machine."""

import os
from pathlib import Path

import pool_commands
import pytest
import torch

from ropewalk.conf.errors import ConfigError
from ropewalk.launch.config.compose import compose
from ropewalk.launch.sweep import pools
from ropewalk.launch.sweep.jobs import Job
from ropewalk.launch.sweep.local import LocalPool


def test_one_run_at_a_time_has_the_machine_as_it_is() -> None:
    assert pools.environments(1, ["0", "1"]) == [{}]


def test_gpus_are_shared_out_without_overlap() -> None:
    shares = pools.environments(3, ["4", "5", "6", "7", "GPU-a", "GPU-b", "GPU-c"])
    assert [share["CUDA_VISIBLE_DEVICES"] for share in shares] == ["4,5", "6,7", "GPU-a,GPU-b"]


def test_cores_are_shared_out_where_the_user_sets_no_threads(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)))
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    assert pools.environments(3, []) == [{"OMP_NUM_THREADS": "2"}] * 3
    monkeypatch.setenv("OMP_NUM_THREADS", "5")
    assert pools.environments(3, []) == [{}] * 3


@pytest.mark.parametrize(("visible", "names"), [(None, ["0", "1"]), ("3,2", ["3", "2"])])
def test_gpus_have_the_names_that_this_process_was_given(
    monkeypatch: pytest.MonkeyPatch, visible: str | None, names: list[str]
) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if visible is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert pools.visible_devices() == names


def test_more_runs_than_gpus_and_clusters_without_a_queue_are_refused(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    config = compose(["recipe=demo"])
    with pytest.raises(ConfigError, match=r"sweep\.pool is 3; this machine has 2 GPUs"):
        pools.pool_of(config, 3, tmp_path)
    other = compose(["recipe=demo", "launch=kubernetes", "launch.kubernetes.image=x"])
    with pytest.raises(ConfigError, match="launch is kubernetes; a sweep runs on this machine"):
        pools.pool_of(other, 1, tmp_path)


def test_each_place_of_a_pool_has_its_variables(tmp_path: Path) -> None:
    """Two jobs that meet are in two places."""
    meeting = tmp_path / "meeting"
    meeting.mkdir()
    variables = [{"CUDA_VISIBLE_DEVICES": "0"}, {"CUDA_VISIBLE_DEVICES": "1"}]
    pool = LocalPool(2, tmp_path / "logs", pool_commands.command, variables)
    outcomes = [*pool.run([Job(name, ("meet", str(meeting), "2")) for name in "ab"])]
    assert [outcome.exit_code for outcome in outcomes] == [0, 0]
    logs = [(tmp_path / "logs" / f"{name}.log").read_text() for name in "ab"]
    assert sorted(line for log in logs for line in log.splitlines() if "DEVICES" in line) == [
        "CUDA_VISIBLE_DEVICES=0",
        "CUDA_VISIBLE_DEVICES=1",
    ]
