"""ZeRO's buffers from the shapes of a model: by hand, in DeepSpeed's own config, and at work."""

from typing import Any

import prefetch_ranks
import pytest
import ranks
import torch
from deepspeed.runtime.zero.config import DeepSpeedZeroConfig
from models import tiny_config
from train_settings import train_config
from transformers import AutoModelForCausalLM

from ropewalk.conf.errors import ConfigError
from ropewalk.conf.rules import problems
from ropewalk.conf.train import TrainConfig
from ropewalk.train.zero.buffer_sizes import PartSizes, buffer_settings, part_sizes

# Llama-3-8B, from its published shapes: q and o, k and v, gate and up and down, two norms
LAYER = 2 * 4096 * 4096 + 2 * 4096 * 1024 + 3 * 4096 * 14336 + 2 * 4096
HEAD = 128_256 * 4096
LLAMA_8B = PartSizes(
    trained=32 * LAYER + 2 * HEAD + 4096,
    layer=LAYER,
    largest_outside=HEAD,
    largest_trained=HEAD,
    small=4096,
)
# Llama-3-70B: a layer of 0.86e9 elements, a head of 1.05e9
LAYER_70B = 2 * 8192 * 8192 + 2 * 8192 * 1024 + 3 * 8192 * 28672 + 2 * 8192
HEAD_70B = 128_256 * 8192
LLAMA_70B = PartSizes(
    trained=80 * LAYER_70B + 2 * HEAD_70B + 8192,
    layer=LAYER_70B,
    largest_outside=HEAD_70B,
    largest_trained=HEAD_70B,
    small=8192,
)


def train(**changes: Any) -> TrainConfig:
    return train_config(**{"steps": 1, "optimizer__lr": 1e-3, **changes})  # type: ignore[arg-type]


def test_the_sizes_of_a_model_are_those_of_its_published_shapes() -> None:
    """Two layers of Llama-3-8B, on no device; a tied head is the embeddings."""
    shape: dict[str, Any] = {
        "vocab_size": 128_256,
        "hidden_size": 4096,
        "intermediate_size": 14336,
        "num_attention_heads": 32,
        "num_key_value_heads": 8,
        "tie_word_embeddings": False,
    }
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(tiny_config(**shape))
        assert LLAMA_8B.trained == 8_030_261_248  # as its model card says
        assert part_sizes(model) == PartSizes(2 * LAYER + 2 * HEAD + 4096, LAYER, HEAD, HEAD, 4096)
        model.get_output_embeddings().weight.requires_grad_(False)
        assert part_sizes(model).trained == 2 * LAYER + HEAD + 4096


def test_settings_at_each_stage() -> None:
    at = {stage: buffer_settings(train(zero_stage=stage), LLAMA_8B, 8) for stage in (1, 2, 3)}
    assert at[1] == {"overlap_comm": True, "reduce_bucket_size": LAYER}
    # the head must fit: see below
    assert at[2] == {"overlap_comm": True, "reduce_bucket_size": HEAD}
    assert at[3] == {
        "overlap_comm": True,
        "reduce_bucket_size": LAYER,
        "stage3_prefetch_bucket_size": LAYER,
        "stage3_max_live_parameters": LAYER + HEAD,
        "stage3_max_reuse_distance": 2 * LAYER,
        "stage3_param_persistence_threshold": 4096,
    }
    large = buffer_settings(train(zero_stage=3), LLAMA_70B, 64)
    assert large["stage3_max_live_parameters"] == LAYER_70B + HEAD_70B > 1.05e9
    assert large["stage3_max_reuse_distance"] == 2 * LAYER_70B > 1e9
    assert large["reduce_bucket_size"] == 250_000_000
    zero0 = train(zero_stage=0, precision="fp32")
    assert buffer_settings(zero0, LLAMA_8B, 8) == {}


def test_a_small_model_takes_small_buffers() -> None:
    small = PartSizes(2_000_000, 400_000, 1_000_000, 1_000_000, 128)
    for stage in (1, 2, 3):
        settings = buffer_settings(train(zero_stage=stage), small, 2)
        assert settings["reduce_bucket_size"] == 2_000_000


def test_overlap_only_where_it_is_safe_and_of_use() -> None:
    """ZeRO 2 frees a gradient larger than its bucket on the stream that computes, while another
    stream may read it: Gemma-3-27B's embeddings of 1.4e9."""
    gemma = PartSizes(27_000_000_000, 420_000_000, 1_409_548_288, 1_409_548_288, 5376)
    assert not buffer_settings(train(zero_stage=2), gemma, 8)["overlap_comm"]
    assert buffer_settings(train(zero_stage=1), gemma, 8)["overlap_comm"]
    assert not buffer_settings(train(), LLAMA_8B, 1)["overlap_comm"]
    offloaded = train(memory__offload_optimizer=True)
    assert not buffer_settings(offloaded, LLAMA_8B, 8)["overlap_comm"]
    message = "train.memory.zero_overlap_comm is True; at ZeRO 2 every parameter must then fit"
    with pytest.raises(ConfigError, match=message):
        buffer_settings(train(zero_stage=2, memory__zero_overlap_comm=True), gemma, 8)


OVERRIDES = {
    "zero_overlap_comm": ("overlap_comm", False),
    "zero_reduce_bucket_size": ("reduce_bucket_size", 11),
    "zero_prefetch_bucket_size": ("prefetch_bucket_size", 12),
    "zero_max_live_parameters": ("max_live_parameters", 13),
    "zero_max_reuse_distance": ("max_reuse_distance", 14),
    "zero_persistence_threshold": ("param_persistence_threshold", 0),
}


def test_what_is_set_reaches_deepspeed_s_config() -> None:
    changes = {f"memory__{name}": value for name, (_, value) in OVERRIDES.items()}
    settings = train(zero_stage=3, **changes)
    assert list(problems(settings, "train.")) == []
    read = DeepSpeedZeroConfig(stage=3, **buffer_settings(settings, LLAMA_8B, 8))
    for field, value in OVERRIDES.values():
        assert getattr(read, field) == value, field


def test_settings_of_zero_3_are_refused_at_other_stages() -> None:
    rule = "train.memory.zero_max_live_parameters is 0; it needs train.zero_stage 3, not 1"
    found = list(problems(train(memory__zero_max_live_parameters=0), "train."))
    assert [problem.startswith(rule) for problem in found] == [True]


def test_a_head_above_the_live_limit_does_not_stop_prefetching() -> None:
    counts, sizes = ranks.run(1, prefetch_ranks.gathers)[0]
    assert sizes.largest_outside > sizes.layer
    # every gather but those of the optimizer is made ahead of its use
    assert counts["forward_prefetch_submit"] > 6 and counts["backward_prefetch_submit"] > 6
    assert "forward_fetch_submit" not in counts and "backward_fetch_submit" not in counts
    # DeepSpeed's numbers of today for a 70B model, scaled: a head above the limit
    limit = {"memory__zero_max_live_parameters": sizes.largest_outside - 1000}
    limited, _ = ranks.run(1, prefetch_ranks.gathers, limit)[0]
    assert limited["forward_prefetch_submit"] > 6 and limited["backward_prefetch_submit"] > 6
    fault, _ = ranks.run(1, prefetch_ranks.gathers, limit, True)[0]
    assert "forward_prefetch_submit" not in fault and "backward_prefetch_submit" not in fault
