"""One seed decides a training bit for bit: the data's order, the adapter's first weights, dropout, and weights from scratch."""

from typing import Any

import numpy as np
import pytest
import ranks
import seeds_ranks
import torch
import torch.nn.functional as F

from ropewalk.conf.model import ScratchConfig
from ropewalk.conf.rope_methods import YarnConfig
from ropewalk.train.base import Base, base_config
from ropewalk.train.loop.step import seed_step
from ropewalk.train.model import build as models
from ropewalk.train.rope import plan as rope_plan

CASES = {
    "once": {"seed": 0},
    "again": {"seed": 0},
    "other": {"seed": 1},
    "recomputed": {"seed": 0, "checkpointing": True},
    "without": {"seed": 0, "dropout": 0.0},
    "fixed": {"seed": 0, "deterministic": True},  # the last one: it stays so in the process
}


@pytest.fixture(scope="module")
def result() -> dict[str, Any]:
    return dict(
        zip(CASES, ranks.run(2, seeds_ranks.train_cases, list(CASES.values()))[0], strict=True)
    )


def same(one: dict[str, Any], two: dict[str, Any]) -> bool:
    weights = all(
        np.array_equal(one["weights"][name], two["weights"][name]) for name in one["weights"]
    )
    return weights and one["losses"] == two["losses"] and one["sequences"] == two["sequences"]


def test_two_trainings_of_one_seed_are_the_same_bits(result: dict[str, Any]) -> None:
    assert len(result["once"]["weights"]) == 16 and same(result["once"], result["again"])


def test_a_training_runs_where_every_kernel_must_sum_in_one_order(result: dict[str, Any]) -> None:
    assert result["fixed"]["losses"] == pytest.approx(result["once"]["losses"], rel=1e-6)


def test_another_seed_is_another_order_and_another_adapter(result: dict[str, Any]) -> None:
    once, other = result["once"], result["other"]
    assert once["sequences"] != other["sequences"] and once["losses"] != other["losses"]
    assert all(
        not np.array_equal(once["weights"][n], other["weights"][n])
        for n in once["weights"]
        if "lora_A" in n
    )


def test_layers_that_are_computed_again_drop_what_they_dropped(result: dict[str, Any]) -> None:
    assert result["recomputed"]["losses"] == pytest.approx(result["once"]["losses"], rel=1e-6)
    assert result["without"]["losses"][1:] != pytest.approx(result["once"]["losses"][1:], rel=1e-4)


def drawn(seed: int, phase: int, step: int, rank: int) -> torch.Tensor:
    torch.rand(7)  # whatever was drawn before
    seed_step(seed, phase, step, rank)
    return F.dropout(torch.ones(64), 0.5)


def test_a_step_draws_the_same_whatever_came_before_and_no_two_places_do() -> None:
    places = [(0, 0, 0, 0), (1, 0, 0, 0), (0, 1, 0, 0), (0, 0, 1, 0), (0, 0, 0, 1)]
    assert all(torch.equal(drawn(*place), drawn(*place)) for place in places)
    assert len({tuple(drawn(*place).tolist()) for place in places}) == len(places)


def test_weights_from_scratch_are_the_seed_s() -> None:
    shape = {"vocab_size": 300, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 1}
    heads = {"num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 32}
    base = Base(None, scratch=ScratchConfig(**shape, **heads))  # type: ignore[arg-type]
    plan = rope_plan.make(YarnConfig(factor=2.0), base_config(base), base.name)

    def weights(seed: int) -> torch.Tensor:
        built = models.build(base, plan, dtype=torch.float32, seed=seed, attention_kernel="sdpa")
        return torch.cat([p.detach().flatten() for p in built.parameters() if p.dim() > 1])

    first = weights(0)
    torch.rand(7)
    assert torch.equal(first, weights(0)) and not torch.equal(first, weights(1))
