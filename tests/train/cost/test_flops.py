"""FLOPs by arithmetic against torch's FlopCounterMode, which counts the products that are run."""

from itertools import pairwise
from typing import Any

import models
import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode
from transformers import (
    AttentionInterface,
    AutoModelForCausalLM,
    Gemma3TextConfig,
    MistralConfig,
    MixtralConfig,
    Qwen3MoeConfig,
)

from ropewalk.train import attention
from ropewalk.train.cost import flops
from ropewalk.train.loss_model import LossModel

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


def query_by_query(
    module: Any, query: Any, key: Any, value: Any, _: None, **kwargs: Any
) -> tuple[Any, None]:
    """Attention as one product for each query with its visible keys alone, for the counter."""
    groups, window = query.shape[1] // key.shape[1], kwargs.get("sliding_window") or query.shape[2]
    key, value = (x.repeat_interleave(groups, 1) for x in (key, value))
    rows = []
    for head in range(query.shape[1]):
        for start, end in pairwise(kwargs["document_ends"]):
            for i in range(start, end):
                first = max(start, i - window + 1)
                scores = query[0, head, i : i + 1] @ key[0, head, first : i + 1].T
                rows.append(scores.softmax(-1) @ value[0, head, first : i + 1])
    output = torch.cat(rows).view(1, query.shape[1], query.shape[2], -1)
    return output.transpose(1, 2), None


@pytest.fixture(autouse=True)
def counted_attention() -> None:
    AttentionInterface.register("query_by_query", query_by_query)


def built(config: Any) -> Any:
    torch.manual_seed(0)
    config._experts_implementation = "eager"
    model = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    model.config._attn_implementation = "query_by_query"
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


def counted_flops(model: Any, *, backward: bool) -> int:
    """FLOPs of our loss on a packed row by FlopCounterMode, without the rotary table."""
    row, _ = models.packed(LENGTHS, sum(LENGTHS))
    ids, positions, labels = (
        torch.from_numpy(x)[None] for x in (row.input_ids, row.position_ids, row.labels)
    )
    with FlopCounterMode(display=False) as counter:
        borders = attention.document_borders(torch.from_numpy(row.cu_seqlens))
        loss = LossModel(model)(ids, positions, labels, total_labels=1, **borders)
        if backward:
            loss.backward()
    modules = counter.get_flop_counts().items()
    rotary = sum(sum(count.values()) for name, count in modules if name.endswith("rotary_emb"))
    return int(counter.get_total_flops()) - rotary


LABELS = sum(LENGTHS) - len(LENGTHS)


@pytest.mark.parametrize("name", CONFIGS)
def test_the_flops_of_a_training_step_equal_torchs_count(name: str) -> None:
    model = built(CONFIGS[name]())
    assert flops.model_cost(model).training_flops(LENGTHS, LABELS) == counted_flops(
        model, backward=True
    )


@pytest.mark.parametrize("name", ["llama", "mistral"])
def test_the_flops_of_a_forward_pass_equal_torchs_count(name: str) -> None:
    model = built(CONFIGS[name]())
    with torch.no_grad():
        expected = counted_flops(model, backward=False)
    assert flops.model_cost(model).forward_flops(LENGTHS, LABELS) == expected


def test_checkpointing_adds_one_forward_pass_of_the_body() -> None:
    """Torch may leave out the last product of each layer, because no gradient needs its result."""
    model = built(models.tiny_config())
    without = counted_flops(model, backward=True)
    model.gradient_checkpointing_enable({"use_reentrant": False})
    recomputed = counted_flops(model, backward=True) - without
    body = flops.model_cost(model).body_flops(LENGTHS)
    last_products = sum(layer.mlp.down_proj.weight.numel() for layer in model.model.layers)
    assert recomputed in (body, body - 2 * sum(LENGTHS) * last_products)


def test_frozen_matrices_cost_no_weight_gradient() -> None:
    model = built(models.tiny_config(tie_word_embeddings=False))
    for layer in model.model.layers:
        layer.mlp.requires_grad_(False)
    assert flops.model_cost(model).training_flops(LENGTHS, LABELS) == counted_flops(
        model, backward=True
    )


def test_visible_pairs_equal_those_of_a_mask() -> None:
    for n in range(1, 12):
        for window in (None, 1, 3, 8, 20):
            i, j = torch.meshgrid(torch.arange(n), torch.arange(n), indexing="ij")
            mask = (j <= i) & (i - j < (window or n))
            assert flops.visible_pairs(n, window) == int(mask.sum())


def test_the_flops_equal_the_formula_of_megatron_lm() -> None:
    """Narayanan et al. 2021, section 5.1: 72 B s l h^2 (1 + s / 6h + V / 12 l h) a step.

    Without recomputation, for MLPs of 4 h, no GQA, and attention over the full square; ours counts
    the causal half and its diagonal.
    """
    h, layers, vocabulary, s = 64, 3, 512, 128
    attention_layers = (flops.AttentionCost(4, 16, 16),) * layers
    matrices = layers * 12 * h * h
    cost = flops.ModelCost(matrices, matrices, vocabulary * h, True, attention_layers)
    theirs = 72 * s * layers * h**2 * (1 + s / (6 * h) + vocabulary / (12 * layers * h))
    masked = 3 * layers * 2 * 4 * 32 * (s * s - s * (s + 1) // 2)
    assert cost.training_flops([s], s) + masked == round(theirs)


def test_adapters_save_the_gradients_of_frozen_matrices() -> None:
    """Torch saves more: the first layer passes no gradient back to its frozen input.

    Its keys, which have no adapter, get no gradient from the scores either.
    """
    peft = pytest.importorskip("peft", reason="needs peft")
    model = built(models.tiny_config(tie_word_embeddings=False))
    lora = peft.LoraConfig(r=4, target_modules=["q_proj", "v_proj", "down_proj"])
    peft.inject_adapter_in_model(lora, model)
    for name, parameter in model.named_parameters():
        parameter.requires_grad_("lora_" in name)
    first = model.model.layers[0].self_attn
    skipped = [first.q_proj.base_layer, first.k_proj, first.v_proj.base_layer]
    skipped += [module.lora_A["default"] for module in (first.q_proj, first.v_proj)]
    saved = 2 * sum(LENGTHS) * sum(module.weight.numel() for module in skipped)
    saved += 2 * 4 * 8 * sum(n * (n + 1) // 2 for n in LENGTHS)
    cost = flops.model_cost(model)
    assert 0 < cost.trainable < cost.matrices and not cost.head_trainable
    assert cost.training_flops(LENGTHS, LABELS) - saved == counted_flops(model, backward=True)
