"""Where a step's line goes: metrics.jsonl, the dashboards, a progress bar or plain lines.

Rank 0 only.
"""

import json
import sys
import time
from pathlib import Path
from typing import Any, TextIO

from tqdm import tqdm

from ropewalk.conf.artifacts.records import write_text
from ropewalk.conf.errors import DataError
from ropewalk.conf.log import log
from ropewalk.conf.schema import Config
from ropewalk.train.metrics.dashboards import Dashboard, scalars_of, start_dashboards
from ropewalk.train.results import METRICS_FILE

PRINT_INTERVAL_S = 10.0
"""Seconds between two printed lines where there is no terminal."""


def read_metrics(folder: Path) -> list[dict[str, Any]]:
    """The lines of `folder/metrics.jsonl`.

    An incomplete last line, which a killed run may leave, is ignored.
    Raises: DataError for another line that is no JSON object.
    """
    path = folder / METRICS_FILE
    text = path.read_text(errors="replace") if path.is_file() else ""
    lines = enumerate(text.split("\n")[:-1], 1)
    return [_parse(path, number, line) for number, line in lines if line]


def _parse(path: Path, number: int, line: str) -> dict[str, Any]:
    try:
        row = json.loads(line)
    except (ValueError, RecursionError):
        row = None
    if not isinstance(row, dict) or "step" not in row:
        raise DataError(
            f"{path} line {number} is damaged; the lines of finished steps cannot be computed "
            f"again; restore the file, or remove {path.parent} to train anew"
        )
    return row


class MetricLogger:
    """Appends one line a step.

    A resumed run first drops the lines past its checkpoint and writes them again.
    """

    def __init__(self, folder: Path, config: Config, first_step: int) -> None:
        self.config, self.folder, self.first_step = config, folder, first_step
        self.num_steps = config.train.steps
        self.file = self._open_after(first_step)
        self.dashboards: list[Dashboard] | None = None
        self.last_print_s = 0.0
        self.bar = tqdm(
            total=self.num_steps,
            initial=first_step,
            desc="train",
            unit="step",
            disable=not sys.stderr.isatty(),
        )

    def _open_after(self, step: int) -> TextIO:
        """Drop the lines of steps after `step`, and open the file to append."""
        lines = read_metrics(self.folder) if step else []
        path = self.folder / METRICS_FILE
        write_text(path, "".join(json.dumps(x) + "\n" for x in lines if x["step"] <= step))
        return path.open("a")

    def rewind(self, step: int) -> None:
        """Go back to `step`: the lines after it are dropped, since these steps run again."""
        self.file.close()
        self.file = self._open_after(step)
        self.bar.reset()
        self.bar.update(step)

    def log_step(self, line: dict[str, Any]) -> None:
        """Write the line of an applied step."""
        self._write(line)
        self._plot(line)
        self.bar.set_postfix(loss=f"{line['loss']:.4f}", refresh=False)
        self.bar.update()
        self._print(line)

    def log_skipped_step(self, line: dict[str, Any]) -> None:
        """Write the line of a step whose batch was left out, and print it at once."""
        self._write(line)
        self._plot({key: line[key] for key in ("step", "validation") if key in line})
        self.bar.update()
        progress = f"step {line['step']}/{self.num_steps}"
        log.info(f"{progress}  {line['event']}: {line['why']}; this batch is left out")

    def _write(self, line: dict[str, Any]) -> None:
        self.file.write(json.dumps(line) + "\n")
        self.file.flush()

    def _plot(self, line: dict[str, Any]) -> None:
        # dashboards start after the first step is written: no step waits for them, and wandb takes
        # 1.4 s to start
        if self.dashboards is None:
            self.dashboards = start_dashboards(self.folder, self.config, self.first_step)
        for dashboard in self.dashboards:
            dashboard.log(scalars_of(line), step=line["step"])

    def _print(self, line: dict[str, Any]) -> None:
        """A plain line now and then, and for the last step, where there is no progress bar."""
        is_last = line["step"] == self.num_steps
        is_due = is_last or time.monotonic() - self.last_print_s > PRINT_INTERVAL_S
        if not (self.bar.disable and is_due):
            return
        self.last_print_s = time.monotonic()
        norm = "-" if line["grad_norm"] is None else f"{line['grad_norm']:.3f}"
        log.info(
            f"step {line['step']}/{self.num_steps}  loss {line['loss']:.4f}  grad norm {norm}  "
            f"lr {line['lr']:.2e}  {line['tokens_per_s']:,.0f} tokens/s  "
            f"peak {line['peak_memory_bytes'] / 2**30:.2f} GiB"
        )

    def close(self) -> None:
        self.file.close()
        self.bar.close()
        for dashboard in self.dashboards or []:
            dashboard.finish()
