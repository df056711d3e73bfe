"""The ranks under DeepSpeed's own launcher: which command, which devices, and how their end comes through."""

import base64
import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from models import tiny_config

from ropewalk.conf.artifacts.locks import lock_or_refuse
from ropewalk.conf.errors import ConfigError, RopewalkError, Stopped
from ropewalk.conf.rules import content
from ropewalk.conf.schema import Config
from ropewalk.launch.config.compose import compose
from ropewalk.train import stage
from ropewalk.train.launcher import ranks
from ropewalk.train.launcher.command import command, world_size
from ropewalk.train.launcher.ranks import launch, requeue
from ropewalk.train.preflight import refuse_missing_devices, refuse_unfit_ranks

RANK = """\
import os, sys, time
folder = sys.argv[1]
if os.environ["RANK"] == "1":
    while not os.path.exists(folder + "/pid"):
        time.sleep(0.05)
    sys.exit(int(open(folder + "/code").read()))
open(folder + "/pid.tmp", "w").write(str(os.getpid()))
os.rename(folder + "/pid.tmp", folder + "/pid")
time.sleep(300)
"""


def config(*overrides: str) -> Config:
    return compose(["recipe=demo", "train.launcher.ranks_per_node=2", *overrides])


def devices(overrides: list[str]) -> dict[str, list[object]]:
    result: dict[str, list[object]] = json.loads(
        base64.urlsafe_b64decode(overrides[overrides.index("--world_info") + 1])
    )
    return result


