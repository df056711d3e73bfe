"""Small models whose caches differ: full attention, sliding windows, attention sinks."""

from typing import Any

import torch
from architectures import small_model

from ropewalk.train import attention

WINDOW = 24
SLIDING = {"sliding_window": WINDOW}
ALTERNATING = ["sliding_attention", "full_attention"] * 2
MODELS: dict[str, tuple[str, dict[str, Any]]] = {
    "llama": ("Llama", {}),
    "qwen3": ("Qwen3", {}),
    "mistral": ("Mistral", SLIDING),
    "gemma3": ("Gemma3Text", SLIDING | {"layer_types": ALTERNATING}),
    "gpt_oss": (
        "GptOss",
        SLIDING | {"layer_types": ALTERNATING, "num_local_experts": 4, "num_experts_per_tok": 2},
    ),
}


def reference(name: str) -> Any:
    """With transformers' own attention, which is eager."""
    architecture, changes = MODELS[name]
    model = small_model(architecture, {"max_position_embeddings": 512, **changes})
    model.set_attn_implementation("eager")
    return model


def measured(name: str, dtype: torch.dtype = torch.float32) -> Any:
    """The same weights with our attention kernel."""
    model = reference(name).to(dtype)
    needs = attention.requirements_of(model, dtype)
    model.set_attn_implementation(attention.register("auto", None, needs))
    return model
