"""The state of a run: interrupted, running, stopped, failed or finished; its stage and phase."""

import os
import signal
import subprocess
import sys
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import pytest
from run_folders import LOOK, begin, end, finish, only, save, train_to

from ropewalk.conf.artifacts.locks import lock_path
from ropewalk.conf.artifacts.records import signed, write_json
from ropewalk.launch.check.line import Line, as_json
from ropewalk.launch.environment import disks
from ropewalk.launch.runs import listing


def test_a_run_after_its_rope_stage_was_interrupted(tmp_path: Path) -> None:
    begin(tmp_path)
    row = only(tmp_path)
    assert (row["name"], row["state"], row["stage"]) == ("first", "interrupted", "data")
    assert (row["step"], row["loss"], row["checkpoint"], row["left_s"]) == (None, None, None, None)


def test_a_killed_training_tells_step_loss_and_checkpoint(tmp_path: Path) -> None:
    run = begin(tmp_path)
    finish(run, "data")
    temporary = train_to(run, 30)
    save(temporary, 20)
    save(temporary, 28)
    (temporary / "checkpoints" / "step-00000030.tmp").mkdir()
    row = only(tmp_path)
    assert (row["state"], row["stage"], row["step"], row["steps"]) == (
        "interrupted",
        "train",
        30,
        40,
    )
    assert row["loss"] == 3 - 30 / 100 and row["checkpoint"] == "step-00000028"
    assert row["step_time_s"] == median(range(11, 31)) and row["left_s"] is None


def test_a_run_is_running_while_a_process_holds_its_lock(tmp_path: Path, holder: Any) -> None:
    run = begin(tmp_path)
    finish(run, "data")
    train_to(run, 10)
    process = holder(run)
    assert (only(tmp_path)["state"], only(tmp_path)["next"]) == ("running", "")
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert only(tmp_path)["state"] == "interrupted"
    holder(run / "train.tmp")  # ranks that outlive their command, for a moment
    row = only(tmp_path)
    assert (row["state"], row["stage"]) == ("running", "train")
    assert row["left_s"] == 30 * median(range(1, 11))


def test_a_look_lets_a_run_start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A command that starts while a look asks for the lock waits for a moment, and goes on."""
    from ropewalk.conf.artifacts import locks

    run = begin(tmp_path)
    lock_path(run).touch()
    script = LOOK
    process = subprocess.Popen(
        [sys.executable, "-c", script, str(lock_path(run))], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None and process.stdout.readline() == "held\n"
    monkeypatch.setattr(locks, "LOOK_S", 60)
    with locks.lock_or_refuse(run):
        assert locks.is_held(run)
    assert locks.is_held(run) is False
    process.wait()


def test_an_unreadable_lock_is_no_state(tmp_path: Path) -> None:
    run = begin(tmp_path)
    os.symlink("nowhere", lock_path(run))
    row = only(tmp_path)
    assert row["state"] == "unknown" and "lock cannot be read" in row["reason"]


@pytest.mark.parametrize(
    ("code", "state", "reason"),
    [
        (75, "stopped", ""),
        (1, "failed", "rank 3 on node-b: CUDA out of memory"),
        (3, "failed", "rank 3 on node-b: CUDA out of memory"),
    ],
)
def test_the_note_of_the_rank_that_ended_first_says_how(
    tmp_path: Path, code: int, state: str, reason: str
) -> None:
    run = begin(tmp_path)
    finish(run, "data")
    end(train_to(run, 5), code, "CUDA out\n of memory")
    assert (only(tmp_path)["state"], only(tmp_path)["reason"]) == (state, reason)


def test_a_failed_evaluation_has_its_note(tmp_path: Path) -> None:
    run = begin(tmp_path)
    finish(run, "data", "train")
    (run / "eval.tmp").mkdir()
    end(run / "eval.tmp", 1, "no memory")
    row = only(tmp_path)
    assert (row["state"], row["stage"]) == ("failed", "eval")
    assert row["reason"] == "rank 3 on node-b: no memory"


def test_the_first_unfinished_phase_is_shown(tmp_path: Path) -> None:
    run = begin(tmp_path)
    finish(run, "data")
    for name in ("1-short", "2"):
        (run / "phases" / name).mkdir(parents=True)
    train_to(run / "phases" / "1-short", 7)
    row = only(tmp_path)
    assert (row["phase"], row["stage"], row["step"]) == ("1/3 (short)", "train", 7)
    finish(run / "phases" / "1-short", "train")
    train_to(run / "phases" / "2", 3)
    assert (only(tmp_path)["phase"], only(tmp_path)["step"]) == ("2/3", 3)
    finish(run / "phases" / "2", "train")
    assert (only(tmp_path)["phase"], only(tmp_path)["step"]) == ("3/3", None)
    finish(run, "train", "eval", "report")
    assert (only(tmp_path)["phase"], only(tmp_path)["state"]) == ("3/3", "finished")


def test_a_stage_that_was_made_anew_and_cut_is_unfinished(tmp_path: Path) -> None:
    """The former result lies aside; the verb of the record ended long ago."""
    run = begin(tmp_path, command="ropewalk train recipe=demo")
    finish(run, "data", "train")
    (run / "eval.tmp").mkdir()
    assert (only(tmp_path)["state"], only(tmp_path)["stage"]) == ("interrupted", "eval")


def test_a_self_test_that_failed_is_the_reason(tmp_path: Path) -> None:
    """`ropewalk check` leaves it, alone or before the training that it forbids."""
    lines = [Line.judged("disk", False, "1 GiB", "2 GiB", "make room")]
    lines += [Line.judged("memory", True, "2 GiB", "1 GiB", ""), Line.skipped("GPU", "none")]
    run = begin(tmp_path)
    (run / "check").mkdir()
    write_json(run / "check" / "check.json", as_json(lines, {}))
    row = only(tmp_path)
    expected = "the self-test failed: disk (check/check.json)"
    assert (row["state"], row["reason"]) == ("interrupted", expected)
    train_to(run, 3)  # with check=off
    assert only(tmp_path)["reason"] == ""
    for name in ("config.yaml", "manifest.json", "rope.json"):
        (run / name).unlink()
    assert "no config.yaml; a self-test is in check/" in only(tmp_path)["reason"]


def test_on_a_disk_of_other_machines_their_processes_may_not_be_seen(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    begin(tmp_path)
    mounts = tmp_path / "mountinfo"
    mounts.write_text(f"1 0 0:30 / {tmp_path} rw shared:1 - nfs4 filer:/home rw\n")
    monkeypatch.setattr(disks, "mounted", partial(disks.mounted, mounts=mounts))
    row = listing.rows(str(tmp_path))[0]
    assert row["state"] == "interrupted" and "network's disk" in row["reason"]


def test_a_run_whose_job_waits_in_slurms_queue_is_submitted(tmp_path: Path) -> None:
    folder = tmp_path / "mine" / "slurm"
    folder.mkdir(parents=True)
    assert only(tmp_path)["state"] == "broken"  # a dry run wrote its scripts alone
    write_json(folder / "submitted.json", signed({"schema": 1, "jobs": {"data": "6", "run": "7"}}))
    row = only(tmp_path)
    assert row["state"] == "submitted" and row["reason"].startswith("job 7 of Slurm has begun no")
