"""What a step says of itself, against plain transformers and torch in one process."""

import math
from functools import cache
from typing import Any

import metrics_runs
import models
import numpy as np
import pytest
import ranks
import torch
import torch.nn.functional as F

from ropewalk.train.metrics import sums
from ropewalk.train.metrics.step_metrics import PHASES, straggler_share, with_other

CELLS = [(0, 2, 1, 2), (1, 2, 2, 2), (2, 2, 1, 2), (3, 2, 2, 1)]  # ZeRO, ranks, sp, accumulation
KINDS = {
    "norm": "norms",
    "self_attn": "attention",
    "mlp": "mlp",
    "embed_tokens": "embeddings",
    "lm_head": "head",
}


@cache
def oracle() -> dict[str, Any]:
    """Every document alone under transformers' eager attention: each token's loss and position, and
    the gradient of the mean.
    """
    model = models.tiny_model(**metrics_runs.LARGE, attn_implementation="eager")
    nll, positions, sources = [], [], []
    for number, lengths in enumerate(metrics_runs.LENGTHS):
        for ids, source in zip(
            models.documents(lengths, seed=number), metrics_runs.SOURCES[number], strict=True
        ):
            sources += [metrics_runs.NAMES[source]] * (len(ids) - 1)
            x = torch.from_numpy(ids)[None]
            nll.append(F.cross_entropy(model(x).logits[0, :-1], x[0, 1:], reduction="none"))
            positions.append(torch.arange(len(ids) - 1))
    losses = torch.cat(nll)
    losses.mean().backward()
    squares: dict[str, float] = {}
    for name, p in model.named_parameters():
        kind = next(group for word, group in KINDS.items() if word in name)
        squares[kind] = squares.get(kind, 0.0) + float(p.grad.double().square().sum())
    return {
        "nll": losses.detach().double(),
        "positions": torch.cat(positions),
        "sources": np.array(sources),
        "norms": {kind: math.sqrt(s) for kind, s in squares.items()},
    }


@pytest.mark.parametrize(("stage", "world", "sp", "accumulated"), CELLS)
def test_a_line_holds_the_numbers_of_one_process(
    stage: int, world: int, sp: int, accumulated: int
) -> None:
    lines = ranks.run(world, metrics_runs.run_steps, stage, sp, accumulated, 1)
    line, expected = lines[0][0], oracle()
    assert line["loss"] == pytest.approx(float(expected["nll"].mean()), rel=1e-5)
    for row in line["loss_by_position"]:
        inside = (expected["positions"] >= row["from"]) & (expected["positions"] < row["to"])
        assert row["tokens"] == int(inside.sum()) and row["nll"] == pytest.approx(
            float(expected["nll"][inside].mean()), rel=1e-5
        )
    assert [row["from"] for row in line["loss_by_position"]] == [0, 64, 128]
    assert set(line["loss_by_source"]) == {"books", "code", "repeat"}
    for name, row in line["loss_by_source"].items():
        selected = torch.from_numpy(expected["sources"] == name)
        assert row["tokens"] == int(selected.sum()) and row["nll"] == pytest.approx(
            float(expected["nll"][selected].mean()), rel=1e-5
        )
    assert set(line["grad_norm_by_group"]) == {"embeddings", "attention", "mlp", "norms", "head"}
    for group, norm in expected["norms"].items():
        assert line["grad_norm_by_group"][group] == pytest.approx(norm, rel=1e-5), group
    assert sum(line["time"].values()) == pytest.approx(line["step_time_s"], rel=1e-9)
    assert all(line["time"][phase] > 0 for phase in PHASES)
    shared = [{k: v for k, v in rank[0].items() if k not in OWN} for rank in lines]
    assert all(rank == shared[0] for rank in shared)


OWN = ("time", "step_time_s", "tokens_per_s", "tokens_per_s_per_rank", "mfu", "hfu")


def test_flops_of_a_line_are_those_of_its_documents() -> None:
    line = ranks.run(2, metrics_runs.run_steps, 1, 1, 1, 1, "train.metrics.peak_tflops=0.5")[0][0]
    lengths = [
        n for row in metrics_runs.LENGTHS for n in [*row, metrics_runs.SEQ_LEN - sum(row)] if n
    ]
    tokens, labels = (
        4 * metrics_runs.SEQ_LEN,
        sum(sum(row) - len(row) for row in metrics_runs.LENGTHS),
    )
    hidden, mlp, kv, layers = 32, 64, 16, 2
    matrices = layers * (2 * hidden * hidden + 2 * hidden * kv + 3 * hidden * mlp)
    attention = layers * 4 * hidden * sum(n * (n + 1) // 2 for n in lengths)
    expected = 3 * (2 * matrices * tokens + attention + 2 * hidden * models.VOCAB * labels)
    assert line["model_flops"] == expected
    assert line["mfu"] == pytest.approx(expected / (line["step_time_s"] * 2 * 0.5e12))
    assert 0 < line["imbalance"] < 0.2 and 0 <= line["idle"] < 1


def test_without_a_known_peak_utilisation_is_null_and_norms_are_logged_every_nth_step() -> None:
    first, second, third = ranks.run(
        1, metrics_runs.run_steps, 1, 1, 1, 3, "train.metrics.group_norms_every=2"
    )[0]
    assert first["mfu"] is None and first["hfu"] is None and first["model_flops"] > 0
    assert (
        "grad_norm_by_group" in first
        and "grad_norm_by_group" not in second
        and "grad_norm_by_group" in third
    )


def test_buckets_hold_each_position_once() -> None:
    positions = torch.tensor([0, 63, 64, 127, 128, 1 << 20, 1 << 40])
    starts = sums.bucket_starts()
    for position, bucket in zip(
        positions.tolist(), sums.position_bucket(positions).tolist(), strict=True
    ):
        assert starts[bucket] <= position and (
            bucket + 1 == len(starts) or position < starts[bucket + 1]
        )


def test_time_outside_every_phase_is_other() -> None:
    assert with_other({"forward": 1.0, "wait": 0.5}, 2.0)["other"] == 0.5
    assert straggler_share([1.0, 1.0]) == 0 and straggler_share([3.0, 1.0]) == pytest.approx(1 / 3)


def test_three_ranks_share_a_sequence_that_they_do_not_divide() -> None:
    """640 tokens and 2 of padding: losses and gradients are those of one process."""
    alone, shared = (
        ranks.run(1, metrics_runs.run_steps_in_thirds, 1)[0],
        ranks.run(3, metrics_runs.run_steps_in_thirds, 3)[0],
    )
    for single, three in zip(alone, shared, strict=True):
        for key in ("loss", "grad_norm"):
            assert three[key] == pytest.approx(single[key], rel=1e-5)
        assert three["tokens"] == single["tokens"] and three["labels"] == single["labels"]
        assert list(three["loss_by_source"]) == list(single["loss_by_source"])
        for key in ("loss_by_position", "loss_by_source"):
            ours, expected = (
                list(f[key].values()) if isinstance(f[key], dict) else f[key]
                for f in (three, single)
            )
            assert [row["tokens"] for row in ours] == [row["tokens"] for row in expected]
            assert [row["nll"] for row in ours] == pytest.approx(
                [row["nll"] for row in expected], rel=1e-4
            )
