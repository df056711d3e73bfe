"""The mlflow run of a training, in MLFLOW_TRACKING_URI or in its own folder."""

import os
import time
from pathlib import Path
from typing import Any

from ropewalk.conf.errors import RopewalkError
from ropewalk.conf.schema import Config
from ropewalk.train.metrics.wandb_run import connection_problem

ADDRESS = "MLFLOW_TRACKING_URI"
RUN_ID = "mlflow_run_id"
"""The file in the training's folder with the run's id."""
TIMEOUTS = {"MLFLOW_HTTP_REQUEST_TIMEOUT": "10", "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1"}
"""Seconds and retries of a request: no step waits for a server that is gone."""
LOCAL_STORE = {"MLFLOW_ALLOW_FILE_STORE": "true"}


class MlflowDashboard:
    """A run of mlflow, by its client: the fluent API would record the user and the script."""

    def __init__(self, client: Any, run_id: str) -> None:
        self.client, self.run_id = client, run_id

    def log(self, scalars: dict[str, float], step: int) -> None:
        from mlflow.entities import Metric

        now = int(time.time() * 1000)
        numbers = [Metric(name, value, now, step) for name, value in scalars.items()]
        self.client.log_batch(self.run_id, metrics=numbers)

    def finish(self) -> None:
        self.client.set_terminated(self.run_id)


def start_mlflow(folder: Path, config: Config) -> MlflowDashboard:
    """A run of mlflow. A resumed training continues its earlier run, by the id in its folder.

    Raises: RopewalkError where the server does not answer, and mlflow's errors.
    """
    for name, value in {**TIMEOUTS, **LOCAL_STORE}.items():
        os.environ.setdefault(name, value)
    address = os.environ.get(ADDRESS) or (folder.resolve() / "mlflow").as_uri()
    if address.startswith("http") and (problem := connection_problem(address)):
        raise RopewalkError(problem)
    from mlflow import MlflowClient

    client = MlflowClient(address)
    path = folder / RUN_ID
    if path.is_file():
        client.update_run(path.read_text(), status="RUNNING")
    else:
        path.write_text(_new_run(client, config))
    return MlflowDashboard(client, path.read_text())


def _new_run(client: Any, config: Config) -> str:
    """The id of a new run in the experiment that is named like the project."""
    metrics = config.train.metrics
    experiment = client.get_experiment_by_name(metrics.wandb_project)
    number = experiment.experiment_id if experiment else None
    number = number or client.create_experiment(metrics.wandb_project)
    tags = {word: "" for word in metrics.tags}
    tags |= {"mlflow.note.content": metrics.notes} if metrics.notes else {}
    tags |= {"group": metrics.group} if metrics.group else {}
    run = client.create_run(number, run_name=config.name, tags=tags)
    client.log_param(run.info.run_id, "seed", config.seed)
    return str(run.info.run_id)
