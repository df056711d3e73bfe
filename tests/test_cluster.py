"""A real Slurm on this machine (`make test-cluster`): jobs that are submitted, pre-empted, queued
again and stopped by the guard, with the losses of a run that nothing interrupts."""

import json
import os
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from commands import ENV, command, corpus, ropewalk
from slurm_cluster import slurm

from ropewalk.conf.artifacts.records import read_signed
from ropewalk.launch.cluster import queue

pytestmark = pytest.mark.slow
SLURM = ["launch=slurm", "launch.slurm.cpus_per_task=1"]
LONG = ["train.steps=32", "train.schedule.kind=constant", "train.global_batch_tokens=512"]


@pytest.fixture(scope="module", autouse=True)
def cluster() -> Iterator[None]:
    before = dict(os.environ)
    with slurm() as variables:
        os.environ.update(variables)
        ENV.update(variables)
        yield
    os.environ.clear()
    os.environ.update(before)


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the corpus, its tokens and its plan."""
    folder = tmp_path_factory.mktemp("work")
    corpus(folder)
    ropewalk(folder, "data", "name=data")
    return folder


@pytest.fixture(scope="module")
def uninterrupted(work: Path) -> list[float]:
    ropewalk(work, "train", "name=uninterrupted", *LONG)
    return losses(work / "runs" / "uninterrupted")


def losses(run: Path) -> list[float]:
    lines = (run / "train" / "metrics.jsonl").read_text().splitlines()
    return [json.loads(line)["loss"] for line in lines]


def submitted(run: Path) -> str:
    """The id of the last job of a run."""
    record = read_signed(run / "slurm" / "submitted.json")
    assert record is not None
    return str([*record["jobs"].values()][-1])


def attempts(run: Path) -> list[dict[str, object]]:
    """The records of the last job's attempts, in order."""
    files = sorted((run / "slurm" / f"job-{submitted(run)}").glob("attempt-*/attempt.json"))
    return [json.loads(file.read_text()) for file in files]


def wait_for(condition: Callable[[], object], what: str, timeout_s: float = 240) -> None:
    until = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < until, what
        time.sleep(0.2)


def state(job: str) -> str:
    shown = queue.states([job])
    return shown[0].name if shown else ""


def log(run: Path) -> str:
    file = run / "slurm" / f"job-{submitted(run)}.log"
    return file.read_text() if file.is_file() else ""


def steps(run: Path) -> int:
    """Of the training at work."""
    metrics = run / "train.tmp" / "metrics.jsonl"
    return metrics.read_text().count("\n") if metrics.is_file() else 0


def test_a_preempted_job_is_queued_again_and_ends_with_the_uninterrupted_losses(
    work: Path, uninterrupted: list[float]
) -> None:
    run = work / "runs" / "preempted"
    overrides = ["name=preempted", "train.metrics.wandb=offline", *LONG, *SLURM]
    ropewalk(work, "train", *overrides)
    wait_for(lambda: steps(run) >= 2, "two steps")
    words = ["sbatch", "-phigh", "-N2", "--ntasks-per-node=2", "--wrap=sleep 3"]
    subprocess.run([*words, f"--output={work}/high"], check=True, capture_output=True)
    follower = command(work, "train", *overrides, "launch.follow=true")
    done = subprocess.run(follower, cwd=work, env=ENV, capture_output=True, text=True, timeout=400)
    assert done.returncode == 0, done.stdout + done.stderr
    assert losses(run) == uninterrupted
    first, second = attempts(run)
    assert (first["exit_code"], second["exit_code"], second["attempt"]) == (75, 0, 2)
    assert first["step"] == 0 and second["step"] >= 2
    assert "Traceback" not in log(run)
    for text in (f"job {submitted(run)} of this run is in the queue", "resumed at step"):
        assert text in done.stdout
    (file,) = run.rglob("wandb_id")  # both attempts are one run of wandb
    recorded = [path.name for path in run.rglob("offline-run-*") if path.is_dir()]
    assert len(recorded) == 2 and {name.rpartition("-")[2] for name in recorded} == {
        file.read_text()
    }


def test_two_nodes_train_as_one_node_with_two_ranks_does(work: Path) -> None:
    """srun starts the same command on both nodes; the nodes' names lead nowhere here."""
    short = ["train.steps=4", "train.global_batch_tokens=1024"]
    ropewalk(work, "train", "name=ranks", *short, "train.launcher.ranks_per_node=2")
    nodes = ["launch.nodes=2", "launch.address=127.0.0.1", "train.launcher.ranks_per_node=1"]
    ropewalk(work, "train", "name=nodes", *short, *SLURM, *nodes, "launch.follow=true")
    run = work / "runs" / "nodes"
    assert losses(run) == losses(work / "runs" / "ranks") and len(losses(run)) == 4
    assert attempts(run)[0]["nodes"] == "n[1-2]"
    for rank in (0, 1):
        assert (run / "slurm" / f"job-{submitted(run)}" / "attempt-1" / f"rank-{rank}.log").exists()
    assert "2 machine(s), 1 command(s) on each, by srun" in log(run)