def test_one_machine_has_a_rank_a_device_and_no_runner(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    overrides = command(config(), tmp_path)
    assert (
        overrides[1:3] == ["-m", "ropewalk.train.launcher.node"] and "--hostfile" not in overrides
    )
    assert devices(overrides) == {"localhost": [0, 1]}
    assert overrides[-3:] == ["--module", "ropewalk.train", str(tmp_path)]


def test_several_machines_go_through_the_runner(tmp_path: Path) -> None:
    overrides = command(config("train.launcher.hostfile=hosts"), tmp_path)
    assert overrides[1:3] == ["-m", "deepspeed.launcher.runner"]
    assert (
        overrides[overrides.index("--hostfile") + 1] == "hosts"
        and overrides[overrides.index("--num_gpus") + 1] == "2"
    )


def test_a_hostfile_at_home_is_found_by_the_runner_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    overrides = command(config("train.launcher.hostfile='~/hosts'"), tmp_path)
    assert overrides[overrides.index("--hostfile") + 1] == str(tmp_path / "hosts")


def test_more_ranks_than_visible_devices_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    refuse_missing_devices(
        config("train.launcher.ranks_per_node=4")
    )  # on a CPU ranks share what there is
    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
    refuse_missing_devices(config("train.launcher.ranks_per_node=2"))
    with pytest.raises(
        ConfigError,
        match="train.launcher.ranks_per_node is 4; each rank needs a device of its own, and 2 are visible",
    ):
        refuse_missing_devices(config("train.launcher.ranks_per_node=4"))


def test_a_stop_that_comes_after_the_last_step_stops_what_comes_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def launch(_: Config, run_dir: Path, temporary: Path) -> None:
        (temporary / "done.json").write_text("{}")
        (temporary / "stop").touch()

    monkeypatch.setattr(stage, "launch", launch)
    for name in ("_copy_tokenizer", "_prove_reloaded"):
        monkeypatch.setattr(stage, name, lambda *_: None)
    with pytest.raises(
        Stopped, match="train is done, and stopped before what comes after it; run the same command"
    ):
        stage.run(config(), {}, tmp_path / "train")
    assert "skipped" in stage.run(config(), {}, tmp_path / "train")[1]


def test_a_finished_training_is_not_asked_for_the_unfinished_one_beside_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Trained with one rate, begun with another, and back: the first one stands, the second waits."""
    monkeypatch.setattr(
        stage, "launch", lambda _, run_dir, temporary: (temporary / "done.json").write_text("{}")
    )
    for name in ("_copy_tokenizer", "_prove_reloaded"):
        monkeypatch.setattr(stage, name, lambda *_: None)
    stage.run(config("train.optimizer.lr=1e-3"), {}, tmp_path / "train")
    begun(tmp_path, config("train.optimizer.lr=2e-3"))
    assert "skipped" in stage.run(config("train.optimizer.lr=1e-3"), {}, tmp_path / "train")[1]


def begun(folder: Path, wanted: Config) -> Path:
    """A checkpoint of an unfinished training."""
    decides = {
        "inputs": {},
        "seed": wanted.seed,
        "train": content(wanted.train),
        "seq_len": wanted.data.seq_len,
    }
    there = folder / "train.tmp" / "checkpoints" / "step-00000004"
    there.mkdir(parents=True)
    (there / "complete.json").write_text(
        json.dumps({"schema": 1, "step": 4, "files": {}, "content": decides})
    )
    return there


@pytest.mark.parametrize(
    ("visible", "wanted"),
    [("3,1,2", ["3", "1"]), ("GPU-a,GPU-b", ["GPU-a", "GPU-b"]), ("", [0, 1]), ("5", [0, 1])],
)
def test_devices_that_the_user_left_visible_are_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, visible: str, wanted: list[object]
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert devices(command(config(), tmp_path)) == {"localhost": wanted}


def test_ranks_that_cannot_share_are_refused_before_anything_is_started(tmp_path: Path) -> None:
    """Heads of the base against sp_size, ranks of all machines against sp_size and zero_hpz_size."""
    base = tiny_config(num_attention_heads=4)
    (tmp_path / "hosts").write_text("# machines\none slots=8\ntwo slots=8\n")
    hosts = f"train.launcher.hostfile={tmp_path / 'hosts'}"
    assert world_size(config()) == 2 and world_size(config(hosts)) == 4
    assert refuse_unfit_ranks(config("train.sp_size=2"), base) is None
    warned = refuse_unfit_ranks(config("train.sp_size=4", hosts), base)
    assert warned is not None and warned.startswith(
        "train.sp_size is 4, more than the 2 ranks of a machine"
    )
    for overrides, message in {
        (
            "train.sp_size=8",
            hosts,
        ): "train.sp_size is 8; it must divide the number of ranks, 4; set train.sp_size=4",
        (
            "train.launcher.ranks_per_node=8",
            "train.sp_size=8",
        ): "it must divide the 4 attention heads of llama",
        ("train.launcher.hostfile=none",): "train.launcher.hostfile is none; no such file",
        (
            "train.zero_stage=3",
            "train.memory.zero_hpz_size=3",
            hosts,
        ): "train.memory.zero_hpz_size is 3; .* 4; set train.memory.zero_hpz_size=2",
    }.items():
        with pytest.raises(ConfigError, match=message):
            refuse_unfit_ranks(config(*overrides), base)


@pytest.mark.parametrize(("code", "seen"), [(2, 2), (3, 3), (75, 75), (1, 1), (-9, 1)])
def test_a_rank_that_ends_ends_the_others_and_its_code_comes_through(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int, seen: int
) -> None:
    """Rank 0 would sleep for minutes; rank 1 leaves."""
    (tmp_path / "stand_in.py").write_text(RANK)
    (tmp_path / "code").write_text(str(code))
    whole = command
    stand_in = {"ropewalk.train": "stand_in"}
    monkeypatch.setattr(
        ranks, "command", lambda *at: [stand_in.get(word, word) for word in whole(*at)]
    )
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    started = time.monotonic()
    with pytest.raises(RopewalkError) as ended:
        launch(config(), tmp_path, tmp_path)
    assert ended.value.exit_code == seen and isinstance(ended.value, Stopped) == (seen == 75)
    assert time.monotonic() - started < 120
    assert not Path("/proc", (tmp_path / "pid").read_text()).exists()


JOB = """\
import os, signal, sys, time, types
def run(folder):
    def stop(*_):
        time.sleep(1)  # a checkpoint
        sys.exit(75)
    signal.signal(signal.SIGTERM, stop)
    (folder / f"{os.getpid()}.pid").touch()
    time.sleep(300)
sys.modules["ropewalk.train.worker"] = types.SimpleNamespace(run=run)
"""


def ranks_of(folder: Path) -> list[int]:
    """Their process ids, when both have said them."""
    until = time.monotonic() + 60
    while len(result := [int(file.stem) for file in folder.glob("*.pid")]) < 2:
        assert time.monotonic() < until
        time.sleep(0.1)
    return result


def test_a_whole_job_that_is_told_to_end_ends_in_good_order(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As Slurm does it: SIGTERM to the command, to the launcher and to the ranks."""
    (tmp_path / "sitecustomize.py").write_text(JOB)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))

    def end() -> None:
        os.killpg(os.getpgid(ranks_of(tmp_path)[0]), signal.SIGTERM)
        os.kill(os.getpid(), signal.SIGTERM)

    teller = threading.Thread(target=end)
    teller.start()
    with pytest.raises(
        Stopped, match="train stopped in good order; run the same command again to resume"
    ):
        launch(config(), tmp_path, tmp_path)
    teller.join()


