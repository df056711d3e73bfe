"""The trackio run of a training: in its own store here, or where its variables say."""

from pathlib import Path
from typing import Any

from ropewalk.conf.schema import Config
from ropewalk.train.metrics.wandb_run import wandb_run_id


class TrackioDashboard:
    """A run of trackio, which keeps it in its own store and sends in the background."""

    def __init__(self, run: Any) -> None:
        self.run = run

    def log(self, scalars: dict[str, float], step: int) -> None:
        self.run.log(scalars, step=step)

    def finish(self) -> None:
        self.run.finish()


def start_trackio(folder: Path, config: Config) -> TrackioDashboard:
    """A trackio run. A resumed training continues its earlier run, which is known by its name: the
    run's, and the id that wandb's has too, since another training may have that name.

    Nothing of the machine or its user is recorded.
    """
    import trackio

    metrics = config.train.metrics
    run = trackio.init(
        project=metrics.wandb_project,
        name=f"{config.name}-{wandb_run_id(folder)}",
        group=metrics.group,
        config={"tags": ", ".join(metrics.tags), "notes": metrics.notes or ""},
        resume="allow",
        embed=False,
        auto_log_gpu=False,
        auto_log_cpu=False,
    )
    run.config["_Username"] = None
    return TrackioDashboard(run)
