"""Dropout and noise of a base's config, against transformers' own forward pass without any."""

from typing import Any

import pytest
import torch
import transformers
from architectures import SMALL, small_model

from ropewalk.conf.errors import ConfigError
from ropewalk.train.model import dropout
from ropewalk.train.model.left_out import notes

EXPERTS = {"num_local_experts": 4, "num_experts_per_tok": 2}
MODELS: dict[str, dict[str, Any]] = {
    "SeedOss": {"attention_dropout": 0.1, "residual_dropout": 0.1},
    "Phi": {"resid_pdrop": 0.1, "embd_pdrop": 0.2},
    "Phi3": {"resid_pdrop": 0.1},
    "Starcoder2": {"residual_dropout": 0.1, "embedding_dropout": 0.1},
    "Mixtral": {"router_jitter_noise": 0.1, **EXPERTS},
    "MiniMaxM2": {"router_jitter_noise": 0.1, **EXPERTS},
    "GPTNeoX": {"hidden_dropout": 0.1, "attention_dropout": 0.1},
    "Llama": {"attention_dropout": 0.1},
}


def losses_in_training(model: Any) -> list[float]:
    model.set_attn_implementation("eager")
    ids = torch.arange(1, 25)[None]
    with torch.no_grad():
        return [float(model.train()(input_ids=ids, labels=ids, use_cache=False).loss) for _ in "ab"]


@pytest.mark.parametrize("kind", MODELS)
def test_without_its_dropouts_a_model_trains_on_the_loss_that_it_evaluates_to(kind: str) -> None:
    changes = MODELS[kind]
    noisy = small_model(kind, changes)
    first, second = losses_in_training(noisy)
    assert first != second
    expected = {key for key in changes if key not in EXPERTS}
    assert expected <= set(dropout.dropouts(noisy.config))
    (line,) = dropout.notes(noisy.config)
    assert all(key in line for key in expected)

    config = getattr(transformers, f"{kind}Config")(**{**SMALL, **changes})
    left = dropout.remove_dropouts(config)
    quiet = small_model(kind, {key: getattr(left, key) for key in changes})
    ids = torch.arange(1, 25)[None]
    with torch.no_grad():
        evaluated = float(quiet.eval()(input_ids=ids, labels=ids, use_cache=False).loss)
    assert losses_in_training(quiet) == [pytest.approx(evaluated, rel=1e-6)] * 2
    dropout.prove_nothing_drawn(quiet)
    by_kernel = "attention_dropout is 0.1; it must be 0"
    with pytest.raises(ConfigError, match=f"is a {config.model_type}; in training|{by_kernel}"):
        dropout.prove_nothing_drawn(noisy)


def test_sections_of_a_config_count_and_other_heads_do_not() -> None:
    dbrx = transformers.DbrxConfig(ffn_config={"moe_jitter_eps": 0.01}, resid_pdrop=0.1)
    assert dropout.dropouts(dbrx) == {"ffn_config.moe_jitter_eps": 0.01, "resid_pdrop": 0.1}
    assert not dropout.dropouts(dropout.remove_dropouts(dbrx))
    assert not dropout.dropouts(transformers.GPTNeoXConfig(classifier_dropout=0.1))
    assert not dropout.notes(transformers.LlamaConfig())


def test_training_that_samples_its_routing_is_refused() -> None:
    sizes = {"num_hidden_layers": 1, "head_dim": 8, **EXPERTS}
    model = small_model("Phimoe", sizes)
    (line,) = dropout.config_problems(model.config, "the-base")
    assert line.startswith("model.path is the-base; its architecture phimoe cannot be trained")
    # its noise shapes the routing outside training too, so it stays
    assert dropout.remove_dropouts(model.config).router_jitter_noise > 0
    with pytest.raises(ConfigError, match="its model.layers.0.mlp.router draws random numbers"):
        dropout.prove_nothing_drawn(model)


def test_what_transformers_does_not_compute_is_told() -> None:
    # keys of DeepSeek's own code, which transformers keeps and does not read
    keys = {"num_nextn_predict_layers": 1, "topk_method": "noaux_tc", "aux_loss_alpha": 0.001}
    config = transformers.DeepseekV3Config.from_dict(keys)
    ahead, bias, loss = sorted(notes(config), key=len, reverse=True)[:3]
    assert "num_nextn_predict_layers 1; transformers builds no such layers" in ahead + bias + loss
    assert "aux_loss_alpha 0.001; transformers computes no such loss" in ahead + bias + loss
    assert "topk_method noaux_tc" in ahead + bias + loss
    mixtral = transformers.MixtralConfig(router_aux_loss_coef=0.02)
    assert not notes(mixtral) and not notes(transformers.LlamaConfig())