def test_ranks_do_not_outlive_a_command_that_is_killed(tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text(JOB)
    (tmp_path / "command.py").write_text(
        "from pathlib import Path\nfrom ropewalk.launch.config.compose import compose\nfrom ropewalk.train import stage\n"
        f"at = Path({str(tmp_path)!r})\nstage.launch(compose(['recipe=demo', 'train.launcher.ranks_per_node=2']), at, at)"
    )
    command = subprocess.Popen(
        [sys.executable, tmp_path / "command.py"], env={**os.environ, "PYTHONPATH": str(tmp_path)}
    )
    result = ranks_of(tmp_path)
    command.kill()
    until = time.monotonic() + 20
    while any(Path("/proc", str(pid)).exists() for pid in result):
        assert time.monotonic() < until
        time.sleep(0.1)
    command.wait()


def test_a_second_start_does_not_share_the_folder_with_ranks_that_are_left(tmp_path: Path) -> None:
    with lock_or_refuse(tmp_path, "train.tmp"):
        result = subprocess.run(
            [sys.executable, "-m", "ropewalk.train", tmp_path], capture_output=True, text=True
        )
    assert result.returncode == 2
    assert f"name is {tmp_path.name}; another ropewalk is at work in that run" in result.stderr


def test_an_unfinished_training_of_other_settings_is_refused_not_thrown_away(
    tmp_path: Path,
) -> None:
    """The checkpoint was begun with another rate; nothing starts, and what lies there stays."""
    there = begun(tmp_path, config("train.optimizer.lr=1e-3"))
    with pytest.raises(
        ConfigError,
        match=r"^train.optimizer.lr was 0.001, is 0.002 in the checkpoint step-00000004; a run is",
    ):
        stage.run(config("train.optimizer.lr=2e-3"), {}, tmp_path / "train")
    assert there.is_dir()


def test_a_stopped_slurm_job_is_queued_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stub = tmp_path / "scontrol"
    stub.write_text(
        f"#!/bin/sh\necho $@ > {tmp_path}/said\n[ $2 = 7 ] && exit 0\necho no such job >&2; exit 1\n"
    )
    stub.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    assert requeue() == "job 7 is queued again" and (tmp_path / "said").read_text() == "requeue 7\n"
    monkeypatch.setenv("SLURM_JOB_ID", "8")
    assert requeue() == "scontrol requeue 8: no such job; submit it again to resume"
    monkeypatch.delenv("SLURM_JOB_ID")
    assert "this is no Slurm job" in requeue()
