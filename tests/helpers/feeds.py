"""Training without a data stage: rows in memory, settings for tiny models, a reference loss."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from models import VOCAB
from train_settings import train_config

from ropewalk.conf import schema
from ropewalk.conf.data import DataConfig
from ropewalk.conf.eval import EvalConfig
from ropewalk.conf.model import ModelConfig
from ropewalk.data.dataset import BatchLoader, Row, concatenate
from ropewalk.train.loop.step import train_step
from ropewalk.train.metrics import StepMetrics
from ropewalk.train.zero.engine import Engine
from ropewalk.train.zero.mesh import Mesh

SEQ_LEN = 48
LENGTHS = [(30, 18), (48,), (10, 10, 28), (40, 8), (20, 20), (48,), (5, 43), (16, 16, 16)]


class Rows:
    """A plan in memory, for the loader."""

    seq_len = SEQ_LEN

    def __init__(self) -> None:
        rng = np.random.default_rng(0)
        self.texts = [
            [rng.integers(0, VOCAB, n).astype(np.int64) for n in lengths] for lengths in LENGTHS
        ]
        self.rows = [concatenate(texts, SEQ_LEN) for texts in self.texts]

    def __len__(self) -> int:
        return len(self.rows)

    def read(self, number: int, epoch: int = 0, low: int = 0, high: int | None = None) -> Row:
        """Tokens `[low, high)`, with the borders of the full row."""
        row = self.rows[number]
        ids, positions, labels = (
            x[low:high] for x in (row.input_ids, row.position_ids, row.labels)
        )
        return replace(row, input_ids=ids, position_ids=positions, labels=labels)

    def num_labels(self, number: int) -> int:
        return int((self.rows[number].labels >= 0).sum())

    def attention_work(self, number: int) -> int:
        return 1


def config(**train: Any) -> schema.Config:
    """Defaults: fp32, no clipping, no activation checkpointing."""
    settings = {
        "steps": 10,
        "optimizer__lr": 1e-2,
        "schedule__kind": "constant",
        "precision": "fp32",
        "attention__kernel": "sdpa",
        "memory__activation_checkpointing": False,
        "optimizer__gradient_clipping": 0.0,
        **train,
    }
    return schema.Config(
        name="test",
        model=ModelConfig(path="none"),
        rope=schema.RopeConfig(),
        data=DataConfig(seq_len=SEQ_LEN),
        train=train_config(**settings),
        eval=EvalConfig(),
    )


def feed(mesh: Mesh, accumulated: int) -> BatchLoader:
    return BatchLoader(Rows(), mesh, seed=0, micro_batch_size=1, batch_ramp=[(0, accumulated)])


def accept_step(step: int, loss: float, norm: float) -> bool:
    return True


def train_steps(
    engine: Engine, config: schema.Config, loader: BatchLoader, steps: Sequence[int]
) -> list[dict[str, Any]]:
    """The lines of metrics.jsonl of `steps`; no step is skipped."""
    mesh = Mesh.of(config.train.sp_size)
    metrics, batches = StepMetrics(engine, config, mesh), loader.micro_batches(steps)
    return [
        train_step(engine, config, loader, batches, step, mesh, metrics, accept_step)
        for step in steps
    ]


def batch_loss(model: Any, step: int, batch: int) -> torch.Tensor:
    """Mean loss of a global batch by transformers' eager attention, each document alone."""
    model.set_attn_implementation("eager")
    rows, losses, count = Rows(), [], 0
    for number in feed(Mesh(), batch).sequence_ids(step):
        for text in rows.texts[number]:
            ids = torch.from_numpy(text)[None]
            logits = model(input_ids=ids, use_cache=False).logits[0]
            losses.append(F.cross_entropy(logits[:-1], ids[0, 1:], reduction="sum"))
            count += len(text) - 1
    return torch.stack(losses).sum() / count
