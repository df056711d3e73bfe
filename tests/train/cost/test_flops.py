"""FLOPs by arithmetic against torch's FlopCounterMode, which counts the products that are run."""

from typing import Any

import models
import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode
from transformers import (
    AttentionInterface,
    AttentionMaskInterface,
    AutoModelForCausalLM,
    Gemma3TextConfig,
    MistralConfig,
    MixtralConfig,
    Qwen3MoeConfig,
)

from ropewalk.train import attention
from ropewalk.train.cost import flops
from ropewalk.train.loss import LossModel
from ropewalk.train.model.attention_swap import no_mask

LENGTHS = [9, 4, 7]
SIZES = {
    "vocab_size": models.VOCAB,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "pad_token_id": 0,
}
ROPE = {"rope_parameters": {"rope_type": "default", "rope_theta": 10000.0}}


def each_query_alone(
    module: Any, query: Any, key: Any, value: Any, _: None, **at: Any
) -> tuple[Any, None]:
    """Attention as a product for each query with the keys that it may see, and no other: what is counted is what is visible."""
    groups, window = query.shape[1] // key.shape[1], at.get("sliding_window") or query.shape[2]
    key, value = (x.repeat_interleave(groups, 1) for x in (key, value))
    rows = []
    for head in range(query.shape[1]):
        for start, end in zip(at["document_ends"], at["document_ends"][1:], strict=False):
            for i in range(start, end):
                first = max(start, i - window + 1)
                scores = query[0, head, i : i + 1] @ key[0, head, first : i + 1].T
                rows.append(scores.softmax(-1) @ value[0, head, first : i + 1])
    out = torch.cat(rows).view(1, query.shape[1], query.shape[2], -1)
    return out.transpose(1, 2), None


@pytest.fixture(autouse=True)
def counted_attention() -> None:
    AttentionInterface.register("each_query_alone", each_query_alone)
    AttentionMaskInterface.register("each_query_alone", no_mask)


def built(config: Any) -> Any:
    torch.manual_seed(0)
    config._experts_implementation = "eager"
    model = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    model.config._attn_implementation = "each_query_alone"
    return model.train()


CONFIGS = {
    "llama": lambda: models.tiny_config(),
    "llama untied": lambda: models.tiny_config(tie_word_embeddings=False),
    "mistral": lambda: MistralConfig(**SIZES, **ROPE, sliding_window=5),
    "gemma3": lambda: Gemma3TextConfig(
        **SIZES, sliding_window=5, layer_types=["sliding_attention", "full_attention"]
    ),
    "mixtral": lambda: MixtralConfig(**SIZES, **ROPE, num_local_experts=4, num_experts_per_tok=2),
    "qwen3 moe": lambda: Qwen3MoeConfig(
        **SIZES, **ROPE, num_experts=4, num_experts_per_tok=3, moe_intermediate_size=16
    ),
}


def counted(model: Any, *, backward: bool) -> int:
    """What FlopCounterMode counts of our own loss on a packed row; without the rotary table, which is no work on a token's state."""
    row, _ = models.packed(LENGTHS, sum(LENGTHS))
    ids, positions, labels = (
        torch.from_numpy(x)[None] for x in (row.input_ids, row.position_ids, row.labels)
    )
    with FlopCounterMode(display=False) as counter:
        borders = attention.document_borders(torch.from_numpy(row.cu_seqlens))
        loss = LossModel(model)(ids, positions, labels, total_labels=1, **borders)
        if backward:
            loss.backward()
    rotary = sum(
        sum(v.values())
        for k, v in counter.get_flop_counts().items()
        if k.split(".")[-1] == "rotary_emb"
    )
    return int(counter.get_total_flops()) - rotary


LABELS = sum(LENGTHS) - len(LENGTHS)


@pytest.mark.parametrize("name", CONFIGS)
def test_a_training_step_costs_what_torch_counts(name: str) -> None:
    model = built(CONFIGS[name]())
    assert flops.model_cost(model).training_flops(LENGTHS, LABELS) == counted(model, backward=True)


