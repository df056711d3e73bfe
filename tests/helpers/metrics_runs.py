"""Steps of a tiny model on a plan of a few packed rows, for the tests of metrics and validation."""

from typing import Any

import models
import numpy as np
import torch
from feeds import accept_step

from ropewalk.conf.schema import Config
from ropewalk.data.dataset import BatchLoader, Row
from ropewalk.data.retrieval import Haystack, Question
from ropewalk.launch.config.compose import compose
from ropewalk.train import attention
from ropewalk.train.attention import ulysses
from ropewalk.train.loop.step import train_step
from ropewalk.train.loop.validation import Validation
from ropewalk.train.metrics import StepMetrics
from ropewalk.train.zero.engine import Engine, build_engine
from ropewalk.train.zero.mesh import Mesh

SEQ_LEN = 160
LENGTHS = [[100, 60], [160], [30, 70, 50], [90, 70]]  # the third has ten tokens of padding
SOURCES = [[0, 1], [1], [0, 0, 2], [1, 0]]  # of NAMES
NAMES = ["books", "code", "repeat", "unused"]
LARGE = {"hidden_size": 32, "max_position_embeddings": 256, "tie_word_embeddings": False}
THREE_HEADS = {
    **LARGE,
    "hidden_size": 48,
    "num_attention_heads": 6,
    "num_key_value_heads": 3,
    "head_dim": 8,
}
"""Heads that three ranks can share."""


class Plan:
    """Rows in memory, as `PackedSequences` has them on disk."""

    seq_len = SEQ_LEN

    def __len__(self) -> int:
        return len(LENGTHS)

    def read(self, number: int, epoch: int = 0, low: int = 0, high: int | None = None) -> Row:
        row = models.packed(LENGTHS[number], SEQ_LEN, seed=number)[0]
        part = slice(low, SEQ_LEN if high is None else high)
        return Row(row.input_ids[part], row.labels[part], row.position_ids[part], row.cu_seqlens)

    def num_labels(self, number: int) -> int:
        return sum(LENGTHS[number]) - len(LENGTHS[number])

    def attention_work(self, number: int) -> int:
        return sum(n * n for n in LENGTHS[number])

    def piece_sources(self, number: int) -> tuple[np.ndarray, np.ndarray]:
        return np.array(LENGTHS[number]), np.array(SOURCES[number])


def start(
    stage: int, accumulated: int, mesh: Mesh, *overrides: str, sizes: dict[str, Any] = LARGE
) -> tuple[Engine, Config, BatchLoader]:
    """Engine, config and loader of a global batch of all four rows."""
    model = models.tiny_model(**sizes)
    wrapper = ulysses.kernel_wrapper(model.config, mesh)
    model.config._attn_implementation = attention.register("sdpa", wrapper=wrapper)
    config = compose(
        [
            "recipe=demo",
            f"train.zero_stage={stage}",
            f"train.sp_size={mesh.sp_size}",
            "train.optimizer.lr=1e-3",
            "train.optimizer.gradient_clipping=0.5",
            "train.schedule.warmup_steps=0",
            *overrides,
        ]
    )
    loader = BatchLoader(
        Plan(),
        mesh,
        seed=0,
        micro_batch_size=len(LENGTHS) // (accumulated * mesh.dp_size),
        batch_ramp=[(0, accumulated)],
    )
    return build_engine(model, config, accumulated, mesh), config, loader


def run_steps(
    stage: int,
    sp_size: int,
    accumulated: int,
    steps: int,
    *overrides: str,
    sizes: dict[str, Any] = LARGE,
) -> list[dict[str, Any]]:
    """The lines of a few steps on this rank."""
    mesh = Mesh.of(sp_size)
    engine, config, loader = start(stage, accumulated, mesh, *overrides, sizes=sizes)
    metrics = StepMetrics(engine, config, mesh, loader, NAMES)
    batches = loader.micro_batches(range(steps))
    return [
        train_step(engine, config, loader, batches, step, mesh, metrics, accept_step)
        for step in range(steps)
    ]


def run_steps_in_thirds(sp_size: int) -> list[dict[str, Any]]:
    """Steps on a batch of 4 x 160 tokens, which three ranks do not divide."""
    return run_steps(1, sp_size, 1, 3, sizes=THREE_HEADS)


# 5 windows for two groups, so that one group makes a pass that does not count; sp_size does not
# divide 131
WINDOWS = [48, 100, 100, 131, 100]


def windows() -> list[np.ndarray]:
    return models.documents(WINDOWS, seed=9)


def validate(stage: int, sp_size: int) -> dict[str, Any]:
    """The result of a validation on the engine's initial weights."""
    mesh = Mesh.of(sp_size)
    engine, config, _ = start(stage, 1, mesh)
    return Validation(engine, windows(), config, mesh).measure()


def retrieve(
    stage: int, sp_size: int, haystacks: list[Haystack], sizes: dict[str, Any], *overrides: str
) -> dict[str, Any]:
    """The same, of questions about haystacks."""
    mesh = Mesh.of(sp_size)
    engine, config, _ = start(stage, 1, mesh, *overrides, sizes=sizes)
    validation = Validation(engine, [], config, mesh, haystacks)
    return validation.measure() | {"passes": validation.windows_measured}


def random_haystack() -> Haystack:
    """Of 90 tokens, with two questions."""
    context, first, answer, second, other = models.documents([90, 7, 3, 9, 2], seed=11)
    questions = Question(first, answer, "", "", 0.0), Question(second, other, "", "", 1.0)
    return Haystack(context, questions, pairs=9)


def train_with_validation(stage: int, sp_size: int, every: int) -> list[tuple[float, float]]:
    """Loss and gradient norm of four steps; with `every` 2 the second and the last are followed by
    validation of all tasks."""
    mesh = Mesh.of(sp_size)
    overrides = [
        f"train.validation.interval_steps={every}",
        "train.steps=4",
        "train.memory.activation_checkpointing=true",
    ]
    engine, config, loader = start(stage, 2, mesh, *overrides)
    metrics = StepMetrics(engine, config, mesh, loader, NAMES)
    batches, validation = (
        loader.micro_batches(range(4)),
        Validation(engine, windows(), config, mesh, [random_haystack()]),
    )
    results = []
    for step in range(4):
        line = train_step(engine, config, loader, batches, step, mesh, metrics, accept_step)
        rng_state = torch.get_rng_state()
        line |= validation(step + 1)
        assert ("validation" in line) == (every == 2 and step % 2 == 1)
        assert engine.module.training and torch.equal(rng_state, torch.get_rng_state())
        results.append((line["loss"], line["grad_norm"]))
    return results
