"""wandb and TensorBoard: the numbers of every step's line, the same to each. Nothing of the machine, its user or its paths is recorded."""

import importlib.util
import os
import secrets
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Protocol

from ropewalk.conf.errors import ConfigError
from ropewalk.conf.schema import Config


class Dashboard(Protocol):
    def log(self, numbers: dict[str, float], step: int) -> None: ...
    def finish(self) -> None: ...


def refuse_missing(config: Config) -> None:
    """Raises: ConfigError when TensorBoard is asked for and absent."""
    if config.train.tensorboard and importlib.util.find_spec("tensorboard") is None:
        raise ConfigError(
            "train.tensorboard is True; it needs the package tensorboard; pip install 'ropewalk[tensorboard]' or train.tensorboard=false"
        )


def start(folder: Path, config: Config, first_step: int) -> list[Dashboard]:
    """Those that the settings ask for."""
    found: list[Dashboard] = [] if config.train.wandb == "off" else [wandb_run(folder, config)]
    return (
        [*found, TensorBoard(folder / "tensorboard", first_step)]
        if config.train.tensorboard
        else found
    )


def numbers(row: dict[str, Any]) -> dict[str, float]:
    """A line's numbers by name: `loss`, `time/forward`, `loss_by_position/64-128`, `validation/nll`; lists of plain numbers are no curve."""
    return dict(_numbers(row, ""))


def _numbers(value: Any, name: str) -> Iterator[tuple[str, float]]:
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        yield name, float(value)
    elif isinstance(value, dict):
        for key, inner in value.items():
            yield from _numbers(inner, f"{name}/{key}" if name else key)
    elif isinstance(value, list):
        for bucket in value:
            if isinstance(bucket, dict) and "nll" in bucket:
                yield f"{name}/{bucket['from']}-{bucket['to'] or ''}", bucket["nll"]


class TensorBoard:
    """An events file for each start of the run; what an earlier start wrote past `first_step` is told to be void.

    torch's SummaryWriter would write the same records into a file that is named after the machine.
    """

    def __init__(self, folder: Path, first_step: int) -> None:
        from tensorboard.compat.proto import event_pb2, summary_pb2
        from tensorboard.summary.writer.record_writer import RecordWriter

        self.event, self.summary = event_pb2.Event, summary_pb2.Summary
        folder.mkdir(exist_ok=True)
        self.records = RecordWriter(
            (folder / f"events.out.tfevents.{first_step:010d}.ropewalk").open("wb")
        )
        self._write(file_version="brain.Event:2")
        begun = event_pb2.SessionLog(status=event_pb2.SessionLog.START)
        self._write(step=first_step + 1, session_log=begun)

    def _write(self, **content: Any) -> None:
        self.records.write(self.event(wall_time=time.time(), **content).SerializeToString())
        self.records.flush()

    def log(self, numbers: dict[str, float], step: int) -> None:
        values = [
            self.summary.Value(tag=name, simple_value=value) for name, value in numbers.items()
        ]
        self._write(step=step, summary=self.summary(value=values))

    def finish(self) -> None:
        self.records.close()


def wandb_run(folder: Path, config: Config) -> Any:
    """A wandb run, offline when no key is set; a resumed training goes on in the same one."""
    import wandb

    mode = config.train.wandb
    if mode == "auto":
        mode = "online" if os.environ.get("WANDB_API_KEY") else "offline"
    quiet = wandb.Settings(
        silent=True,
        console="off",
        disable_git=True,
        disable_code=True,
        x_disable_meta=True,
        x_disable_stats=True,
        x_disable_machine_info=True,
    )
    about: dict[str, Any] = {
        "project": config.train.wandb_project,
        "name": config.name,
        "dir": str(folder),
        "mode": mode,
    }
    return wandb.init(**about, id=run_id(folder), resume="allow", settings=quiet)


def run_id(folder: Path) -> str:
    """Made up once for a training, and kept beside its lines."""
    path = folder / "wandb_id"
    if not path.is_file():
        path.write_text(secrets.token_hex(4))
    return path.read_text()
