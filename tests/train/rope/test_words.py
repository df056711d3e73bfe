"""Words of `rope_parameters` beside the table: kept, told or refused."""

from typing import Any

import pytest
import torch
import transformers
from architectures import SMALL
from transformers import AutoModelForCausalLM, PreTrainedConfig
from transformers.models.ministral3.modeling_ministral3 import get_llama_4_attn_scale

from ropewalk.conf.errors import ConfigError
from ropewalk.conf.rope_methods import NTKConfig, PIConfig, RopeConfig, YarnConfig
from ropewalk.train.rope import plan as rope_plan
from ropewalk.train.rope.lint import lint
from ropewalk.train.rope.plan import RopePlan

ORIGINAL = 16
YARN = {
    **{"rope_type": "yarn", "rope_theta": 1e4, "factor": 2.0},
    **{"original_max_position_embeddings": ORIGINAL},
}
MINISTRAL = {**YARN, "llama_4_scaling_beta": 0.1, "mscale": 1.0, "mscale_all_dim": 1.0}


def config(kind: str, words: dict[str, Any], **changes: Any) -> PreTrainedConfig:
    sizes = {**SMALL, "max_position_embeddings": 32, **changes}
    made: PreTrainedConfig = getattr(transformers, f"{kind}Config")(**sizes, rope_parameters=words)
    return made


def own_words(plan: RopePlan) -> list[str]:
    window = plan.max_position_embeddings
    lines = lint(plan, architecture="", sliding=False, pretrained=32, seq_len=window, steps=1)
    return [line for line in lines if "own scaling" in line]


@pytest.mark.parametrize("rope", [YarnConfig(factor=4), PIConfig(factor=4), NTKConfig(factor=4)])
def test_the_temperature_of_long_positions_counts_from_the_same_window(rope: RopeConfig) -> None:
    """transformers' own function of the plan's words is that of the base's."""
    words = {**MINISTRAL, "max_position_embeddings": 32}
    base = config("Ministral3", words)
    plan = rope_plan.make(rope, base, "the-base")
    positions = torch.arange(64)[None]
    expected = get_llama_4_attn_scale(positions, 0.1, ORIGINAL)
    assert float(expected.max()) > 1.1
    planned = plan.rope_parameters
    beta, window = planned["llama_4_scaling_beta"], planned["original_max_position_embeddings"]
    assert torch.equal(get_llama_4_attn_scale(positions, beta, window), expected)
    assert planned["max_position_embeddings"] == 64
    live = AutoModelForCausalLM.from_config(rope_plan.apply(plan, base))
    assert live(input_ids=positions, use_cache=False).logits.isfinite().all()


def test_a_temperature_that_counts_from_no_window_is_refused() -> None:
    words = {"rope_type": "default", "rope_theta": 1e4, "llama_4_scaling_beta": 0.1}
    for rope in (YarnConfig(factor=4), RopeConfig()):
        with pytest.raises(ConfigError, match="llama_4_scaling_beta 0.1, which counts from"):
            rope_plan.make(rope, config("Ministral3", words), "the-base")


@pytest.mark.parametrize("word", ["finetuned", "long_mscale", "extrapolation_factor"])
def test_a_word_that_is_not_known_is_refused_by_name_or_stays(word: str) -> None:
    base = config("Llama", {**YARN, word: 1.5})
    with pytest.raises(ConfigError, match=f"the-base; its architecture llama has {word} 1.5 in"):
        rope_plan.make(YarnConfig(factor=4), base, "the-base")
    assert rope_plan.make(RopeConfig(), base, "the-base").rope_parameters[word] == 1.5


def test_words_of_the_base_that_a_plan_changes_are_told() -> None:
    gpt_oss = config("Llama", {**YARN, "truncate": False, "beta_fast": 32.0, "beta_slow": 1.0})
    (line,) = own_words(rope_plan.make(YarnConfig(factor=4), gpt_oss, "the-base"))
    assert "its truncate False becomes True; " in line
    kept = rope_plan.make(YarnConfig(factor=4, truncate=False), gpt_oss, "the-base")
    assert not own_words(kept)

    # DeepSeek-V2
    deepseek = config("Llama", {**YARN, "mscale": 0.707, "mscale_all_dim": 0.707})
    (line,) = own_words(rope_plan.make(YarnConfig(factor=4), deepseek, "the-base"))
    assert "mscale 0.707 becomes unset, mscale_all_dim 0.707 becomes unset; " in line
    assert "attention_factor is 1 in the base and 1.139 in the plan" in line

    unscaled = config("Llama", {"rope_type": "default", "rope_theta": 1e4})
    assert not own_words(rope_plan.make(YarnConfig(factor=4), unscaled, "the-base"))
