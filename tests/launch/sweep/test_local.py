"""Jobs of a local pool: at once, after each other, failing alone, stopped together."""

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pool_commands
import psutil

from ropewalk.launch.sweep.jobs import Job, Outcome
from ropewalk.launch.sweep.local import LocalPool


def pool(tmp_path: Path, size: int = 1) -> LocalPool:
    return LocalPool(size, tmp_path / "logs", pool_commands.command)


def codes(outcomes: list[Outcome]) -> dict[str, int | None]:
    return {outcome.job.name: outcome.exit_code for outcome in outcomes}


def test_a_job_that_fails_or_dies_stops_no_other(tmp_path: Path) -> None:
    jobs = [
        Job("refused", ("exit", "2")),
        Job("killed", ("die",)),
        Job("gate", ("exit", "3")),
        Job("good", ("nothing",)),
    ]
    outcomes = [*pool(tmp_path).run(jobs)]
    assert codes(outcomes) == {"refused": 2, "killed": -signal.SIGKILL, "gate": 3, "good": 0}
    assert [o.job.name for o in outcomes if o.is_done] == ["gate", "good"]
    assert (tmp_path / "logs" / "good.log").read_text() == f"nothing in {os.getcwd()}\n"


def test_as_many_jobs_are_at_work_as_the_pool_has_processes(tmp_path: Path) -> None:
    """Three jobs of which two wait for each other end well in a pool of two."""
    meeting = tmp_path / "meeting"
    meeting.mkdir()
    jobs = [Job("first", ("nothing",)), *(Job(name, ("meet", str(meeting), "2")) for name in "ab")]
    assert codes([*pool(tmp_path, 2).run(jobs)]) == {"first": 0, "a": 0, "b": 0}


def test_a_job_starts_after_those_that_it_needs_and_not_at_all_if_one_failed(
    tmp_path: Path,
) -> None:
    jobs = [
        Job("data", ("nothing",)),
        Job("other-data", ("exit", "1")),
        Job("run", ("nothing",), after=("data",)),
        Job("other-run", ("nothing",), after=("data", "other-data")),
        Job("last", ("nothing",), after=("other-run",)),
    ]
    outcomes = [*pool(tmp_path, 3).run(jobs)]
    order = [outcome.job.name for outcome in outcomes]
    assert order.index("data") < order.index("run")
    assert codes(outcomes) == {
        "data": 0, "other-data": 1, "run": 0, "other-run": None, "last": None
    }  # fmt: skip
    reasons = {outcome.job.name: outcome.reason for outcome in outcomes}
    assert reasons["other-run"] == "other-data before it did not end well"


def test_a_signal_asks_the_jobs_at_work_to_stop_and_starts_no_other(tmp_path: Path) -> None:
    started = tmp_path / "started"
    jobs = [Job("at-work", ("serve", str(started))), Job("waiting", ("nothing",))]

    def interrupt() -> None:
        while not started.exists():
            time.sleep(0.02)
        os.kill(os.getpid(), signal.SIGTERM)

    thread = threading.Thread(target=interrupt)
    before = signal.getsignal(signal.SIGTERM)
    thread.start()
    outcomes = [*pool(tmp_path).run(jobs)]
    thread.join()
    assert codes(outcomes) == {"at-work": 75, "waiting": None}
    assert outcomes[0].is_stopped and outcomes[1].reason == "the sweep was stopped"
    assert signal.getsignal(signal.SIGTERM) is before


def test_the_jobs_of_a_sweep_that_is_killed_end_with_it(tmp_path: Path) -> None:
    started = tmp_path / "started"
    program = [sys.executable, pool_commands.__file__, str(tmp_path / "logs"), str(started)]
    with subprocess.Popen(program) as sweep:
        job = process_of(started)
        sweep.kill()
    job.wait(timeout=30)
    assert not job.is_running()


def process_of(started: Path) -> psutil.Process:
    """The job that wrote its number."""
    deadline = time.monotonic() + 60
    while not (started.exists() and started.read_text()):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    return psutil.Process(int(started.read_text()))
