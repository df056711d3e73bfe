"""Parameters by name: trained, decayed, at which rate; against torch's AdamW with such groups."""

from typing import Any

import param_groups_ranks
import pytest
import ranks
import torch
from feeds import batch_loss
from models import tiny_model
from train_settings import train_config
from transformers import AutoModelForCausalLM, GPTNeoXConfig, MixtralConfig

from ropewalk.conf.errors import ConfigError
from ropewalk.conf.optimizer import LrGroupConfig
from ropewalk.train.optim import param_groups

GROUPS: dict[str, Any] = {
    "optimizer__lr_groups": [LrGroupConfig(pattern="up_proj", lr_scale=0.25)],
    "optimizer__layer_lr_decay": 0.5,
    "optimizer__weight_decay": 0.1,
    "optimizer__decay_embeddings": False,
    "optimizer__freeze": [r"layers\.1\.self_attn"],
}
# rate and decay of a tied Llama of two layers, by hand
BY_HAND = {
    "embed_tokens": (1 / 8, 0.0),
    "layers.0.self_attn": (1 / 4, 0.1),
    "layers.0.mlp.up_proj": (1 / 16, 0.1),
    "layers.0.mlp": (1 / 4, 0.1),
    "layers.0.input_layernorm": (1 / 4, 0.0),
    "layers.0.post_attention_layernorm": (1 / 4, 0.0),
    "layers.1.self_attn": None,
    "layers.1.mlp.up_proj": (1 / 8, 0.1),
    "layers.1.mlp": (1 / 2, 0.1),
    "layers.1.input_layernorm": (1 / 2, 0.0),
    "layers.1.post_attention_layernorm": (1 / 2, 0.0),
    "norm": (1.0, 0.0),
}


def rate_and_decay(name: str) -> tuple[float, float] | None:
    name = name.removeprefix("model.")
    return next(value for key, value in BY_HAND.items() if name.startswith(key))


def by_torch(steps: int, batch: int) -> dict[str, torch.Tensor]:
    """The same training by torch's AdamW and transformers' attention, a group a parameter."""
    model, groups = tiny_model(), []
    for name, parameter in model.named_parameters():
        if values := rate_and_decay(name):
            rate, decay = values
            groups.append({"params": [parameter], "lr": 1e-2 * rate, "weight_decay": decay})
    optimizer = torch.optim.AdamW(groups, betas=(0.9, 0.95), eps=1e-8)
    for step in range(steps):
        optimizer.zero_grad()
        batch_loss(model, step, batch).backward()
        optimizer.step()
    return {name: p.detach() for name, p in model.named_parameters()}


@pytest.mark.parametrize(
    "stage", [*(pytest.param(n, marks=pytest.mark.slow) for n in (0, 2)), 1, 3]
)
def test_parameters_learn_at_their_own_rates_under_every_stage(stage: int) -> None:
    result = ranks.run(
        2, param_groups_ranks.weights_and_groups, 3, 2, {**GROUPS, "zero_stage": stage}
    )
    weights, expected, start = result[0]["weights"], by_torch(3, 4), tiny_model().state_dict()
    assert weights.keys() == expected.keys()
    for name, weight in weights.items():
        torch.testing.assert_close(torch.from_numpy(weight), expected[name], rtol=1e-4, atol=2e-5)
        is_frozen = rate_and_decay(name) is None
        assert torch.equal(expected[name], start[name]) == is_frozen
        assert bool((weight == start[name].numpy()).all()) == is_frozen
    groups = {(1e-2 * values[0], values[1]) for values in BY_HAND.values() if values}
    assert set(result[0]["groups"]) == groups


def groups_of(config: Any) -> dict[str, str]:
    """The group of each parameter of a model, by name."""
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config)
    return {name: param_groups.group_of(name) for name, _ in model.named_parameters()}


def test_parameters_of_other_architectures_are_grouped() -> None:
    tiny = {
        "hidden_size": 16,
        "intermediate_size": 16,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
    }
    neox = groups_of(GPTNeoXConfig(vocab_size=8, **tiny))
    assert {n: g for n, g in neox.items() if "layers.0" not in n} == {
        "gpt_neox.embed_in.weight": "embeddings",
        "gpt_neox.final_layer_norm.weight": "norms",
        "gpt_neox.final_layer_norm.bias": "norms",
        "lm_head.weight": "head",
    }
    assert all(g == "attention" for n, g in neox.items() if ".attention." in n)
    assert all(g == "mlp" for n, g in neox.items() if ".mlp." in n)
    mixture = groups_of(MixtralConfig(vocab_size=8, num_key_value_heads=1, **tiny))
    assert {g for n, g in mixture.items() if "experts" in n} == {"mlp"}
    assert mixture["lm_head.weight"] == "head" and "other" not in mixture.values()


