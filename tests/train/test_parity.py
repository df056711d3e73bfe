"""One loss curve at every parallel degree, against plain transformers and torch in one process,
document by document.
"""

import os
from datetime import date
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import parity_ranks
import pytest
import ranks
import torch
import torch.nn.functional as F
from models import documents, tiny_model
from parity_ranks import BATCH, BY_HEADS, Cell, Curve
from plans import written

from ropewalk.conf.schema import Config
from ropewalk.data.dataset import DataArtifacts
from ropewalk.launch.config.compose import compose

RTOL = 1e-5
SEQ_LEN, STEPS, CLIP, LR, DECAY = 64, 10, 2.2, 1e-3, 0.1
# documents of each of the batch's sequences; what they leave of it is padding
TEXTS = {
    "one": [[64], [64], [64], [64]],
    "packed": [[30, 3, 17, 14], [50, 10], [5, 3], [1, 40, 23]],
}
SHAPES: dict[str, dict[str, Any]] = {
    "kv4": {"hidden_size": 64, "num_attention_heads": 8, "num_key_value_heads": 4},
    "kv2": {
        "hidden_size": 64,
        "num_attention_heads": 8,
        "num_key_value_heads": 2,
        "tie_word_embeddings": False,
    },
}


def settings(**more: Any) -> Config:
    """`more`: settings of `train` beside those of every cell."""
    overrides = {
        "train.steps": STEPS,
        "train.optimizer.lr": LR,
        "train.schedule.warmup_steps": 0,
        "train.schedule.kind": "constant",
        "train.optimizer.weight_decay": DECAY,
        "train.optimizer.gradient_clipping": CLIP,
        "train.precision": "fp32",
        "train.global_batch_tokens": BATCH * SEQ_LEN,
        "data.seq_len": SEQ_LEN,
        **{f"train.{key.replace('__', '.')}": value for key, value in more.items()},
    }
    return compose(["recipe=demo", *(f"{key}={value}" for key, value in overrides.items())])


@pytest.fixture(scope="module")
def plans(tmp_path_factory: pytest.TempPathFactory) -> dict[str, DataArtifacts]:
    result = {}
    for name, texts in TEXTS.items():
        numbers = iter(range(100))
        rows = [[(next(numbers), 0, length) for length in row] for row in texts]
        folder = tmp_path_factory.mktemp(name)
        result[name] = written(folder, documents(sum(texts, []), seed=1), rows, seq_len=SEQ_LEN)
    return result


