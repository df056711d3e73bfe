"""What the ranks of the tests of metrics do: steps of a tiny model on a plan of a few packed rows."""

from typing import Any

import models
import numpy as np
import torch
from feeds import accept_step

from ropewalk.data.dataset import BatchLoader, Row
from ropewalk.launch.config.compose import compose
from ropewalk.train import attention
from ropewalk.train.attention import ulysses
from ropewalk.train.loop.step import train_step
from ropewalk.train.loop.validation import Validation
from ropewalk.train.metrics import StepMetrics
from ropewalk.train.zero import engine
from ropewalk.train.zero.mesh import Mesh

SEQ_LEN = 160
LENGTHS = [[100, 60], [160], [30, 70, 50], [90, 70]]  # the third has ten tokens of padding
SOURCES = [[0, 1], [1], [0, 0, 2], [1, 0]]  # of NAMES
NAMES = ["books", "code", "repeat", "unused"]
THIRDS = False  # heads that three ranks can share
LARGE = {"hidden_size": 32, "max_position_embeddings": 256, "tie_word_embeddings": False}


class Plan:
    """Rows in memory, as `Sequences` has them on disk."""

    seq_len = SEQ_LEN

    def __len__(self) -> int:
        return len(LENGTHS)

    def row(self, number: int) -> Row:
        return models.packed(LENGTHS[number], SEQ_LEN, seed=number)[0]

    def read(self, number: int, epoch: int = 0, low: int = 0, high: int | None = None) -> Row:
        whole = self.row(number)
        cut = slice(low, SEQ_LEN if high is None else high)
        return Row(
            whole.input_ids[cut], whole.labels[cut], whole.position_ids[cut], whole.cu_seqlens
        )

    def num_labels(self, number: int) -> int:
        return sum(LENGTHS[number]) - len(LENGTHS[number])

    def attention_work(self, number: int) -> int:
        return sum(n * n for n in LENGTHS[number])

    def piece_sources(self, number: int) -> tuple[np.ndarray, np.ndarray]:
        return np.array(LENGTHS[number]), np.array(SOURCES[number])


def tiny(mesh: Mesh) -> Any:
    thirds = (
        {"hidden_size": 48, "num_attention_heads": 6, "num_key_value_heads": 3, "head_dim": 8}
        if THIRDS
        else {}
    )
    model = models.tiny_model(**{**LARGE, **thirds})
    model.config._attn_implementation = attention.register(
        "sdpa", wrapper=ulysses.kernel_wrapper(model.config, mesh)
    )
    return model


def started(stage: int, accumulated: int, mesh: Mesh, *words: str) -> tuple[Any, Any, BatchLoader]:
    """Engine, config and feed of a global batch of all four rows."""
    settings = [
        "train.optimizer.lr=1e-3",
        "train.optimizer.gradient_clipping=0.5",
        "train.schedule.warmup_steps=0",
    ]
    config = compose(
        [
            "recipe=demo",
            f"train.zero_stage={stage}",
            f"train.sp_size={mesh.sp_size}",
            *settings,
            *words,
        ]
    )
    feed = BatchLoader(
        Plan(),
        mesh,
        seed=0,
        micro_batch_size=len(LENGTHS) // (accumulated * mesh.dp_size),
        batch_ramp=[(0, accumulated)],
    )
    return engine.build_engine(tiny(mesh), config, accumulated, mesh), config, feed


def lines(
    stage: int, sp_size: int, accumulated: int, steps: int, *words: str
) -> list[dict[str, Any]]:
    """The lines of a few steps, as this rank makes them."""
    mesh = Mesh.of(sp_size)
    live, config, feed = started(stage, accumulated, mesh, *words)
    seen, rows = StepMetrics(live, config, mesh, feed, NAMES), feed.micro_batches(range(steps))
    return [
        train_step(live, config, feed, rows, step, mesh, seen, accept_step) for step in range(steps)
    ]


def weights(live: Any) -> dict[str, np.ndarray]:
    with torch.no_grad():
        return {name: p.detach().numpy().copy() for name, p in live.module.model.named_parameters()}


WINDOWS = [
    48,
    100,
    100,
    131,
    100,
]  # five for two groups: one of them makes a pass for nothing; 131 divides by no sp_size


def windows() -> list[np.ndarray]:
    return models.documents(WINDOWS, seed=9)


def validated(stage: int, sp_size: int) -> dict[str, Any]:
    """What validation finds on the weights that the engine was given."""
    mesh = Mesh.of(sp_size)
    live, config, _ = started(stage, 1, mesh)
    return Validation(live, windows(), config, mesh).measure()


def losses(stage: int, sp_size: int, every: int) -> list[tuple[float, float]]:
    """Loss and gradient norm of four steps, the second and the last followed by validation where `every` is 2."""
    mesh = Mesh.of(sp_size)
    words = [
        f"train.validation.interval_steps={every}",
        "train.steps=4",
        "train.memory.activation_checkpointing=true",
    ]
    live, config, feed = started(stage, 2, mesh, *words)
    seen, rows, validation = (
        StepMetrics(live, config, mesh, feed, NAMES),
        feed.micro_batches(range(4)),
        Validation(live, windows(), config, mesh),
    )
    found = []
    for step in range(4):
        line = train_step(live, config, feed, rows, step, mesh, seen, accept_step)
        random = torch.get_rng_state()
        line |= validation(step + 1)
        assert ("validation" in line) == (every == 2 and step % 2 == 1)
        assert live.module.training and torch.equal(random, torch.get_rng_state())
        found.append((line["loss"], line["grad_norm"]))
    return found


def thirds(sp_size: int) -> list[dict[str, Any]]:
    """Of a batch of 4 x 160 tokens, which three ranks do not divide."""
    global THIRDS
    THIRDS = True
    return lines(1, sp_size, 1, 3)
