"""Targets of LoRA on architectures with other names for their layers."""

from pathlib import Path
from typing import Any

import pytest
import torch
from train_settings import train_config
from transformers import (
    AutoModelForCausalLM,
    DeepseekV3Config,
    GPT2Config,
    GPTNeoXConfig,
    LlamaConfig,
    Qwen3MoeConfig,
)

from ropewalk.conf.errors import ConfigError
from ropewalk.conf.lora import LoraConfig
from ropewalk.train.adapters import attach, targets
from ropewalk.train.optim import param_groups

TINY = {
    "vocab_size": 8,
    "hidden_size": 16,
    "intermediate_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
}
LATENT = {
    "qk_rope_head_dim": 8,
    "qk_nope_head_dim": 8,
    "v_head_dim": 8,
    "kv_lora_rank": 8,
    "q_lora_rank": 8,
}
ATTENTION = {
    "llama": (LlamaConfig(**TINY), ["k_proj", "o_proj", "q_proj", "v_proj"]),
    "gpt_neox": (GPTNeoXConfig(**TINY), ["dense", "query_key_value"]),
    "gpt2": (
        GPT2Config(vocab_size=8, n_embd=16, n_layer=2, n_head=2),
        ["attn.c_attn", "attn.c_proj"],
    ),
    "deepseek_v3": (
        DeepseekV3Config(
            **TINY, **LATENT, n_routed_experts=4, n_group=1, topk_group=1, num_experts_per_tok=1
        ),
        ["kv_a_proj_with_mqa", "kv_b_proj", "o_proj", "q_a_proj", "q_b_proj"],
    ),
    "qwen3_moe": (Qwen3MoeConfig(**TINY, num_experts=4), ["k_proj", "o_proj", "q_proj", "v_proj"]),
}


def meta_model(config: Any) -> Any:
    with torch.device("meta"):
        return AutoModelForCausalLM.from_config(config)


@pytest.mark.parametrize("name", ATTENTION)
def test_attention_layers_have_short_suffixes(name: str) -> None:
    config, expected = ATTENTION[name]
    model = meta_model(config)
    chosen = targets.select_targets(model, ["attention"])
    assert targets.shortest_suffixes(chosen, model) == expected
    assert len(chosen) == 2 * len(expected)


def test_all_linear_leaves_out_the_head_alone() -> None:
    model = meta_model(ATTENTION["llama"][0])
    chosen = targets.select_targets(model, ["all-linear"])
    linear = [n for n, m in model.named_modules() if isinstance(m, torch.nn.Linear)]
    assert set(linear) - set(chosen) == {"lm_head"}


def test_a_target_can_name_one_layer() -> None:
    model = meta_model(ATTENTION["llama"][0])
    chosen = targets.select_targets(model, ["layers.1.self_attn.q_proj", "down_proj"])
    assert chosen == [
        "model.layers.0.mlp.down_proj",
        "model.layers.1.self_attn.q_proj",
        "model.layers.1.mlp.down_proj",
    ]
    assert targets.shortest_suffixes(chosen, model) == sorted(chosen)


def test_embeddings_are_refused_with_a_list_of_targets() -> None:
    with pytest.raises(
        ConfigError,
        match=r"^train\.lora\.targets is wte; .*; names are made of c_attn, c_proj, c_fc; or",
    ):
        targets.select_targets(meta_model(ATTENTION["gpt2"][0]), ["wte"])


def test_patterns_choose_the_parameters_trained_with_an_adapter() -> None:
    model = meta_model(ATTENTION["llama"][0])
    lora = LoraConfig(rank=2, norms=True)
    attach.attach(model, lora, 0)
    train = train_config(
        steps=1,
        optimizer__lr=1.0,
        lora=lora,
        optimizer__trainable=["embed"],
        optimizer__freeze=[r"layers\.0.*norm", "lora_B"],
    )
    param_groups.set_requires_grad(model, train)
    trained = {name for name, p in model.named_parameters() if p.requires_grad}
    assert {n for n in trained if "lora_A" not in n} == {
        "model.embed_tokens.weight",
        "model.layers.1.input_layernorm.weight",
        "model.layers.1.post_attention_layernorm.weight",
        "model.norm.weight",
    }
    assert len([n for n in trained if "lora_A" in n]) == 8
    # lora_A 8 x 2 x 16, embeddings 8 x 16, three norms of 16
    assert param_groups.describe_trainable(model).startswith("432 of ")


def test_an_adapter_without_peft_is_refused(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    find = attach.importlib.util.find_spec
    monkeypatch.setattr(
        attach.importlib.util, "find_spec", lambda name: None if name == "peft" else find(name)
    )
    with pytest.raises(
        ConfigError,
        match=r"^train\.lora\.rank is above 0; adapters need peft; pip install 'ropewalk\[lora\]'",
    ):
        attach.attach(meta_model(ATTENTION["llama"][0]), LoraConfig(rank=2), 0)


def test_attaching_leaves_the_random_state_unchanged() -> None:
    torch.manual_seed(3)
    state = torch.get_rng_state()
    attach.attach(meta_model(ATTENTION["llama"][0]), LoraConfig(rank=2), 0)
    assert torch.equal(state, torch.get_rng_state())