@cache
def alone(plan: str, shape: str) -> Curve:
    """The oracle: transformers' eager attention on each document by itself, torch's autograd,
    clipping and AdamW.
    """
    model = tiny_model(**(SHAPES | BY_HEADS)[shape]).train()
    model.set_attn_implementation("eager")
    matrices = [p for p in model.parameters() if p.dim() == 2]
    vectors = [p for p in model.parameters() if p.dim() == 1]
    groups = [{"params": matrices, "weight_decay": DECAY}, {"params": vectors, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=LR, betas=(0.9, 0.95), eps=1e-8)
    texts = documents(sum(TEXTS[plan], []), seed=1)
    count = sum(len(text) - 1 for text in texts)
    result = Curve([], [], {})
    for _ in range(STEPS):
        total = sum(_nll(model, torch.from_numpy(text)) for text in texts if len(text) > 1) / count
        total.backward()
        if not result.gradients:
            result.gradients = {
                n: p.grad.double().numpy().copy() for n, p in model.named_parameters()
            }
        result.losses.append(total.item())
        result.norms.append(torch.nn.utils.clip_grad_norm_(model.parameters(), CLIP).item())
        optimizer.step()
        optimizer.zero_grad()
    return result


def _nll(model: Any, ids: torch.Tensor) -> torch.Tensor:
    logits = model(input_ids=ids[None], use_cache=False).logits[0]
    return F.cross_entropy(logits[:-1], ids[1:], reduction="sum")


def differences(result: Curve, expected: Curve) -> dict[str, float]:
    """Largest relative difference of the first gradient (by parameter, in its norm), of the losses
    and of the norms.
    """
    gradients = [
        float(np.linalg.norm(result.gradients[n] - g) / np.linalg.norm(g))
        for n, g in expected.gradients.items()
    ]
    assert result.gradients.keys() == expected.gradients.keys()
    curve, norms = (
        np.abs(np.divide(a, b) - 1).max()
        for a, b in ((result.losses, expected.losses), (result.norms, expected.norms))
    )
    return {"gradient": max(gradients), "losses": float(curve), "norms": float(norms)}


def matrix(
    sp_size: int,
    dp_size: int,
    expected: list[Cell],
    plans: dict[str, DataArtifacts],
    device: str = "cpu",
    **more: Any,
) -> dict[Cell, dict[str, float]]:
    result = ranks.run(
        sp_size * dp_size,
        parity_ranks.run_cells,
        sp_size,
        expected,
        settings(**more),
        plans,
        SHAPES | BY_HEADS,
        device=device,
    )[0]
    for cell in expected:
        refuse_leaks(result[cell], cell.plan)
    return {cell: differences(result[cell], alone(cell.plan, cell.model)) for cell in expected}


def refuse_leaks(result: Curve, plan: str) -> None:
    """Only the first document's losses may move; positions restart at each border."""
    (leak,) = result.leaks
    count = len(leak.loss_before) // SEQ_LEN
    lengths = [n for row in TEXTS[plan][:count] for n in (*row, SEQ_LEN - sum(row)) if n]
    assert np.array_equal(leak.positions, np.concatenate([np.arange(n) for n in lengths]))
    moved = np.flatnonzero(leak.loss_before != leak.loss_after)
    assert len(moved) and moved.max() < lengths[0], moved


def test_the_oracle_clips_some_steps_and_not_others() -> None:
    """Else a wrong scale of the gradient would be hidden by AdamW, which does not see it."""
    for plan in TEXTS:
        for shape in SHAPES:
            norms = alone(plan, shape).norms
            assert min(norms) < 0.9 * CLIP and max(norms) > 1.1 * CLIP


STAGES = (0, 1, 2, 3)
# every axis, and each size of sequence parallelism with each stage
KEPT = {
    (1, 2): [Cell(z, 1 + z % 2, ("packed", "one")[z // 2], "kv4") for z in STAGES],
    (2, 1): [Cell(z, 2 - z % 2, ("one", "packed")[z // 2], "kv4") for z in STAGES],
    (4, 1): [Cell(z, 1, "packed", "kv2") for z in STAGES],
    (2, 2): [Cell(3, 2, "packed", "kv2")],
}


@pytest.mark.parametrize(("sp_size", "dp_size"), KEPT)
def test_gradients_losses_and_norms_are_those_of_one_process(
    plans: dict[str, DataArtifacts], sp_size: int, dp_size: int
) -> None:
    expected = KEPT[sp_size, dp_size]
    for cell, apart in matrix(sp_size, dp_size, expected, plans).items():
        assert max(apart.values()) < RTOL, (cell, apart)


def test_heads_that_the_ranks_do_not_divide_are_the_same_numbers(
    plans: dict[str, DataArtifacts],
) -> None:
    """With checkpoints that keep the attention, whose exchange is made once more."""
    expected = [
        Cell(1, 1, "packed", "3 heads, 1 keys"),
        Cell(3, 2, "one", "1 heads, 1 keys"),
    ]
    checkpoints = {"memory__activation_checkpointing": True, "memory__keep_attention": True}
    for cell, apart in matrix(2, 1, expected, plans, **checkpoints).items():
        assert max(apart.values()) < RTOL, (cell, apart)


@pytest.mark.slow
@pytest.mark.parametrize("sp_size", [2, 4, 8])
def test_every_number_of_heads_at_every_size(plans: dict[str, DataArtifacts], sp_size: int) -> None:
    """The gradient alone, in double precision: attention/test_exchange.py."""
    expected = [
        Cell(n % 4, 1 + n % 2, plan, shape) for n, shape in enumerate(BY_HEADS) for plan in TEXTS
    ]
    for cell, apart in matrix(sp_size, 1, expected, plans).items():
        assert max(apart.values()) < RTOL, (cell, apart)


ON_GPUS = [
    pytest.param(sp_size, dp_size, marks=pytest.mark.gpu(count=sp_size * dp_size))
    for sp_size, dp_size in ((1, 1), (1, 2), (2, 1), (2, 2), (4, 2), (8, 1))
]


@pytest.mark.parametrize(("sp_size", "dp_size"), ON_GPUS)
def test_parity_on_gpus(plans: dict[str, DataArtifacts], sp_size: int, dp_size: int) -> None:
    """Over NCCL in fp32, at ten times the bar: a GPU's kernels sum in another order than the
    oracle, which is on the CPU. A wrong scale or border is 100 times the bar away."""
    accumulated = 2 if dp_size == 1 else 1
    expected = [Cell(z, accumulated, ("packed", "one")[z % 2], "kv4") for z in STAGES]
    for cell, apart in matrix(sp_size, dp_size, expected, plans, device="cuda").items():
        assert max(apart.values()) < 10 * RTOL, (cell, apart)


def test_tiles_and_checkpoints_in_host_memory_are_the_same_numbers(
    plans: dict[str, DataArtifacts],
) -> None:
    """Tiles that do not divide the slice, with Ulysses and accumulation at each stage."""
    expected = [Cell(z, 2, "packed", "kv4") for z in STAGES]
    settings = {
        "memory__activation_checkpointing": True,
        "memory__offload_activations": True,
        "memory__tile_mlp_tokens": 5,
    }
    for cell, apart in matrix(2, 1, expected, plans, **settings).items():
        assert max(apart.values()) < RTOL, (cell, apart)


def test_offloaded_states_are_the_same_numbers(plans: dict[str, DataArtifacts]) -> None:
    expected = [Cell(z, 2, "packed", "kv4") for z in STAGES[1:]]
    for cell, apart in matrix(1, 2, expected, plans, memory__offload_optimizer=True).items():
        assert max(apart.values()) < RTOL, (cell, apart)


@pytest.mark.parametrize("stage", [1, 3])
def test_what_the_comparison_must_notice(plans: dict[str, DataArtifacts], stage: int) -> None:
    """Borders left out, and a gradient scaled as another stage wants it."""
    borders, scale = (Cell(stage, 1, "packed", "kv4", fault) for fault in ("borders", "scale"))
    result = ranks.run(2, parity_ranks.run_cells, 2, [borders, scale], settings(), plans, SHAPES)[0]
    apart = {cell: differences(f, alone(cell.plan, cell.model)) for cell, f in result.items()}
    assert min(apart[borders].values()) > 100 * RTOL
    # the first loss is made before any gradient, so only a part of the curve is off
    assert apart[scale]["gradient"] == pytest.approx(1.0 if stage == 1 else 0.5, rel=1e-3)
    assert min(apart[scale].values()) > 100 * RTOL
    with pytest.raises(AssertionError):
        refuse_leaks(result[borders], "packed")


@pytest.mark.slow
def test_the_whole_matrix(plans: dict[str, DataArtifacts]) -> None:
    """Minutes. With ROPEWALK_PARITY=FILE its table is written there: docs/parity.md."""
    result: dict[tuple[int, int], dict[Cell, dict[str, float]]] = {}
    expected = [Cell(z, a, p, m) for z in STAGES for a in (1, 2) for p in TEXTS for m in SHAPES]
    for sp_size in (1, 2, 4):
        for dp_size in (1, 2):
            result[sp_size, dp_size] = matrix(sp_size, dp_size, expected, plans)
    if path := os.environ.get("ROPEWALK_PARITY"):
        Path(path).write_text(table(result))
    every = [
        (max(apart.values()), at, cell)
        for at, part in result.items()
        for cell, apart in part.items()
    ]
    worst = max(every, key=lambda entry: entry[0])
    assert worst[0] < RTOL, worst


def table(result: dict[tuple[int, int], dict[Cell, dict[str, float]]]) -> str:
    """Markdown: the worst of each cell over both models."""
    versions = ", ".join(
        f"{name} {version(name)}" for name in ("torch", "transformers", "deepspeed")
    )
    lines = [
        "# One loss curve at every parallel degree",
        "",
        "Made by `ROPEWALK_PARITY=docs/parity.md pytest -m slow tests/train/test_parity.py` on "
        f"{date.today()}, CPU, gloo, fp32; {versions}.",
        "",
        "Each cell trains ten steps on the same global batch of four sequences, with clipping that",
        "acts on some of the steps. The oracle is one process of plain transformers (eager",
        "attention, each document by itself), torch's autograd, clipping and AdamW. The numbers",
        "are the largest relative difference: of a parameter's first gradient (in its norm) / of",
        "the ten losses / of the ten gradient norms, over a model with 4 key/value heads and one",
        "with 2, fewer than sp 4 has ranks. The bar is 1e-5. In each cell one token of a document",
        "was changed as well: no other document's loss moved by a bit.",
        "",
        "| sp x dp | accumulated | documents | "
        + " | ".join(f"ZeRO {stage}" for stage in STAGES)
        + " |",
        "|---|---|---|" + "---|" * len(STAGES),
    ]
    for (sp_size, dp_size), part in result.items():
        for accumulated in (1, 2):
            for plan in TEXTS:
                row = [_worst(part, stage, accumulated, plan) for stage in STAGES]
                lines.append(
                    f"| {sp_size} x {dp_size} | {accumulated} | {plan} | " + " | ".join(row) + " |"
                )
    return "\n".join(lines) + "\n"


def _worst(part: dict[Cell, dict[str, float]], stage: int, accumulated: int, plan: str) -> str:
    differences = [
        apart
        for c, apart in part.items()
        if (c.zero_stage, c.accumulated, c.plan) == (stage, accumulated, plan)
    ]
    return " / ".join(
        f"{max(apart[key] for apart in differences):.1e}" for key in ("gradient", "losses", "norms")
    )
