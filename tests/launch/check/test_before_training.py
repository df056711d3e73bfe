"""`check=auto`: once for the same machines and mesh, and no training after a line that failed."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from ropewalk.conf.errors import ProofError
from ropewalk.launch.check import before_training, command
from ropewalk.launch.check.line import Line
from ropewalk.launch.config.compose import compose
from ropewalk.launch.pipeline.run import Run

GOOD = Line.judged("disk", True, "9 GiB", "3 GiB", "")
BAD = Line.judged("clocks", False, "9 s", "5 s", "set them")


def run_of(folder: Path, *words: str) -> Run:
    return Run(compose(["recipe=demo", f"runs_dir={folder}", *words]))


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[Line]:
    """The lines of each self-test; one is taken from the list at each call."""
    lines: list[Line] = []
    monkeypatch.setattr(command, "check", lambda run, show: [lines.pop(0)])
    return lines


def test_it_runs_once_for_the_same_machines_and_mesh(tmp_path: Path, calls: list[Line]) -> None:
    before_training.refuse_untested(run_of(tmp_path))  # off
    calls += [GOOD, GOOD, GOOD]
    run = run_of(tmp_path, "check=auto")
    for _ in range(2):
        before_training.refuse_untested(run)
    assert len(calls) == 2
    content = json.loads((run.folder / "check" / "check.json").read_text())
    assert content["conditions"]["ranks"] == 1
    other = run_of(tmp_path, "check=auto", "train.launcher.ranks_per_node=2", "train.sp_size=2")
    before_training.refuse_untested(other)
    assert len(calls) == 1
    before_training.refuse_untested(Run(replace(run.config)))
    assert not calls


def test_a_failed_line_ends_the_command_each_time(tmp_path: Path, calls: list[Line]) -> None:
    calls += [BAD, BAD]
    for _ in range(2):
        with pytest.raises(ProofError, match="clocks must pass before this training starts"):
            before_training.refuse_untested(run_of(tmp_path, "check=auto"))
    assert not calls


def test_a_damaged_result_is_made_anew(tmp_path: Path, calls: list[Line]) -> None:
    run = run_of(tmp_path, "check=auto")
    for content in ("[]", "{", '{"checks": [], "conditions": 1}'):
        calls.append(GOOD)
        (run.folder / "check").mkdir(parents=True, exist_ok=True)
        (run.folder / "check" / "check.json").write_text(content)
        before_training.refuse_untested(run)
        assert not calls
