"""A command within a Slurm job: its attempt's record, and when it is queued again."""

import json
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from ropewalk.conf.errors import ConfigError, RopewalkError, Stopped
from ropewalk.conf.schema import Config
from ropewalk.launch.cluster import attempts
from ropewalk.launch.cluster.attempts import SlurmJob
from ropewalk.launch.cluster.job import recorded
from ropewalk.launch.config.compose import compose

SHOWN = "JobId=7 JobState={state} Reason=None Restarts=0 ExitCode=0:0 NodeList=n1"
SCONTROL = """\
#!/bin/sh
echo "$@" >> {folder}/calls
[ "$2" = show ] && cat {folder}/shown
exit 0
"""


@pytest.fixture(autouse=True)
def slurm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A scontrol that says what the file `shown` has, and keeps its calls."""
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "scontrol").write_text(SCONTROL.format(folder=tmp_path))
    (tmp_path / "bin" / "scontrol").chmod(0o755)
    (tmp_path / "shown").write_text(SHOWN.format(state="RUNNING"))
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")
    for name in [name for name in os.environ if name.startswith("SLURM_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("ROPEWALK_RANK_LOGS", "")  # is set in a job, and reset after the test
    handlers = {n: signal.getsignal(n) for n in (signal.SIGUSR1, signal.SIGTERM)}
    yield
    for number, handler in handlers.items():
        signal.signal(number, handler)


def config(folder: Path, *words: str) -> Config:
    return compose(["recipe=demo", "name=run", f"runs_dir={folder}", *words])


def env(restarts: int = 0, **more: str) -> dict[str, str]:
    counted = {"SLURM_RESTART_COUNT": str(restarts)} if restarts else {}  # unset in the first
    return {"SLURM_JOB_ID": "7", "SLURM_JOB_NODELIST": "n1", **counted, **more}


def record(folder: Path, attempt: int = 1) -> dict[str, object]:
    file = folder / "run" / "slurm" / "job-7" / f"attempt-{attempt}" / "attempt.json"
    values: dict[str, object] = json.loads(file.read_text())
    return values


def calls(folder: Path) -> list[str]:
    return (folder / "calls").read_text().splitlines() if (folder / "calls").exists() else []


def test_nothing_is_recorded_outside_of_a_job(tmp_path: Path) -> None:
    with recorded(config(tmp_path), "train", {}):
        pass
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("error", "code"),
    [
        *((None, 0), (ConfigError("no"), 2), (RopewalkError("no"), 1), (OSError("no"), 1)),
        *((SystemExit(3), 3), (SystemExit("no"), 1)),
    ],
    ids=["done", "refused", "failed", "broken", "exit code", "exit message"],
)
def test_an_attempt_records_how_it_ended(
    tmp_path: Path, error: BaseException | None, code: int
) -> None:
    try:
        with recorded(config(tmp_path, "launch.slurm.requeue=true"), "train", env()):
            assert "exit_code" not in record(tmp_path)
            if error is not None:
                raise error
    except (RopewalkError, OSError, SystemExit) as raised:
        assert raised is error
    values = record(tmp_path)
    assert (values["job"], values["attempt"], values["nodes"]) == ("7", 1, "n1")
    assert (values["exit_code"], values["verb"], values["step"]) == (code, "train", 0)
    assert not [call for call in calls(tmp_path) if "requeue" in call]


@pytest.mark.parametrize(
    ("state", "requeue", "queued"),
    [("RUNNING", True, True), ("RUNNING", False, False), ("CANCELLED", True, False),
     ("PENDING", True, False)],
)  # fmt: skip
def test_a_stopped_job_is_queued_again_unless_slurm_or_the_user_decided(
    tmp_path: Path, state: str, requeue: bool, queued: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "shown").write_text(SHOWN.format(state=state))
    run = config(tmp_path, f"launch.slurm.requeue={str(requeue).lower()}")
    with pytest.raises(Stopped), recorded(run, "train", env()):
        raise Stopped("stopped in good order")
    assert ("requeue 7" in calls(tmp_path)) == queued
    assert record(tmp_path)["exit_code"] == 75
    os.kill(os.getpid(), signal.SIGTERM)  # which Slurm sends to a job that is queued again
    printed = capsys.readouterr().out
    assert ("it is queued again" in printed) == queued
    assert (f"it is {state.lower()} now" in printed) == (state != "RUNNING")


def test_slurms_signal_stops_a_stage_that_does_not_train(tmp_path: Path) -> None:
    run = config(tmp_path, "launch.slurm.requeue=true")
    with pytest.raises(KeyboardInterrupt), recorded(run, "data", env()):
        os.kill(os.getpid(), signal.SIGUSR1)
        time.sleep(5)
    assert record(tmp_path)["exit_code"] == 75 and "requeue 7" in calls(tmp_path)


def checkpoint(folder: Path, step: int) -> None:
    from ropewalk.conf.artifacts.records import signed, write_json

    path = folder / "run" / "train.tmp" / "checkpoints" / f"step-{step:08d}"
    path.mkdir(parents=True)
    write_json(path / "complete.json", signed({"schema": 2, "step": step, "files": {}}))


def test_the_guard_reads_what_the_attempts_left(tmp_path: Path) -> None:
    """The second attempt leaves a checkpoint, the third nothing: the fourth is not begun."""
    run = config(tmp_path)
    for restarts in range(2):
        if restarts:
            checkpoint(tmp_path, 4)
        with recorded(run, "train", env(restarts)):
            pass
    refusal = "^job 7: attempt 3 would begin where attempt 2 began"
    with pytest.raises(RopewalkError, match=refusal), recorded(run, "train", env(2)):
        pytest.fail("it began")
    assert record(tmp_path, 3)["exit_code"] == 1 and record(tmp_path, 3)["step"] == 4
    with recorded(config(tmp_path, "launch.slurm.max_idle_attempts=3"), "train", env(3)):
        pass


def test_another_job_begins_anew(tmp_path: Path) -> None:
    for job in ("7", "8"):
        with recorded(config(tmp_path), "train", env() | {"SLURM_JOB_ID": job}):
            pass
    assert len(attempts.read(tmp_path / "run", "8")) == 1


def test_only_the_first_task_of_a_job_records_it(tmp_path: Path) -> None:
    with recorded(config(tmp_path), "train", env(SLURM_PROCID="1")):
        pass
    assert not [*(tmp_path / "run").rglob("attempt.json")] and not calls(tmp_path)
    job = SlurmJob.of(env(SLURM_PROCID="1"))
    assert job is not None and os.environ["ROPEWALK_RANK_LOGS"] == str(job.folder(tmp_path / "run"))