@pytest.mark.parametrize(
    ("name", "group"),
    [
        ("model.layers.0.self_attn.q_proj.lora_A.default.weight", "attention"),
        ("model.layers.11.mlp.up_proj.base_layer.weight", "mlp"),
        ("model.layers.0.self_attn.q_norm.weight", "norms"),
        ("model.layers.0.self_attn.sinks", "attention"),
        ("transformer.h.3.ln_1.bias", "norms"),
        ("transformer.wte.weight", "embeddings"),
    ],
)
def test_the_group_of_a_name(name: str, group: str) -> None:
    assert param_groups.group_of(name) == group


def test_patterns_choose_the_trained_parameters() -> None:
    train = train_config(
        steps=1,
        optimizer__lr=1.0,
        optimizer__trainable=["norm", "embed"],
        optimizer__freeze=["input_layernorm"],
    )
    names = [name for name, _ in tiny_model().named_parameters()]
    assert [n for n in names if param_groups.is_trainable(n, train)] == [
        "model.embed_tokens.weight",
        "model.layers.0.post_attention_layernorm.weight",
        "model.layers.1.post_attention_layernorm.weight",
        "model.norm.weight",
    ]
    default = train_config(steps=1, optimizer__lr=1.0)
    assert all(param_groups.is_trainable(name, default) for name in names)


def test_all_patterns_without_a_match_are_refused_with_similar_names() -> None:
    train = {
        "optimizer__freeze": ["emed_tokens", "norm"],
        "optimizer__lr_groups": [LrGroupConfig(pattern="xyz", lr_scale=2.0)],
    }
    (message,) = ranks.run(1, param_groups_ranks.build_error, train)
    first, second = message.splitlines()
    assert first == (
        "ConfigError: train.optimizer.lr_groups[0].pattern is xyz; it must match the name of a "
        "parameter; names are made of model, embed_tokens, weight, layers, self_attn, q_proj, "
        "k_proj, v_proj, o_proj, mlp, gate_proj, up_proj, down_proj, input_layernorm, "
        "post_attention_layernorm, norm"
    )
    assert second == (
        "train.optimizer.freeze[0] is emed_tokens; it must match the name of a parameter; did you "
        "mean embed_tokens?"
    )


def test_freezing_every_parameter_is_refused() -> None:
    (message,) = ranks.run(1, param_groups_ranks.build_error, {"optimizer__freeze": ["."]})
    rule = "something must be left to train; remove a pattern"
    assert message == f"ConfigError: train.optimizer.freeze is ['.']; {rule}"


def test_parameters_are_grouped_by_the_rates_and_decays_counted_by_hand() -> None:
    model, train = tiny_model(), train_config(steps=1, optimizer__lr=1e-2, **GROUPS)
    param_groups.set_requires_grad(model, train)
    actual = {
        id(parameter): (group["scale"], group["weight_decay"])
        for group in param_groups.parameter_groups(model, train)
        for parameter in group["params"]
    }
    for name, parameter in model.named_parameters():
        assert actual.get(id(parameter)) == rate_and_decay(name), name


def test_a_model_without_layers_has_its_embeddings_one_below_the_head() -> None:
    """BEiT's code (arXiv 2106.08254): layers + 1 decays for the embeddings, none for the head."""
    model = torch.nn.ModuleDict(
        {"embed_tokens": torch.nn.Embedding(4, 2), "lm_head": torch.nn.Linear(2, 4, bias=False)}
    )
    train = train_config(
        steps=1, optimizer__lr=1.0, optimizer__layer_lr_decay=0.5, optimizer__weight_decay=0.0
    )
    groups = param_groups.parameter_groups(model, train)
    assert [group["scale"] for group in groups] == [0.5, 1.0]
    assert [[p.shape for p in group["params"]] for group in groups] == [[(4, 2)], [(4, 2)]]


def test_names_that_are_all_frozen_are_refused() -> None:
    names = ["model.embed_tokens.weight", "model.norm.weight"]
    frozen = train_config(steps=1, optimizer__lr=1.0, optimizer__freeze=["embed", "norm"])
    with pytest.raises(ConfigError, match="something must be left to train; remove a pattern"):
        param_groups.refuse_unmatched_patterns(names, frozen)
    part = train_config(steps=1, optimizer__lr=1.0, optimizer__freeze=["norm"])
    param_groups.refuse_unmatched_patterns(names, part)
