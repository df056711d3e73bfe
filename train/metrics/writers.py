"""Where a step's line goes: metrics.jsonl, the dashboards, a progress bar or plain lines. Rank 0 only."""

import json
import resource
import sys
import time
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from ropewalk.conf.schema import Config
from ropewalk.train.metrics import dashboards

NAME = "metrics.jsonl"
PLAIN_SECONDS = 10.0  # between two lines where there is no terminal


def peak_memory_bytes() -> int:
    """Peak of this rank: device memory on GPU, resident memory on CPU."""
    if torch.cuda.is_available():
        return int(torch.cuda.max_memory_allocated())
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def read_metrics(folder: Path) -> list[dict[str, Any]]:
    """What `folder/metrics.jsonl` says. Whole lines only: a killed run may have left half of one."""
    path = folder / NAME
    text = path.read_text() if path.is_file() else ""
    return [json.loads(line) for line in text.split("\n")[:-1] if line]


class MetricLogger:
    """Appends one line a step; a resumed run first drops the lines past its checkpoint, which it will write again."""

    def __init__(self, folder: Path, config: Config, first_step: int) -> None:
        self.config, self.path, self.first_step = config, folder / NAME, first_step
        self._drop_after(first_step)
        self.bar = tqdm(
            total=config.train.steps,
            initial=first_step,
            desc="train",
            unit="step",
            disable=not sys.stderr.isatty(),
        )
        self.steps, self.said = config.train.steps, 0.0

    def _drop_after(self, step: int) -> None:
        kept = [line for line in read_metrics(self.path.parent) if line["step"] <= step]
        self.path.write_text("".join(json.dumps(line) + "\n" for line in kept))
        self.file = self.path.open("a")

    def back_to(self, step: int) -> None:
        """The steps after it come again."""
        self.file.close()
        self._drop_after(step)
        self.bar.reset()
        self.bar.update(step)

    def event(self, line: dict[str, Any]) -> None:
        """The line of a step that was not taken; said at once."""
        self.file.write(json.dumps(line) + "\n")
        self.file.flush()
        self._show({key: line[key] for key in ("step", "validation") if key in line})
        self.bar.update()
        print(
            f"step {line['step']}/{self.steps}  {line['event']}: {line['why']}; this batch is left out",
            flush=True,
        )

    @cached_property
    def dashboards(self) -> list[dashboards.Dashboard]:
        """Asked for when a step has been written: no step waits for them, and a start costs wandb 1.4 s."""
        return dashboards.start(self.path.parent, self.config, self.first_step)

    def step(self, row: dict[str, Any]) -> None:
        self.file.write(json.dumps(row) + "\n")
        self.file.flush()
        self._show(row)
        self.bar.set_postfix(loss=f"{row['loss']:.4f}", refresh=False)
        self.bar.update()
        self._plain(row)

    def _show(self, row: dict[str, Any]) -> None:
        for dashboard in self.dashboards:
            dashboard.log(dashboards.numbers(row), step=row["step"])

    def _plain(self, row: dict[str, Any]) -> None:
        last = row["step"] == self.steps
        if self.bar.disable and (last or time.monotonic() - self.said > PLAIN_SECONDS):
            self.said = time.monotonic()
            norm = "-" if row["grad_norm"] is None else f"{row['grad_norm']:.3f}"
            print(
                f"step {row['step']}/{self.steps}  loss {row['loss']:.4f}  grad norm {norm}  lr {row['lr']:.2e}  "
                f"{row['tokens_per_s']:,.0f} tokens/s  peak {row['peak_memory_bytes'] / 2**30:.2f} GiB",
                flush=True,
            )

    def close(self) -> None:
        self.file.close()
        self.bar.close()
        for dashboard in self.__dict__.get("dashboards", []):  # only those that were started
            dashboard.finish()
