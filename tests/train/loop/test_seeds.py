"""One seed decides a training bit for bit: data order, adapter, dropout, weights from scratch."""

from typing import Any

import numpy as np
import pytest
import ranks
import seeds_ranks
import torch
from checkpoint_runs import equal_arrays

from ropewalk.conf.model import ScratchConfig
from ropewalk.conf.rope_methods import YarnConfig
from ropewalk.train.base import Base, base_config
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


def test_two_trainings_of_one_seed_are_bitwise_equal(result: dict[str, Any]) -> None:
    first, second = result["once"], result["again"]
    assert len(first["weights"]) == 16 and equal_arrays(first["weights"], second["weights"])
    assert first["losses"] == second["losses"] and first["sequences"] == second["sequences"]


def test_a_training_runs_with_deterministic_kernels(result: dict[str, Any]) -> None:
    assert result["fixed"]["losses"] == pytest.approx(result["once"]["losses"], rel=1e-6)


def test_another_seed_gives_another_order_and_another_adapter(result: dict[str, Any]) -> None:
    once, other = result["once"], result["other"]
    assert once["sequences"] != other["sequences"] and once["losses"] != other["losses"]
    adapter = [name for name in once["weights"] if "lora_A" in name]
    assert adapter
    for name in adapter:
        assert not np.array_equal(once["weights"][name], other["weights"][name]), name


def test_recomputed_layers_drop_the_same_elements(result: dict[str, Any]) -> None:
    assert result["recomputed"]["losses"] == pytest.approx(result["once"]["losses"], rel=1e-6)
    assert result["without"]["losses"][1:] != pytest.approx(result["once"]["losses"][1:], rel=1e-4)


def test_an_adapter_s_dropout_is_the_same_however_the_batch_is_cut(result: dict[str, Any]) -> None:
    """The same two sequences a step on one rank, on two, and on two that share each sequence."""
    alone = ranks.run(1, seeds_ranks.train_cases, [{"seed": 0, "accumulated": 2}])[0]
    shared = [{"seed": 0, "accumulated": 2, "sp_size": 2, "zero_stage": stage} for stage in (1, 3)]
    for other in (*alone, *ranks.run(2, seeds_ranks.train_cases, shared)[0]):
        assert other["losses"] == pytest.approx(result["once"]["losses"], rel=1e-5)


def test_weights_from_scratch_depend_on_the_seed_only() -> None:
    shape = {"vocab_size": 300, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 1}
    heads = {"num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 32}
    base = Base(None, scratch=ScratchConfig(**shape, **heads))  # type: ignore[arg-type]
    plan = rope_plan.make(YarnConfig(factor=2.0), base_config(base), base.name)

    def weights(seed: int) -> torch.Tensor:
        model = models.build(base, plan, dtype=torch.float32, seed=seed, attention_kernel="sdpa")
        return torch.cat([p.detach().flatten() for p in model.parameters() if p.dim() > 1])

    first = weights(0)
    torch.rand(7)
    assert torch.equal(first, weights(0)) and not torch.equal(first, weights(1))
