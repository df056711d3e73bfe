"""wandb and TensorBoard, which get the same numbers.

Nothing of the machine, its user or its paths is recorded.
"""

import importlib
import importlib.util
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, Protocol

from ropewalk.conf.errors import ConfigError
from ropewalk.conf.schema import Config
from ropewalk.train.metrics.wandb_run import WandbDashboard, start_wandb


class Dashboard(Protocol):
    """Plots numbers by step."""

    def log(self, scalars: dict[str, float], step: int) -> None: ...
    def finish(self) -> None: ...


def refuse_missing_tensorboard(config: Config) -> None:
    """Raises: ConfigError when TensorBoard is set and not installed."""
    if config.train.metrics.tensorboard and importlib.util.find_spec("tensorboard") is None:
        raise ConfigError(
            "train.metrics.tensorboard is True; it needs the package tensorboard; "
            "pip install 'ropewalk[tensorboard]' or train.metrics.tensorboard=false"
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
