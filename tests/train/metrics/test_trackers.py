"""wandb, mlflow and trackio by the real libraries, without a network: what a run is called, and
one run over a resume."""

import getpass
import importlib.util
import json
import socket
import sqlite3
from pathlib import Path

import pytest

from ropewalk.conf.schema import Config
from ropewalk.launch.config.compose import compose
from ropewalk.train.metrics import dashboards, mlflow_run
from ropewalk.train.metrics.wandb_run import start_wandb

WORDS = [
    "recipe=demo",
    "name=mine",
    "train.metrics.wandb_project=ropes",
    "train.metrics.wandb_entity=team",
    "train.metrics.tags=[long,yarn]",
    "train.metrics.group=a-sweep",
    "train.metrics.notes=why it was run",
]


def configured(*words: str) -> Config:
    return compose([*WORDS, *words])


def log_twice(folder: Path, config: Config) -> None:
    """Two starts of one training: steps 1 and 2, then after a resume 3 and 4."""
    for first in (0, 2):
        started = dashboards.start_dashboards(folder, config, first)
        assert len(started) == 1
        for step in (first + 1, first + 2):
            scalars = {"loss": 1 / step, "loss_by_position/64-128": 2.0}
            started[0].log(scalars, step=step)
        started[0].finish()


def names_no_one(folder: Path) -> bool:
    texts = [path.read_bytes() for path in folder.rglob("*") if path.is_file()]
    user = getpass.getuser()
    secret = [socket.gethostname(), *([user] if user != "root" else [])]
    return not any(name.encode() in text for name in secret for text in texts)


def test_wandb_gets_what_the_run_is_called_and_one_id(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WANDB_MODE", "offline")
    ids = set()
    for _ in range(2):
        run = start_wandb(tmp_path, configured())
        ids.add(run.id)
        assert (run.project, run.entity, run.group) == ("ropes", "team", "a-sweep")
        assert (run.tags, run.notes, run.name) == (("long", "yarn"), "why it was run", "mine")
        run.finish()
    assert len(ids) == 1


def test_mlflow_has_one_run_over_a_resume_and_names_no_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mlflow import MlflowClient

    monkeypatch.delenv(mlflow_run.ADDRESS, raising=False)
    log_twice(tmp_path, configured("train.metrics.wandb=off", "train.metrics.mlflow=true"))
    client = MlflowClient((tmp_path / "mlflow").as_uri())
    experiment = client.get_experiment_by_name("ropes")
    (run,) = client.search_runs([experiment.experiment_id])
    history = client.get_metric_history(run.info.run_id, "loss")
    assert [(m.step, m.value) for m in history] == [(step, 1 / step) for step in (1, 2, 3, 4)]
    assert run.data.metrics["loss_by_position/64-128"] == 2.0
    assert (run.info.run_name, run.info.status) == ("mine", "FINISHED")
    tags = {"long": "", "yarn": "", "group": "a-sweep", "mlflow.note.content": "why it was run"}
    assert tags.items() <= run.data.tags.items()
    assert names_no_one(tmp_path)


def test_a_tracker_that_fails_is_one_line_and_no_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    monkeypatch.setenv(mlflow_run.ADDRESS, f"http://127.0.0.1:{port}")
    log_twice(tmp_path, configured("train.metrics.wandb=off", "train.metrics.mlflow=true"))
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 2  # one a start
    assert all(f"127.0.0.1:{port} does not answer" in line for line in lines)
    assert all("metrics.jsonl alone" in line for line in lines)


@pytest.mark.skipif(
    importlib.util.find_spec("trackio") is None,
    reason="trackio needs an older pillow than constraints.txt has: pip install trackio, alone",
)
def test_trackio_has_one_run_over_a_resume(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRACKIO_DIR", str(tmp_path / "store"))
    log_twice(tmp_path, configured("train.metrics.wandb=off", "train.metrics.trackio=true"))
    (file,) = (tmp_path / "store").glob("*.db")
    rows = sqlite3.connect(file).execute("select run_name, step, metrics from metrics").fetchall()
    (name,) = {row[0] for row in rows}
    assert name.startswith("mine-")
    losses = sorted((step, json.loads(metrics)["loss"]) for _, step, metrics in rows)
    assert losses == [(step, 1 / step) for step in (1, 2, 3, 4)]