@pytest.mark.parametrize("name", ["llama", "mistral"])
def test_a_forward_pass_costs_what_torch_counts(name: str) -> None:
    model = built(CONFIGS[name]())
    with torch.no_grad():
        found = counted(model, backward=False)
    assert flops.model_cost(model).forward_flops(LENGTHS, LABELS) == found


def test_checkpointing_adds_one_forward_pass_of_the_body() -> None:
    """Less at most the last product of each layer, which torch stops before since nothing needs its outcome."""
    model = built(models.tiny_config())
    plain = counted(model, backward=True)
    model.gradient_checkpointing_enable({"use_reentrant": False})
    again, whole = (
        counted(model, backward=True) - plain,
        flops.model_cost(model).body_flops(LENGTHS),
    )
    last = (
        2 * sum(LENGTHS) * sum(layer.mlp.down_proj.weight.numel() for layer in model.model.layers)
    )
    assert again in (whole, whole - last)


def test_a_frozen_matrix_has_no_gradient_of_its_own() -> None:
    model = built(models.tiny_config(tie_word_embeddings=False))
    for layer in model.model.layers:
        layer.mlp.requires_grad_(False)
    assert flops.model_cost(model).training_flops(LENGTHS, LABELS) == counted(model, backward=True)


def test_pairs_are_the_ones_in_a_mask() -> None:
    for n in range(1, 12):
        for window in (None, 1, 3, 8, 20):
            i, j = torch.meshgrid(torch.arange(n), torch.arange(n), indexing="ij")
            seen = (j <= i) & (i - j < (window or n))
            assert flops.visible_pairs(n, window) == int(seen.sum())


def test_the_published_formula() -> None:
    """Megatron-LM (Narayanan et al. 2021, section 5.1): 72 B s l h^2 (1 + s / 6h + V / 12 l h) a step without recomputation, of a model with
    MLPs of 4 h, no GQA, and attention over the whole square, where ours counts the causal half and its diagonal."""
    h, layers, vocabulary, s = 64, 3, 512, 128
    cost = flops.ModelCost(
        layers * 12 * h * h,
        layers * 12 * h * h,
        vocabulary * h,
        True,
        (flops.AttentionCost(4, 16, 16),) * layers,
    )
    theirs = 72 * s * layers * h**2 * (1 + s / (6 * h) + vocabulary / (12 * layers * h))
    beyond = 3 * layers * 2 * 4 * 32 * (s * s - s * (s + 1) // 2)
    assert cost.training_flops([s], s) + beyond == round(theirs)


def test_adapters_spare_the_gradients_of_what_is_frozen() -> None:
    """Torch spares some more: nothing before the first layer learns, so its queries, keys and values pass nothing back, and its
    keys, which have no adapter either, are given no gradient by the scores."""
    peft = pytest.importorskip("peft", reason="needs peft")
    model = built(models.tiny_config(tie_word_embeddings=False))
    peft.inject_adapter_in_model(
        peft.LoraConfig(r=4, target_modules=["q_proj", "v_proj", "down_proj"]), model
    )
    for name, parameter in model.named_parameters():
        parameter.requires_grad_("lora_" in name)
    first = model.model.layers[0].self_attn
    unread = [first.q_proj.base_layer, first.k_proj, first.v_proj.base_layer]
    unread += [module.lora_A["default"] for module in (first.q_proj, first.v_proj)]
    spared = 2 * sum(LENGTHS) * sum(module.weight.numel() for module in unread)
    spared += 2 * 4 * 8 * sum(n * (n + 1) // 2 for n in LENGTHS)
    cost = flops.model_cost(model)
    assert 0 < cost.trainable < cost.matrices and not cost.head_trainable
    assert cost.training_flops(LENGTHS, LABELS) - spared == counted(model, backward=True)
