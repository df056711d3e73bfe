"""The training loop: step k is a function of (seed, k); the loss is that of the whole global batch.

dp_size data-parallel ranks   A micro-steps accumulated
"""

import math
import signal
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

from ropewalk.conf.errors import RopewalkError, Stopped
from ropewalk.conf.schema import Config
from ropewalk.data.dataset import Feed, Row, ahead
from ropewalk.train import checkpoint
from ropewalk.train.attention import borders
from ropewalk.train.engine import device, gradient_norm
from ropewalk.train.metrics import Metrics, peak_memory_bytes
from ropewalk.train.schedule import lr_at

STOP = "stop"  # launch asks for a stop in good order by this file


class StopSignal:
    """SIGTERM, SIGINT or the stop file: noticed between steps, by all ranks in the same step."""

    def __init__(self, folder: Path) -> None:
        self.file, self.asked = folder / STOP, False
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._ask)

    def _ask(self, *_: Any) -> None:
        self.asked = True

    def __call__(self) -> bool:
        flag = torch.tensor([float(self.asked or self.file.exists())], device=device())
        dist.all_reduce(flag, op=dist.ReduceOp.MAX)
        return bool(flag.item())


def train(engine: Any, config: Config, feed: Feed, folder: Path, first_step: int) -> None:
    """Steps `first_step` to `train.steps`. Raises: Stopped after a checkpoint, RopewalkError on a loss that is no number."""
    metrics = Metrics(folder, config, first_step) if dist.get_rank() == 0 else None
    stop, checkpoints = StopSignal(folder), folder / "checkpoints"
    every, keep = config.train.checkpoint_steps, config.train.keep_checkpoints
    steps = range(first_step, config.train.steps)
    with closing(ahead(feed.micro_batches(steps), config.train.prefetch)) as rows:
        for step in steps:
            row = one_step(engine, config, feed, rows, step)
            if metrics is not None:
                metrics.step(row)
            if not math.isfinite(row["loss"]):
                raise RopewalkError(
                    f"loss is {row['loss']} at step {step + 1}; it must be finite; lower train.lr or look at the batch"
                )
            asked = stop() and step + 1 < config.train.steps
            if asked or (every and (step + 1) % every == 0 and step + 1 < config.train.steps):
                checkpoint.save(engine, checkpoints, step + 1, keep)
            if asked:
                if metrics is not None:
                    metrics.close()
                raise Stopped(f"stopped after step {step + 1} with a checkpoint; run the same command again to resume")
    if metrics is not None:
        metrics.close()


def one_step(engine: Any, config: Config, feed: Feed, rows: Iterator[Row], step: int) -> dict[str, Any]:
    """One optimizer step on the next micro-batches of `rows`; returns its line of metrics.jsonl."""
    started = time.monotonic()
    numbers, total = [turn.number for turn in feed.turns(step)], feed.labels(step)
    lr = lr_at(step, config.train)
    for group in engine.optimizer.param_groups:
        group["lr"] = lr
    loss = torch.zeros((), device=device())
    for _ in range(feed.accumulated):
        found = engine(**inputs(next(rows)), total=total)
        # the engine averages over ranks and accumulation; the loss is already a share of the whole batch
        engine.backward(found * (feed.dp_size * feed.accumulated))
        loss += found.detach()
        engine.step()
    dist.all_reduce(loss)
    seconds = time.monotonic() - started
    tokens = len(numbers) * feed.sequences.seq_len
    return {
        "step": step + 1,
        "loss": float(loss),
        "grad_norm": gradient_norm(engine),
        "lr": lr,
        "tokens": tokens,
        "labels": total,
        "tokens_per_s": tokens / seconds,
        "step_time_s": seconds,
        "peak_memory_bytes": peak_memory_bytes(),
        "sequences": numbers,
    }


def inputs(row: Row) -> dict[str, Any]:
    """A row as the model takes it: (1, S) tensors on the device, and the borders once for all layers."""
    at = device()

    def put(x: Any) -> torch.Tensor:
        return torch.from_numpy(x).to(at, non_blocking=True)

    ids, positions, labels = (put(x)[None] for x in (row.input_ids, row.position_ids, row.labels))
    return {"input_ids": ids, "position_ids": positions, "labels": labels, **borders(put(row.cu_seqlens))}
