"""What a step says of itself: metrics.jsonl, wandb, a progress bar or plain lines. Rank 0 only."""

import json
import os
import resource
import sys
import time
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from ropewalk.conf.schema import Config

NAME = "metrics.jsonl"
PLAIN_SECONDS = 10.0  # between two lines where there is no terminal


def peak_memory_bytes() -> int:
    """Peak of this rank: device memory on GPU, resident memory on CPU."""
    if torch.cuda.is_available():
        return int(torch.cuda.max_memory_allocated())
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def lines(folder: Path) -> list[dict[str, Any]]:
    """What `folder/metrics.jsonl` says. Whole lines only: a killed run may have left half of one."""
    path = folder / NAME
    text = path.read_text() if path.is_file() else ""
    return [json.loads(line) for line in text.split("\n")[:-1] if line]


class Metrics:
    """Appends one line a step; a resumed run first drops the lines past its checkpoint, which it will write again."""

    def __init__(self, folder: Path, config: Config, first_step: int) -> None:
        self.config, self.path = config, folder / NAME
        kept = [line for line in lines(folder) if line["step"] <= first_step]
        self.path.write_text("".join(json.dumps(line) + "\n" for line in kept))
        self.file = self.path.open("a")
        self.bar = tqdm(
            total=config.train.steps,
            initial=first_step,
            desc="train",
            unit="step",
            disable=not sys.stderr.isatty(),
        )
        self.steps, self.said = config.train.steps, 0.0

    @cached_property
    def wandb(self) -> Any:
        """Asked for when a step has been written: no step waits for it, and a start costs it 1.4 s."""
        return _wandb(self.path.parent, self.config)

    def step(self, row: dict[str, Any]) -> None:
        self.file.write(json.dumps(row) + "\n")
        self.file.flush()
        if self.wandb is not None:
            self.wandb.log({k: v for k, v in row.items() if isinstance(v, (int, float))}, step=row["step"])
        self.bar.set_postfix(loss=f"{row['loss']:.4f}", refresh=False)
        self.bar.update()
        self._plain(row)

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
        if self.wandb is not None:
            self.wandb.finish()


def _wandb(folder: Path, config: Config) -> Any:
    """A wandb run, offline when no key is set. Nothing of the machine or its paths is recorded."""
    mode = config.train.wandb
    if mode == "off":
        return None
    import wandb

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
    return wandb.init(project=config.train.wandb_project, name=config.name, dir=str(folder), mode=mode, settings=quiet)  # type: ignore[arg-type]