def test_a_job_that_makes_no_step_is_stopped_by_the_guard(work: Path) -> None:
    run = work / "runs" / "loop"
    ropewalk(work, "data", "name=loop")
    ropewalk(work, "train", "name=loop", *LONG, *SLURM)
    wait_for(lambda: attempts(run), "the first attempt")
    subprocess.run(["scancel", "--signal=USR1", submitted(run)], check=True)  # as a time limit
    wait_for(lambda: state(submitted(run)) == "FAILED", "the guard")
    first, second = attempts(run)
    assert (first["exit_code"], second["exit_code"]) == (75, 1)
    assert "it is queued again" in log(run)
    assert "attempt 2 would begin where attempt 1 began" in str(second["reason"])
    assert str(second["reason"]) in log(run)


def test_a_cancelled_job_saves_and_stays_cancelled(work: Path) -> None:
    run = work / "runs" / "cancelled"
    ropewalk(work, "train", "name=cancelled", *LONG, *SLURM)
    wait_for(lambda: steps(run) >= 2, "two steps")
    subprocess.run(["scancel", submitted(run)], check=True)
    wait_for(lambda: "exit_code" in attempts(run)[0], "the end of the attempt", 60)
    wait_for(lambda: state(submitted(run)) == "CANCELLED", "the cancelled job")
    assert list(run.glob("train.tmp/checkpoints/step-*/complete.json"))
    time.sleep(3)
    assert state(submitted(run)) == "CANCELLED" and len(attempts(run)) == 1


def test_shards_of_the_data_are_an_array_before_the_job_that_merges_them(work: Path) -> None:
    """The plan is the one that one process makes."""
    run, other = work / "runs" / "shards", work / "runs" / "alone"
    own = ["data.total_tokens=60000", f"cache_dir={work / 'other cache'}"]
    ropewalk(work, "data", "name=shards", *own, *SLURM, "launch.slurm.data.tasks=2")
    wait_for(lambda: state(submitted(run)) == "COMPLETED", log(run))
    ropewalk(work, "data", "name=alone", "data.total_tokens=60000")
    ledgers = [json.loads((f / "data" / "ledger.json").read_text()) for f in (run, other)]
    assert ledgers[0]["plan"] == ledgers[1]["plan"] and ledgers[0]["plan"]["sequences"] > 50
    logs = [file.read_text() for file in (run / "slurm").glob("job-*_*.log")]
    assert sorted(text.splitlines()[-1][:9] for text in logs) == ["shard 0/2", "shard 1/2"]


def test_a_sweep_is_an_array_after_the_job_of_its_data(work: Path) -> None:
    """Its data are not there before: one job tokenises them, and both runs find them."""
    own = ["-m", "rope=pi,yarn", "data.total_tokens=70000", "name=sweep", "sweep.name=two"]
    shown = ropewalk(work, "train", *own, *SLURM)
    folder = work / "runs" / "sweeps" / "two"
    assert "2 of 2 runs done" in shown, shown
    data, runs = (folder / "slurm" / file for file in ("1-data.sh", "2-train.sh"))
    assert "--array=0-1%2" in runs.read_text() and "--array" not in data.read_text()
    (data_log,) = folder.glob("logs/*data.log")
    assert "plan: done in" in data_log.read_text()
    for name in ("sweep-pi", "sweep-yarn"):
        assert losses(work / "runs" / name)
        text = (folder / "logs" / f"{name}.log").read_text()
        assert "plan: done before" in text and "attempt 1 of job" in text
    assert losses(work / "runs" / "sweep-pi") != losses(work / "runs" / "sweep-yarn")


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("launch.nodes=3", "launch.nodes and launch.slurm are what Slurm refuses for train.sh; "),
        ("launch.slurm.partition=nono", "launch.slurm.partition is what Slurm refuses for train"),
        ("launch.slurm.gpus_per_node=8", "launch.slurm.gpus_per_node is what Slurm refuses for tr"),
    ],
)
def test_an_impossible_request_is_refused_before_a_job_is_queued(
    work: Path, override: str, message: str
) -> None:
    words = command(work, "train", "name=refused", *SLURM, override)
    done = subprocess.run(words, cwd=work, env=ENV, capture_output=True, text=True, timeout=240)
    assert done.returncode == 2 and message in done.stderr, done.stderr
    assert not (work / "runs" / "refused" / "slurm" / "submitted.json").exists()
