"""ZeRO 3 partitions parameters from construction on; every proof of a full model holds for them."""

from pathlib import Path
from typing import Any

import numpy as np
import partitioned_params_ranks as programs
import pytest
import ranks
import torch
from checkpoint_runs import equal_arrays
from models import tiny_config, tiny_model
from transformers import AutoModelForCausalLM

from ropewalk.conf.lora import LoraConfig
from ropewalk.conf.model import ScratchConfig
from ropewalk.conf.rope_methods import YarnConfig
from ropewalk.train.base import Base
from ropewalk.train.rope import plan as rope_plan

SCRATCH = ScratchConfig(
    vocab_size=300,
    hidden_size=32,
    intermediate_size=64,
    num_hidden_layers=2,
    num_attention_heads=4,
    num_key_value_heads=2,
    max_position_embeddings=64,
)


def settings(precision: str = "fp32", stage: int = 3) -> dict[str, Any]:
    return {"zero_stage": stage, "precision": precision}


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Base:
    folder = tmp_path_factory.mktemp("base")
    tiny_model().save_pretrained(folder)
    return Base(str(folder))


def rescaled(**shape: Any) -> rope_plan.RopePlan:
    rope = YarnConfig(method="yarn", factor=4.0)
    return rope_plan.make(rope, tiny_config(**shape), "in the test")


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_partitioned_base_equals_its_files_and_is_proved(base: Base, precision: str) -> None:
    result = ranks.run(2, programs.weights, base, rescaled(), settings(precision))
    dtype = torch.float32 if precision == "fp32" else torch.bfloat16
    expected = AutoModelForCausalLM.from_pretrained(base.path, dtype=torch.float32).to(dtype)
    assert all(rank["partitioned"] for rank in result)
    proof = "behaviour and the queries and keys of 2 layers"
    assert all(proof in rank["message"] for rank in result)
    for name, parameter in expected.float().named_parameters():
        assert np.array_equal(result[0]["weights"][name], parameter.detach().numpy()), name


def test_random_weights_do_not_depend_on_partitioning() -> None:
    base, plan = Base(None, scratch=SCRATCH), rescaled(vocab_size=300)
    unpartitioned = ranks.run(1, programs.weights, base, plan, settings(stage=1))[0]
    partitioned = ranks.run(2, programs.weights, base, plan, settings())[0]
    assert partitioned["partitioned"] and not unpartitioned["partitioned"]
    assert equal_arrays(partitioned["weights"], unpartitioned["weights"])


@pytest.mark.parametrize("rank", [0, 2])
def test_a_partitioned_model_trains_as_a_full_one(base: Base, rank: int) -> None:
    """With an adapter too."""
    lora = LoraConfig(rank=rank)
    expected = ranks.run(2, programs.losses, base, rescaled(), settings(stage=1), lora)[0]
    result = ranks.run(2, programs.losses, base, rescaled(), settings(), lora)[0]
    assert result == pytest.approx(expected, rel=1e-5) and len(set(result)) == 3


def test_a_second_copy_of_the_weights_on_each_machine_changes_no_loss(base: Base) -> None:
    """hpZ: 4 ranks, 2 of a machine."""
    expected = ranks.run(4, programs.losses, base, rescaled(), settings(), LoraConfig())[0]
    with_hpz = {**settings(), "memory__zero_hpz_size": 2}
    result = ranks.run(4, programs.losses, base, rescaled(), with_hpz, LoraConfig())[0]
    assert result == expected


def test_faults_of_a_partitioned_model_are_found(base: Base) -> None:
    message = ranks.run(2, programs.error_messages, base, rescaled(), settings())[1]
    assert "rotates its query otherwise than the plan" in message["layers"]
    assert "inv_freq[0] is" in message["table"]
    assert message["vocabulary"].startswith(
        "model.path has 97 embeddings and a tokenizer of 98 words"
    )


def test_no_rank_holds_the_full_model_while_it_is_built(tmp_path: Path) -> None:
    """Two ranks; rank 0 reads the files, which it maps."""
    layers = {"num_hidden_layers": 6, "vocab_size": 4000}
    shape = {"hidden_size": 512, "intermediate_size": 2048, **layers}
    model = tiny_model(**shape)
    size = sum(p.numel() for p in model.parameters()) * 4 / 2**20
    model.save_pretrained(tmp_path)
    base, plan = Base(str(tmp_path)), rescaled(**shape)
    result = ranks.run(2, programs.peak_of_load, base, plan, settings())
    print(size, result)
    assert all(0.49 * size < rank["after"] < 0.55 * size + 5 for rank in result), result
    assert all(rank["highest"] < 0.75 * size for rank in result), result
