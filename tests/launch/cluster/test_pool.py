"""Jobs of a sweep in a queue that answers as Slurm does."""

import os
import signal
import subprocess
from pathlib import Path

import pytest

from ropewalk.launch.cluster import queue
from ropewalk.launch.cluster.pool import SlurmPool
from ropewalk.launch.cluster.queue import JobState
from ropewalk.launch.config.compose import compose
from ropewalk.launch.sweep.jobs import Job, Outcome

DATA = Job("s-data", ("name=s-data", "recipe=demo"), "data")
RUNS = [Job(name, (f"name={name}", "launch=slurm"), after=(DATA.name,)) for name in ("a b", "c")]


def state(job: str, name: str, code: int = 0, nodes: str = "n1", restarts: int = 0) -> JobState:
    return JobState(job, name, "None", code, 0, restarts, nodes, 7)


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What the queue was asked: its numbers are 1, 2, ..."""
    made: list[str] = []

    def submit(script: Path, after: list[str]) -> str:
        made.append(f"submit {script.name} after {','.join(after)}")
        return str(sum(call.startswith("submit") for call in made))

    monkeypatch.setattr(queue, "submit", submit)
    monkeypatch.setattr(queue, "refuse_impossible", lambda s: made.append(f"test {s.name}"))
    monkeypatch.setattr(queue, "cancel", lambda jobs: made.append(f"cancel {','.join(jobs)}"))
    return made


def pool(folder: Path) -> SlurmPool:
    launch = compose(["recipe=demo", "launch=slurm"]).launch
    return SlurmPool(launch, "s", folder / "slurm", folder / "logs", poll_s=0)


def run(
    folder: Path, monkeypatch: pytest.MonkeyPatch, answers: list[list[JobState]]
) -> list[Outcome]:
    monkeypatch.setattr(queue, "states", lambda jobs: answers.pop(0))
    return [*pool(folder).run([DATA, *RUNS])]


def test_runs_are_an_array_after_their_data_and_their_outcomes_come_as_they_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, calls: list[str]
) -> None:
    """A run that was pre-empted waits again before it ends."""
    done, failed = state("1", "COMPLETED"), state("2_1", "FAILED", 3)
    outcomes = run(
        tmp_path,
        monkeypatch,
        [
            [state("1", "RUNNING"), state("2_0", "PENDING", nodes=""), state("2_1", "PENDING")],
            [done, state("2_0", "RUNNING"), failed],
            [state("2_0", "PENDING", restarts=1)],
            [state("2_0", "COMPLETED", restarts=1)],
        ],
    )
    assert calls == [
        *("test 1-data.sh", "test 2-run.sh"),
        *("submit 1-data.sh after ", "submit 2-run.sh after 1"),
    ]
    assert [(o.job.name, o.exit_code, o.seconds, o.reason) for o in outcomes] == [
        ("s-data", 0, 7.0, ""),
        ("c", 3, 7.0, "job 2_1 failed"),
        ("a b", 0, 7.0, "queued again 1 times"),
    ]
    assert [o.log for o in outcomes] == [tmp_path / "logs" / f"{o.job.name}.log" for o in outcomes]


def test_runs_whose_data_failed_and_jobs_that_slurm_forgot_have_an_outcome(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, calls: list[str]
) -> None:
    outcomes = run(
        tmp_path,
        monkeypatch,
        [[state("1", "FAILED", 1), state("2_0", "CANCELLED", nodes="")]],
    )
    assert {o.job.name: o.exit_code for o in outcomes} == {"s-data": 1, "a b": None, "c": None}
    assert "job 2_0 was cancelled" in outcomes[1].reason
    assert "Slurm knows job 2_1 no more" in outcomes[2].reason


def test_a_sweep_that_is_stopped_cancels_its_jobs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, calls: list[str]
) -> None:
    def states(_: object) -> list[JobState]:
        if "cancel 1,2" not in calls:
            os.kill(os.getpid(), signal.SIGTERM)
            return [state(job, "RUNNING") for job in ("1", "2_0", "2_1")]
        return [state(job, "CANCELLED") for job in ("1", "2_0", "2_1")]

    monkeypatch.setattr(queue, "states", states)
    handler = signal.getsignal(signal.SIGTERM)
    assert {outcome.exit_code for outcome in pool(tmp_path).run([DATA, *RUNS])} == {75}
    assert signal.getsignal(signal.SIGTERM) == handler


def test_each_job_prints_into_its_own_log(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pool(tmp_path).show([DATA, *RUNS])
    assert "2-run.sh" in capsys.readouterr().out
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "srun").write_text('#!/bin/sh\nprintf "%s|" "$@"\n')
    (tmp_path / "bin" / "srun").chmod(0o755)
    env = {"PATH": f"{tmp_path / 'bin'}:{os.environ['PATH']}", "SLURM_ARRAY_TASK_ID": "0"}
    for _ in range(2):
        subprocess.run(["bash", tmp_path / "slurm" / "2-run.sh"], env=env, check=True)
    log = (tmp_path / "logs" / "a b.log").read_text()
    assert log.count("|run|name=a b|launch=external|") == 2
    assert not (tmp_path / "logs" / "c.log").exists()


def test_the_arrays_can_be_submitted_by_hand(tmp_path: Path) -> None:
    pool(tmp_path).show([DATA, *RUNS])
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "sbatch").write_text(f'#!/bin/sh\necho "$@" >> {tmp_path}/calls\necho 17\n')
    (tmp_path / "bin" / "sbatch").chmod(0o755)
    path = f"{tmp_path / 'bin'}:{os.environ['PATH']}"
    subprocess.run([tmp_path / "slurm" / "submit.sh"], env={"PATH": path}, check=True)
    assert (tmp_path / "calls").read_text().splitlines() == [
        "--parsable 1-data.sh",
        "--parsable --dependency=afterok:17 --kill-on-invalid-dep=yes 2-run.sh",
    ]
