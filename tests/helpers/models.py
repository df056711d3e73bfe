"""Tiny models and packed rows for the tests of the train stage."""

from functools import cache
from typing import Any

import numpy as np
import torch
from transformers import AutoModelForCausalLM, LlamaConfig

from ropewalk.data.dataset import Row, concatenate

VOCAB = 97


def tiny_config(**changes: Any) -> LlamaConfig:
    settings = {
        "vocab_size": VOCAB,
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 64,
        "tie_word_embeddings": True,
        "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0},
    }
    return LlamaConfig(**{**settings, **changes})


@cache
def llama_8b() -> Any:
    """Llama 3 8B's shape, on the meta device."""
    config = LlamaConfig(
        vocab_size=128_256,
        hidden_size=4096,
        intermediate_size=14_336,
        num_hidden_layers=32,
        num_attention_heads=32,
        num_key_value_heads=8,
        tie_word_embeddings=False,
    )
    with torch.device("meta"):
        return AutoModelForCausalLM.from_config(config)


def tiny_model(seed: int = 0, **changes: Any) -> Any:
    """Weights large enough that attention depends on position."""
    torch.manual_seed(seed)
    model = AutoModelForCausalLM.from_config(tiny_config(**changes), dtype=torch.float32)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() == 2:
                parameter.mul_(8)
    return model.eval()


def documents(lengths: list[int], seed: int = 0) -> list[np.ndarray]:
    rng = np.random.default_rng(seed)
    return [rng.integers(0, VOCAB, n).astype(np.int64) for n in lengths]


def packed(lengths: list[int], seq_len: int, seed: int = 0) -> tuple[Row, list[np.ndarray]]:
    pieces = documents(lengths, seed)
    return concatenate(pieces, seq_len), pieces
