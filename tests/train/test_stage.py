"""The ranks and what starts them: the command, the devices, and the exit codes."""

import base64
import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

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
from ropewalk.train.launcher.ranks import launch
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

HOSTS = "one slots=8\ntwo slots=8\n"


def config(*overrides: str) -> Config:
    return compose(["recipe=demo", "train.launcher.ranks_per_node=2", *overrides])


def value(arguments: list[str], flag: str) -> str:
    return arguments[arguments.index(flag) + 1]


def devices(arguments: list[str]) -> dict[str, list[object]]:
    """The devices of each host in the launcher's arguments."""
    world_info = base64.urlsafe_b64decode(value(arguments, "--world_info"))
    result: dict[str, list[object]] = json.loads(world_info)
    return result


def test_one_machine_has_one_rank_for_each_device(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    arguments = command(config(), tmp_path)
    assert arguments[1:3] == ["-m", "ropewalk.train.launcher.node"]
    assert "--hostfile" not in arguments
    assert devices(arguments) == {"localhost": [0, 1]}
    assert arguments[-3:] == ["--module", "ropewalk.train", str(tmp_path)]


def test_several_machines_start_deepspeeds_runner(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("hosts").write_text(HOSTS)
    arguments = command(config("train.launcher.hostfile=hosts"), tmp_path)
    assert arguments[1:3] == ["-m", "deepspeed.launcher.runner"]
    assert (value(arguments, "--hostfile"), value(arguments, "--num_gpus")) == ("hosts", "2")


def test_the_runner_gets_the_full_path_of_a_hostfile(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "hosts").write_text(HOSTS)
    arguments = command(config("train.launcher.hostfile=~/hosts"), tmp_path)
    assert value(arguments, "--hostfile") == str(tmp_path / "hosts")


def test_more_ranks_than_visible_devices_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    refuse_missing_devices(config("train.launcher.ranks_per_node=4"))  # ranks can share a CPU
    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
    refuse_missing_devices(config("train.launcher.ranks_per_node=2"))
    with pytest.raises(
        ConfigError,
        match="ranks_per_node is 4; each rank needs a device of its own, and 2 are visible",
    ):
        refuse_missing_devices(config("train.launcher.ranks_per_node=4"))


def test_a_stop_after_the_last_step_stops_the_later_stages(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def launch(_: Config, run_dir: Path, temporary: Path) -> None:
        (temporary / "done.json").write_text("{}")
        (temporary / "stop").touch()

    monkeypatch.setattr(stage, "launch", launch)
    for name in ("_copy_tokenizer", "_raise_limits", "_prove_reloaded"):
        monkeypatch.setattr(stage, name, lambda *_: None)
    with pytest.raises(
        Stopped, match="train is done; the stages after it were not started; run the same command"
    ):
        stage.run(config(), {}, tmp_path / "train")
    assert "skipped" in stage.run(config(), {}, tmp_path / "train")[1]


def test_a_finished_training_is_skipped_despite_an_unfinished_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Trained at one rate and begun at another: with the first rate the stage is done."""
    monkeypatch.setattr(
        stage, "launch", lambda _, run_dir, temporary: (temporary / "done.json").write_text("{}")
    )
    for name in ("_copy_tokenizer", "_raise_limits", "_prove_reloaded"):
        monkeypatch.setattr(stage, name, lambda *_: None)
    stage.run(config("train.optimizer.lr=1e-3"), {}, tmp_path / "train")
    write_checkpoint(tmp_path, config("train.optimizer.lr=2e-3"))
    assert "skipped" in stage.run(config("train.optimizer.lr=1e-3"), {}, tmp_path / "train")[1]


def write_checkpoint(folder: Path, config: Config) -> Path:
    """A checkpoint of an unfinished training. Returns its folder."""
    cache_key = {"inputs": {}, "seed": config.seed, "train": content(config.train)}
    cache_key["seq_len"] = config.data.seq_len
    checkpoint = folder / "train.tmp" / "checkpoints" / "step-00000004"
    checkpoint.mkdir(parents=True)
    metadata = {"schema": 1, "step": 4, "files": {}, "content": cache_key}
    (checkpoint / "complete.json").write_text(json.dumps(metadata))
    return checkpoint


@pytest.mark.parametrize(
    ("visible", "expected"),
    [("3,1,2", ["3", "1"]), ("GPU-a,GPU-b", ["GPU-a", "GPU-b"]), ("", [0, 1]), ("5", [0, 1])],
)
def test_only_visible_devices_are_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, visible: str, expected: list[object]
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert devices(command(config(), tmp_path)) == {"localhost": expected}


def test_ranks_that_do_not_fit_the_model_are_refused(tmp_path: Path) -> None:
    """S2-Attn against sp_size; ranks of all machines against sp_size and zero_hpz_size."""
    base = tiny_config(num_attention_heads=4)
    (tmp_path / "hosts").write_text(f"# machines\n{HOSTS}")
    hosts = f"train.launcher.hostfile={tmp_path / 'hosts'}"
    assert world_size(config()) == 2 and world_size(config(hosts)) == 4
    eight = "train.launcher.ranks_per_node=8"
    assert refuse_unfit_ranks(config("train.sp_size=2"), base) is None
    assert refuse_unfit_ranks(config(eight, "train.sp_size=8"), base) is None
    warning = refuse_unfit_ranks(config("train.sp_size=4", hosts), base)
    assert warning is not None
    assert warning.startswith("train.sp_size is 4, more than the 2 ranks of a machine")
    sp_size = "train.sp_size is 8; it must divide the number of ranks, 4; set train.sp_size=4"
    s2_group = "s2_group is 16; .* divides the 4 attention heads of llama, which 8 does not"
    hpz_size = "train.memory.zero_hpz_size is 3; .* 4; set train.memory.zero_hpz_size=2"
    for message, overrides in {
        sp_size: ["train.sp_size=8", hosts],
        s2_group: [eight, "train.sp_size=8", "train.attention.s2_group=16"],
        "train.launcher.hostfile is none; no such file": ["train.launcher.hostfile=none"],
        hpz_size: ["train.zero_stage=3", "train.memory.zero_hpz_size=3", hosts],
    }.items():
        with pytest.raises(ConfigError, match=message):
            refuse_unfit_ranks(config(*overrides), base)


@pytest.mark.parametrize(("code", "expected"), [(2, 2), (3, 3), (75, 75), (1, 1), (-9, 1)])
def test_a_rank_that_exits_ends_the_others_and_gives_the_exit_code(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int, expected: int
) -> None:
    """Rank 0 would sleep for minutes; rank 1 exits."""
    (tmp_path / "stand_in.py").write_text(RANK)
    (tmp_path / "code").write_text(str(code))

    def stand_in_command(*args: Any) -> list[str]:
        return ["stand_in" if word == "ropewalk.train" else word for word in command(*args)]

    monkeypatch.setattr(ranks, "command", stand_in_command)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    started = time.monotonic()
    with pytest.raises(RopewalkError) as ended:
        launch(config(), tmp_path, tmp_path)
    assert ended.value.exit_code == expected
    assert isinstance(ended.value, Stopped) == (expected == 75)
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


def process_ids(folder: Path) -> list[int]:
    """The process ids of both ranks, once both have written them."""
    until = time.monotonic() + 60
    while len(result := [int(file.stem) for file in folder.glob("*.pid")]) < 2:
        assert time.monotonic() < until
        time.sleep(0.1)
    return result


def test_a_job_that_gets_sigterm_stops_in_good_order(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Slurm sends SIGTERM to the command, to the launcher and to the ranks."""
    (tmp_path / "sitecustomize.py").write_text(JOB)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))

    def end() -> None:
        os.killpg(os.getpgid(process_ids(tmp_path)[0]), signal.SIGTERM)
        os.kill(os.getpid(), signal.SIGTERM)

    sender = threading.Thread(target=end)
    sender.start()
    with pytest.raises(
        Stopped, match="train stopped in good order; run the same command again to resume"
    ):
        launch(config(), tmp_path, tmp_path)
    sender.join()


def test_ranks_do_not_outlive_a_command_that_is_killed(tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text(JOB)
    (tmp_path / "command.py").write_text(
        "from pathlib import Path\n"
        "from ropewalk.launch.config.compose import compose\n"
        "from ropewalk.train import stage\n"
        f"folder = Path({str(tmp_path)!r})\n"
        "config = compose(['recipe=demo', 'train.launcher.ranks_per_node=2'])\n"
        "stage.launch(config, folder, folder)"
    )
    command = subprocess.Popen(
        [sys.executable, tmp_path / "command.py"], env={**os.environ, "PYTHONPATH": str(tmp_path)}
    )
    result = process_ids(tmp_path)
    command.kill()
    until = time.monotonic() + 20
    while any(Path("/proc", str(pid)).exists() for pid in result):
        assert time.monotonic() < until
        time.sleep(0.1)
    command.wait()


def test_a_second_start_is_refused_while_ranks_run_in_the_folder(tmp_path: Path) -> None:
    with lock_or_refuse(tmp_path, "train.tmp"):
        result = subprocess.run(
            [sys.executable, "-m", "ropewalk.train", tmp_path], capture_output=True, text=True
        )
    assert result.returncode == 2
    assert f"name is {tmp_path.name}; another ropewalk is at work in that run" in result.stderr


def test_an_unfinished_training_of_other_settings_is_refused(
    tmp_path: Path,
) -> None:
    """The checkpoint has another rate; nothing starts, and the checkpoint stays."""
    checkpoint = write_checkpoint(tmp_path, config("train.optimizer.lr=1e-3"))
    with pytest.raises(
        ConfigError,
        match=r"^train.optimizer.lr was 0.001, is 0.002 in the checkpoint step-00000004; a run is",
    ):
        stage.run(config("train.optimizer.lr=2e-3"), {}, tmp_path / "train")
    assert checkpoint.is_dir()


@pytest.mark.parametrize(
    "kind",
    [
        ["launch=slurm", "launch.slurm.gpus_per_node=8"],
        ["launch=kubernetes", "launch.kubernetes.image=a"],
        ["launch=skypilot", "launch.skypilot.accelerators=H100:8"],
    ],
    ids=lambda words: words[0],
)
def test_ranks_are_checked_as_the_nodes_of_a_job_will_have_them(
    monkeypatch: pytest.MonkeyPatch, kind: list[str]
) -> None:
    """On the machine that submits it, which has two GPUs of its own."""
    from ropewalk.launch.cluster.slurm import as_in_the_job

    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
    words = ["recipe=demo", "launch.nodes=3", "train.sp_size=8", *kind]
    assert refuse_unfit_ranks(as_in_the_job(compose(words)), tiny_config()) is None
    other = as_in_the_job(compose([*words, "train.sp_size=16"]))
    with pytest.raises(ConfigError, match="train.sp_size is 16; .* number of ranks, 24"):
        refuse_unfit_ranks(other, tiny_config())
