"""`ropewalk check` on real ranks: it passes, and each fault in what trains fails by name."""

import json
import resource
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import check_ranks
import pytest
import ranks

from ropewalk.launch.check import command, rehearsal, started_ranks
from ropewalk.launch.check.line import FAIL, PASS, SKIP, Line, failed
from ropewalk.launch.config.compose import compose
from ropewalk.launch.pipeline.run import Run

SETTINGS = [
    "recipe=demo",
    "train.sp_size=2",
    "train.micro_batch_size=1",
    "train.global_batch_tokens=16384",
    "train.memory.activation_checkpointing=true",
]


def prepared(folder: Path, count: int, *more: str) -> Path:
    """A folder as the command leaves it to `count` ranks."""
    folder.mkdir()
    config = compose([*SETTINGS, f"train.launcher.ranks_per_node={count}", *more], "check")
    rehearsal.prepare(Run(config), folder)
    return folder


def test_two_ranks_pass(tmp_path: Path) -> None:
    folder = prepared(tmp_path / "two", 2)
    lines: list[Line] = ranks.run(2, check_ranks.lines_of_checks, folder)[0]
    assert not failed(lines), [line.text() for line in lines if line.status == FAIL]
    names = [line.name for line in lines]
    assert len(set(names)) == len(names) > 25


# the checks that a fault is given to, and what of their lines must fail
NUMBERS = ("loss", "gradient norm", "gradients")
CASES: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "loss_averaged_per_rank": (("one process", "parallel"), ("against transformers", *NUMBERS)),
    "labels_shifted_after_slicing": (("batches", "parallel"), ("handed over: labels", *NUMBERS)),
    "positions_local": (("batches", "parallel"), ("handed over: positions", *NUMBERS)),
    "mask_dropped": (("batches", "one process"), ("documents kept apart", "against transformers")),
    "gradient_not_reduced": (("parallel",), ("gradient norm", "gradients")),
    "slow_rank": (("speed",), ("matrix product",)),
    "version_differs": (("hosts",), ("versions",)),
}


FORMS = [
    pytest.param((2, 1), id="sp 2, ZeRO 1"),
    pytest.param((4, 1), id="sp 2 x dp 2, ZeRO 1", marks=pytest.mark.slow),
    pytest.param((4, 3), id="sp 2 x dp 2, ZeRO 3", marks=pytest.mark.slow),
]


@pytest.fixture(scope="module", params=FORMS)
def faulty(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, list[Line]]:
    """The lines of every case, in one start of the ranks; a case without a fault comes last.

    In a folder of their own: a checkpoint of a whole self-test would be loaded.
    """
    count, stage = request.param
    folder = tmp_path_factory.mktemp("check") / "ranks"
    prepared(folder, count, f"train.zero_stage={stage}")
    cases = [(fault, checks) for fault, (checks, _) in CASES.items()]
    last = ("no_fault", ("hosts", "speed", "batches", "one process", "parallel"))
    lines: Any = ranks.run(count, check_ranks.lines_with_faults, folder, [*cases, last])[0]
    return lines  # type: ignore[no-any-return]


@pytest.mark.parametrize("fault", CASES)
def test_a_fault_fails_by_name(faulty: dict[str, list[Line]], fault: str) -> None:
    names = failed(faulty[fault])
    expected = CASES[fault][1]
    assert len(names) == len(expected), names
    for part in expected:
        assert any(part in name for name in names), (part, names)
    assert all(line.way_out for line in faulty[fault] if line.status == FAIL)


def test_no_fault_is_seen_where_none_is(faulty: dict[str, list[Line]]) -> None:
    assert not failed(faulty["no_fault"])


def test_a_fault_is_told_with_its_place(faulty: dict[str, list[Line]]) -> None:
    told = {
        fault: " ".join(line.value for line in lines if line.status == FAIL)
        for fault, lines in faulty.items()
    }
    assert "rank 1 has" in told["slow_rank"]
    assert "2.13.0 on rank 1 (" in told["version_differs"]
    assert "token 49: 0 in place of 49" in told["positions_local"]


@pytest.mark.slow
@pytest.mark.parametrize("is_killed", [False, True])
def test_a_rank_that_fails_is_named_with_its_check(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, is_killed: bool
) -> None:
    """Through the launcher. The checks after it are left out, and the command ends at once."""
    monkeypatch.setenv("PYTHONPATH", str(Path(check_ranks.__file__).parent))
    if is_killed:
        monkeypatch.setenv("KILLED_AT", str(tmp_path / "killed"))
    words = [*SETTINGS, f"runs_dir={tmp_path / 'runs'}", f"cache_dir={tmp_path / 'cache'}"]
    run = Run(compose([*words, "train.launcher.ranks_per_node=2"], "check"))
    lines = {x.name: x for x in command.check(run, lambda line: None, module="check_dies")}
    end = time.time()
    assert lines["versions"].status == PASS
    assert lines["speed"].status == FAIL
    # of a killed rank its launcher or rank 0, whichever is first to know
    errors = (": ended by SIGKILL", " ended without a message, last seen speed")
    errors = errors if is_killed else (": an error that only this rank has",)
    starts = tuple(f"rank 1 on {socket.gethostname()}{error}" for error in errors)
    assert lines["speed"].value.startswith(starts)
    assert lines["shared folder"].status == SKIP and lines["parallel"].status == SKIP
    assert (run.folder / command.TEMPORARY / started_ranks.LOG).read_text()
    if is_killed:
        assert end - float((tmp_path / "killed").read_text()) < 10


@pytest.mark.slow
def test_the_command_on_four_ranks(tmp_path: Path) -> None:
    """Within 90 s of two cores; what the machine does beside it does not count."""
    words = ["train.launcher.ranks_per_node=4", "train.zero_stage=3", *SETTINGS]
    words.append("train.precision=bf16")  # in fp32 there is no plan of a GPU's step
    folders = [f"runs_dir={tmp_path / 'runs'}", f"cache_dir={tmp_path / 'cache'}"]
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    words = [sys.executable, "-m", "ropewalk.launch.cli", "check", "--json", *words, *folders]
    result = subprocess.run(words, capture_output=True, text=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert result.returncode == 0, result.stderr
    checks = json.loads(result.stdout)["checks"]
    assert {entry["status"] for entry in checks} == {"pass", "skip"}
    assert [entry["name"] for entry in checks if entry["status"] == "skip"] == [
        "locked memory",
        "network",
        "GPU of rank 0",
        "host link",
        "transport",
        "real step, seconds beside the plan",
    ]
    assert (tmp_path / "runs" / "demo" / "check" / "index.html").is_file()
    used = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    assert used < 2 * 90


@pytest.mark.slow
@pytest.mark.parametrize("stage", [1, 3])
def test_four_ranks_pass(tmp_path: Path, stage: int) -> None:
    folder = prepared(tmp_path / "four", 4, f"train.zero_stage={stage}")
    lines: list[Line] = ranks.run(4, check_ranks.lines_of_checks, folder)[0]
    assert not failed(lines), [line.text() for line in lines if line.status == FAIL]
