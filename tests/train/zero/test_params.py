"""ZeRO 3: parameters lie in pieces from the first line on, and all that is proved of a whole model is proved of them."""

from pathlib import Path
from typing import Any

import numpy as np
import partitioned_params_ranks
import pytest
import ranks
import torch
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


def three(precision: str = "fp32", stage: int = 3) -> dict[str, Any]:
    return {"zero_stage": stage, "precision": precision}


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Base:
    folder = tmp_path_factory.mktemp("base")
    tiny_model().save_pretrained(folder)
    return Base(str(folder))


def planned(**shape: Any) -> rope_plan.RopePlan:
    return rope_plan.make(
        YarnConfig(method="yarn", factor=4.0), tiny_config(**shape), "in the test"
    )


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_the_base_is_read_in_pieces_and_proved_in_its_engine(base: Base, precision: str) -> None:
    result = ranks.run(2, partitioned_params_ranks.weights, base, planned(), three(precision))
    dtype = torch.float32 if precision == "fp32" else torch.bfloat16
    expected = (
        AutoModelForCausalLM.from_pretrained(base.path, dtype=torch.float32).to(dtype).float()
    )
    assert all(rank["partitioned"] for rank in result)
    assert all(
        "behaviour and the queries and keys of 2 layers" in rank["message"] for rank in result
    )
    for name, parameter in expected.named_parameters():
        assert np.array_equal(result[0]["weights"][name], parameter.detach().numpy()), name


def test_random_weights_are_the_same_in_pieces_and_whole() -> None:
    of_nothing = Base(None, scratch=SCRATCH)
    plan = planned(vocab_size=300)
    one = ranks.run(1, partitioned_params_ranks.weights, of_nothing, plan, three(stage=1))[0]
    two = ranks.run(2, partitioned_params_ranks.weights, of_nothing, plan, three())[0]
    assert two["partitioned"] and not one["partitioned"]
    assert one["weights"].keys() == two["weights"].keys()
    assert all(
        np.array_equal(two["weights"][name], tensor) for name, tensor in one["weights"].items()
    )


@pytest.mark.parametrize("rank", [0, 2])
def test_it_trains_as_a_whole_model_does_with_an_adapter_too(base: Base, rank: int) -> None:
    lora = LoraConfig(rank=rank)
    expected = ranks.run(2, partitioned_params_ranks.losses, base, planned(), three(stage=1), lora)[
        0
    ]
    result = ranks.run(2, partitioned_params_ranks.losses, base, planned(), three(), lora)[0]
    assert result == pytest.approx(expected, rel=1e-5) and len(set(result)) == 3


def test_a_second_set_of_weights_near_by_changes_no_loss(base: Base) -> None:
    """hpZ: 4 ranks, 2 of a machine."""
    expected = ranks.run(
        4, partitioned_params_ranks.losses, base, planned(), three(), LoraConfig()
    )[0]
    result = ranks.run(
        4,
        partitioned_params_ranks.losses,
        base,
        planned(),
        {**three(), "memory__zero_hpz_size": 2},
        LoraConfig(),
    )[0]
    assert result == expected


def test_what_is_wrong_with_a_model_in_pieces_is_found(base: Base) -> None:
    message = ranks.run(2, partitioned_params_ranks.error_messages, base, planned(), three())[1]
    assert "rotates its query otherwise than the plan" in message["layers"]
    assert "inv_freq[0] is" in message["table"]
    assert message["vocabulary"].startswith(
        "model.path has 97 embeddings and a tokenizer of 98 words"
    )


def test_no_rank_holds_the_model_whole_while_it_is_made(tmp_path: Path) -> None:
    """Of 2 ranks; the first one reads the files, which it maps."""
    shape = {
        "hidden_size": 512,
        "intermediate_size": 2048,
        "num_hidden_layers": 6,
        "vocab_size": 4000,
    }
    big = tiny_model(**shape)
    size = sum(p.numel() for p in big.parameters()) * 4 / 2**20
    big.save_pretrained(tmp_path)
    result = ranks.run(
        2, partitioned_params_ranks.peak_of_load, Base(str(tmp_path)), planned(**shape), three()
    )
    print(size, result)
    assert all(0.49 * size < rank["after"] < 0.55 * size + 5 for rank in result), result
    assert all(rank["highest"] < 0.75 * size for rank in result), result
