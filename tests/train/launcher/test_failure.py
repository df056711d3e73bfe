"""A rank that fails is named, ends the others and sets the exit code."""

import json
import socket
import time
from pathlib import Path

import pytest

from ropewalk.conf.errors import ConfigError, RopewalkError
from ropewalk.conf.schema import Config
from ropewalk.launch.config.compose import compose
from ropewalk.train.launcher import failure, ranks
from ropewalk.train.launcher.command import command
from ropewalk.train.launcher.ranks import launch

# rank 0 waits in a collective that rank 1 never joins
TRAIN = """\
import os, signal, sys
from pathlib import Path
import torch
import torch.distributed as dist
from ropewalk.conf.errors import ConfigError

def train(run_dir):
    dist.init_process_group("gloo")
    {failure}
    dist.all_reduce(torch.zeros(1))
"""
WORKER = """
from ropewalk.train import worker
worker.train = train
worker.run(Path(sys.argv[1]))
"""
# the same without DeepSpeed's imports
LIGHT_WORKER = """
from ropewalk.train.launcher import failure
try:
    train(Path(sys.argv[1]))
except Exception as error:
    sys.exit(failure.report(error, Path(sys.argv[1]) / "train.tmp"))
"""
REFUSED = 'raise ConfigError("train.x is 1; it must be 2; set 2")'
HOST = socket.gethostname()


def launch_failing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failure_code: str, worker: str = LIGHT_WORKER
) -> RopewalkError:
    """Launch two ranks that run `failure_code`, over the note of an earlier run."""
    (tmp_path / "stand_in.py").write_text(TRAIN.format(failure=failure_code) + worker)
    temporary = tmp_path / "train.tmp"
    temporary.mkdir()
    (temporary / failure.NOTE).write_text('{"exit_code": 3, "of": "an earlier run"}')

    def stand_in_command(config: Config, run_dir: Path) -> list[str]:
        arguments = command(config, run_dir)
        arguments[arguments.index("ropewalk.train")] = "stand_in"
        return arguments

    monkeypatch.setattr(ranks, "command", stand_in_command)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    started = time.monotonic()
    with pytest.raises(RopewalkError) as error:
        launch(compose(["recipe=demo", "train.launcher.ranks_per_node=2"]), tmp_path, temporary)
    assert time.monotonic() - started < 120
    return error.value


def test_a_setting_that_one_rank_refuses_ends_all_with_its_exit_code(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    refuse = f'if os.environ["RANK"] == "1": {REFUSED}'
    error = launch_failing(tmp_path, monkeypatch, refuse, WORKER)
    assert error.exit_code == 2 and f"exit code 2; rank 1 on {HOST} was the first" in str(error)
    message = capfd.readouterr().err
    assert message.count(f"rank 1 on {HOST}: train.x is 1; it must be 2; set 2") == 1
    assert "Traceback" not in message


def test_a_lost_connection_is_reported_in_full_if_no_rank_left_a_note(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    error = RuntimeError("NCCL error: unhandled cuda error, invalid device ordinal")
    assert failure.report(error, tmp_path) == 1
    assert "invalid device ordinal" in capsys.readouterr().err
    note = {"rank": 3, "host": "node7", "exit_code": 2, "error": "x"}
    (tmp_path / failure.NOTE).write_text(json.dumps(note))
    assert failure.report(error, tmp_path) == 2
    assert "rank 3 on node7 ended" in capsys.readouterr().err


def test_an_error_of_every_rank_is_reported_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    assert launch_failing(tmp_path, monkeypatch, REFUSED).exit_code == 2
    assert capfd.readouterr().err.count("train.x is 1") == 1


def test_a_killed_rank_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    kill = 'if os.environ["RANK"] == "1": os.kill(os.getpid(), signal.SIGKILL)'
    error = launch_failing(tmp_path, monkeypatch, kill)
    assert error.exit_code == 1
    told = f"rank 1 on {HOST} was ended by SIGKILL, as the system does when memory runs out"
    assert told in str(error)
    captured = capfd.readouterr()
    assert f"rank 1 on {HOST}: ended by SIGKILL" in captured.err
    assert "Traceback" not in captured.err and "exits with return code" not in captured.out


def test_a_rank_that_only_lost_its_peers_exits_with_the_first_ranks_code(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """An equal error is reported once, another error in full with its traceback."""
    monkeypatch.setenv("RANK", "2")
    assert failure.report(ConfigError("first"), tmp_path) == 2
    monkeypatch.setenv("RANK", "3")
    assert failure.report(ConfigError("first"), tmp_path) == 2
    assert failure.report(RuntimeError("Connection closed by peer [127.0.0.1]:1"), tmp_path) == 2
    assert failure.report(ValueError("second"), tmp_path) == 1
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == f"rank 2 on {HOST}: first"
    assert lines[1] == f"rank 3 on {HOST}: ended because rank 2 on {HOST} ended (RuntimeError)"
    assert lines[2] == f"rank 3 on {HOST}: ValueError: second"
    assert json.loads((tmp_path / failure.NOTE).read_text())["error"] == "first"
    assert [p.name for p in tmp_path.iterdir()] == [failure.NOTE]


def test_without_a_folder_the_rank_still_reports_its_error(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert failure.report(ConfigError("alone"), tmp_path / "none") == 2
    assert "alone" in capsys.readouterr().err
