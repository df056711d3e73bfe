"""The small model has the heads, layer types and rotary dimensions of the one it stands for."""

import math
from typing import Any

import pytest
import torch
from transformers import AutoConfig, LlamaConfig

from ropewalk.launch.check.small_model import (
    NoSmallModelError,
    few_layers,
    small_config,
    write_small_model,
)
from ropewalk.train.model.geometry import head_counts, head_dim
from ropewalk.train.rope.proof import rotary_modules
from ropewalk.train.weights.architecture import build_without_storage

NARROW = ["llama", "mistral", "mixtral", "qwen2", "qwen3", "qwen3_moe", "gemma2", "phi3", "gpt_oss"]
"""Whose heads do not depend on the width."""


def rotary_sizes(config: Any) -> set[int]:
    """The rotary dimensions of transformers' own modules."""
    model = build_without_storage(config, False)
    buffers = (b for m in rotary_modules(model).values() for n, b in m.named_buffers())
    return {len(buffer) for buffer in buffers}


@pytest.mark.parametrize("sp_size", [1, 8])
@pytest.mark.parametrize("name", NARROW)
def test_heads_stay(name: str, sp_size: int) -> None:
    config = AutoConfig.for_model(name)
    small = small_config(config, sp_size)
    assert head_counts(small) == head_counts(config) and head_dim(small) == head_dim(config)
    types = getattr(config, "layer_types", None)
    assert set(getattr(small, "layer_types", None) or []) == set(types or [])
    assert small.num_hidden_layers == 2 and small.vocab_size <= 260
    assert rotary_sizes(small) == rotary_sizes(few_layers(config))
    count = sum(p.numel() for p in build_without_storage(small, False).parameters())
    assert count < 5_000_000


@pytest.mark.parametrize(("sp_size", "heads"), [(1, 1), (4, 4), (3, 1), (5, 1), (64, 64)])
def test_heads_that_are_tied_to_the_width(sp_size: int, heads: int) -> None:
    """GPT-NeoX reads no head size: fewer heads, divided by the ranks where its own 64 are."""
    config = AutoConfig.for_model("gpt_neox")
    small = small_config(config, sp_size)
    assert small.num_attention_heads == heads
    assert small.hidden_size // heads == config.hidden_size // config.num_attention_heads
    assert (heads % sp_size == 0) == (64 % sp_size == 0)
    assert rotary_sizes(small) == rotary_sizes(few_layers(config))


def test_an_architecture_that_cannot_be_small(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any) -> Any:
        raise ValueError("needs what the small config lacks")

    monkeypatch.setattr("ropewalk.launch.check.small_model.build_without_storage", refuse)
    with pytest.raises(NoSmallModelError, match="needs what the small config lacks"):
        small_config(LlamaConfig(), 1)


def test_the_losses_of_a_small_model_depend_on_positions(tmp_path: Any) -> None:
    """Else a wrong position would hide below the bar of 1e-5."""
    config = small_config(LlamaConfig(), 1)
    write_small_model(config, 0, tmp_path, trusted=False)
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(tmp_path).eval()
    ids = torch.arange(1, 49)[None]
    losses = []
    for stretch in (1, 2):
        with torch.no_grad():
            positions = torch.arange(48)[None] * stretch
            logits = model(input_ids=ids, position_ids=positions).logits[0]
        losses.append(float(torch.nn.functional.cross_entropy(logits[:-1], ids[0, 1:])))
    assert math.isfinite(losses[0]) and abs(losses[1] / losses[0] - 1) > 1e-3
