"""What configs ask for beside shapes: our loss and gradient of a packed batch, built as the trainer
builds it, against transformers' own `model(input_ids, labels).loss` of the same documents.
"""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from models import documents
from transformers import AutoModelForCausalLM, PreTrainedConfig

from ropewalk.conf.rope_methods import YarnConfig
from ropewalk.data.dataset import collate, concatenate
from ropewalk.train.base import Base, base_config
from ropewalk.train.loop.micro_batches import to_device
from ropewalk.train.loss_model import LossModel
from ropewalk.train.model import build as models
from ropewalk.train.model import dropout
from ropewalk.train.rope import plan as rope_plan
from ropewalk.train.router_loss import router_loss_of

WINDOW, SEQ_LEN, FACTOR = 16, 32, 2.0
LENGTHS = [32, 13, 27, 7]
"""Documents, one a sequence: two reach beyond the base's window."""
SIZES: dict[str, Any] = {
    **{"vocab_size": 97, "hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 2},
    **{"num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 8},
    **{"max_position_embeddings": WINDOW, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2},
}
ROUTER = {"output_router_logits": True, "router_aux_loss_coef": 0.7}
LOCAL = {"num_local_experts": 4, "num_experts_per_tok": 2}
EXPERTS = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 16}
LATENT = {
    **{"q_lora_rank": 8, "kv_lora_rank": 8, "qk_rope_head_dim": 8, "qk_nope_head_dim": 8},
    **{"v_head_dim": 8, "num_key_value_heads": 4, "n_routed_experts": 4, "num_experts_per_tok": 2},
    **{"moe_intermediate_size": 16, "n_group": 2, "topk_group": 1, "first_k_dense_replace": 1},
}
MIXED = {"layer_types": ["sliding_attention", "full_attention"], "sliding_window": 5}
MINISTRAL = {
    **{"rope_type": "yarn", "rope_theta": 1e4, "factor": 1.5, "mscale": 1.0, "mscale_all_dim": 1.0},
    **{"original_max_position_embeddings": 8, "llama_4_scaling_beta": 0.5},
}
MODELS: dict[str, dict[str, Any]] = {
    "Llama": {"attention_bias": True, "mlp_bias": True, "attention_dropout": 0.1},
    "Mistral": {"sliding_window": 32},
    "Ministral3": {"rope_parameters": MINISTRAL, "max_position_embeddings": 12},
    "Qwen2": {"use_sliding_window": True, "sliding_window": 5, "max_window_layers": 1},
    "Qwen3": {"attention_bias": True},
    "Phi3": {"partial_rotary_factor": 0.5, "sliding_window": 64, "resid_pdrop": 0.1},
    "Gemma": {"hidden_activation": "gelu_pytorch_tanh"},
    "Gemma3Text": {**MIXED, "query_pre_attn_scalar": 5},
    "Granite": {"embedding_multiplier": 3.0, "residual_multiplier": 0.5, "attention_multiplier": 1},
    "Glm4": {"partial_rotary_factor": 0.5, "attention_bias": True},
    "Olmo": {"clip_qkv": 0.5},
    "Olmo2": {},
    "Olmo3": MIXED,
    "SmolLM3": {"no_rope_layers": [1, 0], "use_sliding_window": False},
    "Starcoder2": {"sliding_window": None, "residual_dropout": 0.1, "use_bias": False},
    "GPTNeoX": {"use_parallel_residual": False, "hidden_dropout": 0.1, "rotary_pct": 1.0},
    "SeedOss": {"residual_dropout": 0.1},
    "Helium": {},
    "DeepseekV2": {**LATENT, "routed_scaling_factor": 2.0, "aux_loss_alpha": 0.001},
    "DeepseekV3": {**LATENT, "routed_scaling_factor": 2.5, "norm_topk_prob": False},
    "GptOss": {
        **MIXED,
        **LOCAL,
        **ROUTER,
        "rope_parameters": {"rope_type": "default", "rope_theta": 1e4},
    },
    "Mixtral": {**LOCAL, **ROUTER, "sliding_window": None, "router_jitter_noise": 0.1},
    "Qwen2Moe": {
        **EXPERTS,
        **ROUTER,
        "shared_expert_intermediate_size": 16,
        "norm_topk_prob": True,
    },
    "Qwen3Moe": {**EXPERTS, **ROUTER, "decoder_sparse_step": 2},
    "Olmoe": {**EXPERTS, **ROUTER, "clip_qkv": 0.5},
    "GraniteMoe": {**LOCAL, **ROUTER, "embedding_multiplier": 3.0, "residual_multiplier": 0.5},
}


def saved(kind: str, folder: Path) -> PreTrainedConfig:
    """Weights large enough that attention depends on position, and sinks that take a share."""
    torch.manual_seed(0)
    config = getattr(transformers, f"{kind}Config")(**{**SIZES, **MODELS[kind]})
    model = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    with torch.no_grad():
        for key, parameter in model.named_parameters():
            if parameter.dim() >= 2 and "norm" not in key:
                parameter.mul_(6)
            if key.endswith("sinks"):
                parameter.copy_(torch.linspace(-1, 2, len(parameter)))
    model.save_pretrained(folder)
    return model.config


def by_transformers(folder: Path, plan: rope_plan.RopePlan) -> tuple[float, float]:
    """Loss and gradient norm. In eval mode: the trainer's has no dropout."""
    config = rope_plan.apply(plan, base_config(Base(str(folder))))
    model = AutoModelForCausalLM.from_pretrained(folder, config=config, dtype=torch.float32)
    model.set_attn_implementation("eager")
    ids = torch.zeros(len(LENGTHS), SEQ_LEN, dtype=torch.long)
    mask = torch.zeros_like(ids)
    for row, text in enumerate(documents(LENGTHS, seed=3)):
        ids[row, : len(text)] = torch.from_numpy(text)
        mask[row, : len(text)] = 1
    labels = ids.masked_fill(mask == 0, -100)
    loss = model.eval()(input_ids=ids, attention_mask=mask, labels=labels, use_cache=False).loss
    loss.backward()
    return float(loss.detach()), gradient_norm(model)


def gradient_norm(model: torch.nn.Module) -> float:
    gradients = [p.grad for p in model.parameters() if p.grad is not None]
    return float(torch.nn.utils.get_total_norm(gradients))


@pytest.mark.parametrize("kind", MODELS)
def test_loss_and_gradient_are_transformers_own(kind: str, tmp_path: Path) -> None:
    config = saved(kind, tmp_path)
    base = Base(str(tmp_path))
    plan = rope_plan.make(YarnConfig(factor=4.0 if kind == "Ministral3" else FACTOR), config, kind)
    model = models.build(
        base, plan, dtype=torch.float32, attention_kernel="auto", compute_dtype=torch.float32
    )
    dropout.prove_nothing_drawn(model)
    wrapped = LossModel(model, router_loss=router_loss_of(model, None)).train()
    row = collate([concatenate([text], SEQ_LEN) for text in documents(LENGTHS, seed=3)])
    is_text = torch.from_numpy(np.concatenate([np.arange(SEQ_LEN) < n for n in LENGTHS]))
    labels = sum(LENGTHS) - len(LENGTHS)
    loss = wrapped(**to_device(row), total_labels=labels, is_text=is_text)
    loss.backward()
    expected_loss, expected_norm = by_transformers(tmp_path, plan)
    assert float(loss.detach()) == pytest.approx(expected_loss, rel=1e-5)
    assert gradient_norm(model) == pytest.approx(expected_norm, rel=1e-4)
