"""wandb, TensorBoard, trackio and mlflow, which get the same numbers.

Nothing of the machine, its user or its paths is recorded.
"""

import importlib
import importlib.util
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any, Protocol, TypeVar

from ropewalk.conf.errors import ConfigError
from ropewalk.conf.log import log
from ropewalk.conf.schema import Config
from ropewalk.train.metrics.mlflow_run import start_mlflow
from ropewalk.train.metrics.trackio_run import start_trackio
from ropewalk.train.metrics.wandb_run import WandbDashboard, start_wandb

T = TypeVar("T")


class Dashboard(Protocol):
    """Plots numbers by step."""

    def log(self, scalars: dict[str, float], step: int) -> None: ...
    def finish(self) -> None: ...


PACKAGES = ("tensorboard", "trackio", "mlflow")
"""By the setting of train.metrics that turns each on; its extra has the same name."""


class Guarded:
    """A dashboard until it fails: a dashboard never ends a training. Then one line says so, and the
    numbers go on in metrics.jsonl."""

    def __init__(self, name: str, start: Callable[[], Dashboard]) -> None:
        self.name = name
        self.dashboard: Dashboard | None = None
        self.dashboard = self._call(start)

    def log(self, scalars: dict[str, float], step: int) -> None:
        if (dashboard := self.dashboard) is not None:
            self._call(lambda: dashboard.log(scalars, step))

    def finish(self) -> None:
        if (dashboard := self.dashboard) is not None:
            self._call(dashboard.finish)

    def _call(self, action: Callable[[], T]) -> T | None:
        try:
            return action()
        except Exception as error:  # of a library and its server: any kind
            self.dashboard = None
            reason = " ".join(str(error).split()) or type(error).__name__
            log.info(f"{self.name}: {reason}; what follows is in metrics.jsonl alone")
            return None


def refuse_missing_trackers(config: Config) -> None:
    """Raises: ConfigError when a tracker is set and not installed."""
    for name in PACKAGES:
        if getattr(config.train.metrics, name) and importlib.util.find_spec(name) is None:
            raise ConfigError(
                f"train.metrics.{name} is True; it needs the package {name}; "
                f"pip install 'ropewalk[{name}]' or train.metrics.{name}=false"
            )


def import_dashboards(config: Config) -> None:
    """Begin to import wandb beside the loading of the model: it takes most of a second.

    An error is raised by the import that needs it.
    """

    def work() -> None:
        with suppress(Exception):
            importlib.import_module("wandb")

    if config.train.metrics.wandb != "off":
        threading.Thread(target=work, name="import-wandb", daemon=True).start()


def start_dashboards(folder: Path, config: Config, first_step: int) -> list[Dashboard]:
    """The dashboards that the settings turn on."""
    dashboards: list[Dashboard] = []
    if config.train.metrics.wandb != "off":
        dashboards.append(WandbDashboard(start_wandb(folder, config)))
    if config.train.metrics.tensorboard:
        dashboards.append(TensorBoard(folder / "tensorboard", first_step))
    for name, start in (("trackio", start_trackio), ("mlflow", start_mlflow)):
        if getattr(config.train.metrics, name):
            dashboards.append(Guarded(name, partial(start, folder, config)))
    return dashboards


def scalars_of(line: dict[str, Any]) -> dict[str, float]:
    """The numbers of a metrics line by path: `loss`, `time/forward`, `loss_by_position/64-128`,
    `validation/nll`, `validation/json_kv/by_depth/0.125`.

    Lists of plain numbers (`sequences`) are left out.
    """
    return dict(_named_scalars(line, ""))


def _named_scalars(value: Any, name: str) -> Iterator[tuple[str, float]]:
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        yield name, float(value)
    elif isinstance(value, dict):
        for key, inner in value.items():
            yield from _named_scalars(inner, f"{name}/{key}" if name else key)
    elif isinstance(value, list):
        for bucket in value:
            if isinstance(bucket, dict) and "nll" in bucket:
                yield f"{name}/{bucket['from']}-{bucket['to'] or ''}", bucket["nll"]
            elif isinstance(bucket, dict) and "depth" in bucket:
                yield f"{name}/{bucket['depth']:g}", bucket["accuracy"]


class TensorBoard:
    """One events file for each start of the run; it marks as void what an earlier start wrote past
    `first_step`.

    torch's SummaryWriter would write the same records into a file that is named after the machine.
    """

    def __init__(self, folder: Path, first_step: int) -> None:
        from tensorboard.compat.proto import event_pb2, summary_pb2
        from tensorboard.summary.writer.record_writer import RecordWriter

        self.event, self.summary = event_pb2.Event, summary_pb2.Summary
        folder.mkdir(exist_ok=True)
        path = folder / f"events.out.tfevents.{first_step:010d}.ropewalk"
        self.records = RecordWriter(path.open("wb"))
        self._write(file_version="brain.Event:2")
        start = event_pb2.SessionLog(status=event_pb2.SessionLog.START)
        self._write(step=first_step + 1, session_log=start)

    def _write(self, **content: Any) -> None:
        self.records.write(self.event(wall_time=time.time(), **content).SerializeToString())
        self.records.flush()

    def log(self, scalars: dict[str, float], step: int) -> None:
        values = [self.summary.Value(tag=tag, simple_value=value) for tag, value in scalars.items()]
        self._write(step=step, summary=self.summary(value=values))

    def finish(self) -> None:
        self.records.close()
