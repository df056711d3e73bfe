"""A rank that fails, under DeepSpeed's own launcher: it says who it is, the others end at once, and its code comes through."""

import json
import socket
import time
from pathlib import Path

import pytest

from ropewalk.conf.errors import ConfigError, RopewalkError
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
    {does}
    dist.all_reduce(torch.zeros(1))
"""
WHOLE_RANK = """
from ropewalk.train import worker
worker.train = train
worker.run(Path(sys.argv[1]))
"""
# without DeepSpeed's imports
LIGHT_RANK = """
from ropewalk.train.launcher import failure
try:
    train(Path(sys.argv[1]))
except Exception as error:
    sys.exit(failure.report(error, Path(sys.argv[1]) / "train.tmp"))
"""
REFUSED = 'raise ConfigError("train.x is 1; it must be 2; set 2")'
HOST = socket.gethostname()


def ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, does: str, rank: str = LIGHT_RANK
) -> RopewalkError:
    (tmp_path / "stand_in.py").write_text(TRAIN.format(does=does) + rank)
    (tmp_path / "train.tmp").mkdir()
    (tmp_path / "train.tmp" / failure.NOTE).write_text('{"exit_code": 3, "of": "a run before"}')
    whole = command
    monkeypatch.setattr(
        ranks,
        "command",
        lambda *at: ["stand_in" if word == "ropewalk.train" else word for word in whole(*at)],
    )
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    started = time.monotonic()
    with pytest.raises(RopewalkError) as error:
        launch(
            compose(["recipe=demo", "train.launcher.ranks_per_node=2"]),
            tmp_path,
            tmp_path / "train.tmp",
        )
    assert time.monotonic() - started < 120
    return error.value


def test_a_setting_that_one_rank_refuses_ends_all_with_its_code(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    error = ended(tmp_path, monkeypatch, f'if os.environ["RANK"] == "1": {REFUSED}', WHOLE_RANK)
    assert error.exit_code == 2 and f"exit code 2; rank 1 on {HOST} was the first" in str(error)
    message = capfd.readouterr().err
    assert message.count(f"rank 1 on {HOST}: train.x is 1; it must be 2; set 2") == 1
    assert "Traceback" not in message


def test_words_of_a_lost_connection_are_told_where_nobody_left_a_note(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    error = RuntimeError("NCCL error: unhandled cuda error, invalid device ordinal")
    assert failure.report(error, tmp_path) == 1
    assert "invalid device ordinal" in capsys.readouterr().err
    (tmp_path / failure.NOTE).write_text(
        '{"rank": 3, "host": "there", "exit_code": 2, "error": "x"}'
    )
    assert failure.report(error, tmp_path) == 2
    assert "rank 3 on there ended" in capsys.readouterr().err


def test_what_every_rank_refuses_is_said_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    assert ended(tmp_path, monkeypatch, REFUSED).exit_code == 2
    assert capfd.readouterr().err.count("train.x is 1") == 1


def test_a_killed_rank_is_not_hidden_behind_the_ones_that_lost_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    error = ended(
        tmp_path, monkeypatch, 'if os.environ["RANK"] == "1": os.kill(os.getpid(), signal.SIGKILL)'
    )
    assert error.exit_code == 1 and "was the first" not in str(error)
    assert "Traceback" not in capfd.readouterr().err


def test_notes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Another error is told in full, with its traceback; who only lost the others leaves with the first one's code."""
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


def test_without_a_folder_the_rank_still_says_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert failure.report(ConfigError("alone"), tmp_path / "none") == 2
    assert "alone" in capsys.readouterr().err
