"""A GGUF file as base computes what its Hugging Face folder computes, or is refused in one line."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from gguf_files import rewrite
from transformers import AutoModelForCausalLM

from ropewalk.conf.errors import ConfigError
from ropewalk.conf.model import ModelConfig
from ropewalk.conf.rope_methods import (
    ABFConfig,
    LongRopeConfig,
    NTKByPartsConfig,
    PIConfig,
    RopeConfig,
    YarnConfig,
)
from ropewalk.train.base import base_config, locate
from ropewalk.train.gguf_base.convert import convert
from ropewalk.train.rope import plan as rope_plan

ODD = YarnConfig(factor=8.0, beta_fast=24.0, beta_slow=2.5, attention_factor=1.12, truncate=False)
LONG = [1 + 3 * (i / 15) ** 2 for i in range(16)]
ROPES = {
    "none": RopeConfig(),
    "raised theta": ABFConfig(factor=4.0),
    "linear": PIConfig(factor=2.0),
    "yarn": YarnConfig(factor=2.0),
    "yarn, all keys": ODD,
    "ntk_by_parts": NTKByPartsConfig(factor=4.0),
    "longrope": LongRopeConfig(factor=4.0, long_factor=LONG, short_factor=LONG),
}


def logits(folder: Path) -> torch.Tensor:
    """Past the original window of 256."""
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    ids = torch.randint(0, 300, (1, 600), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        return model(input_ids=ids).logits


def located(file: Path, cache: Path) -> Any:
    return locate(ModelConfig(path=str(file.parent), gguf_file=file.name), cache)


def refusal(file: Path, folder: Path) -> str:
    """The one line of a file that cannot be a base; nothing may be written."""
    with pytest.raises(ConfigError) as refused:
        convert(file, folder)
    line = str(refused.value)
    assert file.name in line and "\n" not in line and not folder.exists()
    return line


@pytest.mark.parametrize("rope", ROPES.values(), ids=ROPES)
def test_each_export_is_read_back_with_its_table(
    rope: RopeConfig, pair: Callable[..., Any], tmp_path: Path
) -> None:
    made = pair(rope)
    convert(made.gguf, tmp_path / "back")
    expected, back = logits(made.hf), logits(tmp_path / "back")
    rms = ((back - expected) ** 2).mean().sqrt() / (expected**2).mean().sqrt()
    assert rms < 2e-4


def test_a_factor_counts_from_the_original_window_of_the_file(
    pair: Callable[..., Any], tmp_path: Path
) -> None:
    """YaRN x2 in the file, x4 asked for: the plan is that of the Hugging Face folder."""
    made = pair(YarnConfig(factor=2.0))
    config = base_config(located(made.gguf, tmp_path))
    from_hf = rope_plan.make(
        YarnConfig(factor=4.0), AutoModelForCausalLM.from_pretrained(made.hf).config, "hf"
    )
    plan = rope_plan.make(YarnConfig(factor=4.0), config, "gguf")
    assert (plan.original_max_position_embeddings, plan.max_position_embeddings) == (256, 1024)
    assert np.allclose(plan.inv_freq, from_hf.inv_freq, rtol=1e-12)
    expected = dict(from_hf.base["rope_parameters"])
    expected.pop("type", None)  # the older name of rope_type
    assert plan.base["rope_parameters"] == expected


def test_two_files_of_one_name_size_and_time_are_two_bases(
    pair: Callable[..., Any], tmp_path: Path
) -> None:
    embeddings = {}
    for number, name in enumerate(("a", "b")):
        (tmp_path / name).mkdir()
        table = np.full((300, 64), 1.0 + number, np.float32)
        file = rewrite(
            pair().gguf, tmp_path / name / "m.gguf", tensors={"token_embd.weight": table}
        )
        os.utime(file, (1_700_000_000, 1_700_000_000))
        base = located(file, tmp_path / "cache")
        model = AutoModelForCausalLM.from_pretrained(base.path)
        embeddings[name] = float(model.get_input_embeddings().weight.detach().mean())
    sizes = {(tmp_path / name / "m.gguf").stat().st_size for name in embeddings}
    assert len(sizes) == 1 and embeddings == {"a": 1.0, "b": 2.0}


@pytest.mark.parametrize("kind", ["qwen2", "qwen3"])
def test_other_architectures_have_their_head_size(
    kind: str, pair: Callable[..., Any], tmp_path: Path
) -> None:
    """transformers takes its default head size, 128, for Qwen 3."""
    size = {"head_dim": 16} if kind == "qwen2" else {"head_dim": 48}
    made = pair(YarnConfig(factor=2.0), kind, **size)
    convert(made.gguf, tmp_path / "back")
    assert torch.allclose(logits(tmp_path / "back"), logits(made.hf), atol=1e-3)


BIAS = np.ones(64, np.float32)
REFUSED: dict[str, tuple[dict[str, Any], dict[str, Any], str]] = {
    "architecture": ({"general.architecture": "mamba"}, {}, "general.architecture is mamba"),
    "adapter": ({"general.type": "adapter"}, {}, "general.type is adapter"),
    "part": ({"split.count": 3}, {}, "split.count is 3"),
    "no size": ({"llama.block_count": None}, {}, "llama.block_count is None"),
    "no layers": ({"llama.block_count": 0}, {}, "llama.block_count is 0"),
    "more layers": ({"llama.block_count": 3}, {}, "blk.2."),
    "fewer layers": ({"llama.block_count": 1}, {}, "blk.1."),
    "experts": ({"llama.expert_count": 8}, {}, "llama.expert_count is 8"),
    "a scale": ({"llama.attention.scale": 0.5}, {}, "llama.attention.scale is 0.5"),
    "sections": ({"llama.rope.dimension_sections": 8}, {}, "llama.rope.dimension_sections is 8"),
    "part of a head": ({"llama.rope.dimension_count": 16}, {}, "llama.rope.dimension_count is 16"),
    "value heads": ({"llama.attention.value_length": 16}, {}, "attention.value_length is 16"),
    "scaling": ({"llama.rope.scaling.type": "dynamic"}, {}, "llama.rope.scaling.type is dynamic"),
    "yarn": (
        {"llama.rope.scaling.type": "yarn", "llama.rope.scaling.yarn_log_multiplier": 0.1,
         "llama.rope.scaling.factor": 2.0},
        {},
        "llama.rope.scaling.yarn_log_multiplier is 0.1",
    ),
    "tensor too many": ({}, {"blk.0.attn_sinks.weight": BIAS}, "blk.0.attn_sinks.weight is there"),
    "tensor missing": ({}, {"blk.1.ffn_up.weight": None}, "blk.1.ffn_up.weight is missing"),
    "freqs": ({}, {"rope_freqs.weight": BIAS}, "rope_freqs.weight is of shape [64]"),
    "split": ({"tokenizer.ggml.pre": "default"}, {}, "tokenizer.ggml.pre is default"),
    "words": ({"tokenizer.ggml.model": "rwkv"}, {}, "tokenizer.ggml.model is rwkv"),
}  # fmt: skip


@pytest.mark.parametrize(("keys", "tensors", "expected"), REFUSED.values(), ids=REFUSED)
def test_what_has_no_place_in_transformers_is_refused_by_name(
    keys: dict[str, Any],
    tensors: dict[str, Any],
    expected: str,
    pair: Callable[..., Any],
    tmp_path: Path,
) -> None:
    if architecture := keys.get("general.architecture"):
        keys = {**keys, f"{architecture}.block_count": 2}
    file = rewrite(pair().gguf, tmp_path / "m.gguf", keys, tensors)
    assert expected in refusal(file, tmp_path / "back")


def test_biases_that_no_key_tells_are_read(pair: Callable[..., Any], tmp_path: Path) -> None:
    """transformers drops them: its config has attention_bias off."""
    sizes = {"attn_q": 128, "attn_k": 64, "attn_v": 64, "attn_output": 64}
    tensors = {
        f"blk.{layer}.{name}.bias": np.full(size, 0.5, np.float32)
        for layer in (0, 1)
        for name, size in sizes.items()
    }
    file = rewrite(pair().gguf, tmp_path / "m.gguf", tensors=tensors)
    convert(file, tmp_path / "back")
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "back")
    assert model.config.attention_bias
    assert float(model.model.layers[1].self_attn.v_proj.bias.detach().mean()) == 0.5


def test_a_type_that_cannot_be_dequantised_is_refused(
    pair: Callable[..., Any], tmp_path: Path
) -> None:
    file, name = tmp_path / "m.gguf", "blk.0.ffn_up.weight"
    integers = np.zeros((96, 64), np.int32)
    rewrite(pair().gguf, file, tensors={name: integers})
    assert f"{name} is of type I32" in refusal(file, tmp_path / "back")


def test_damaged_files_are_one_line(pair: Callable[..., Any], tmp_path: Path) -> None:
    """Cut at many places, without its magic, of another version, and with random bytes."""
    whole = pair().gguf.read_bytes()
    rng = np.random.default_rng(0)
    cuts = [0, 3, 4, 10, 24, 100, *rng.integers(100, len(whole) - 1, 12).tolist()]
    damaged = [whole[:cut] for cut in cuts]
    damaged += [b"GGML" + whole[4:], whole[:4] + b"\x09" + whole[5:], rng.bytes(4096)]
    for number, content in enumerate(damaged):
        file = tmp_path / f"m{number}.gguf"
        file.write_bytes(content)
        assert "must be a whole GGUF file" in refusal(file, tmp_path / "back")


@pytest.mark.parametrize(
    ("path", "gguf_file", "expected"),
    [
        ("files", "absent.gguf", "no such file in model.path"),
        ("files", "folder.gguf", "it is a folder"),
        ("files/m.gguf", None, "set model.path to its folder and model.gguf_file=m.gguf"),
        ("files", None, "set model.gguf_file to one of them, such as folder.gguf"),
    ],
)
def test_a_name_that_is_no_file_is_refused_with_the_way_out(
    path: str, gguf_file: str | None, expected: str, tmp_path: Path
) -> None:
    (tmp_path / "files" / "folder.gguf").mkdir(parents=True)
    (tmp_path / "files" / "m.gguf").write_bytes(b"GGUF")
    model = ModelConfig(path=str(tmp_path / path), gguf_file=gguf_file)
    with pytest.raises(ConfigError, match="model") as refused:
        locate(model, tmp_path / "cache")
    assert expected in str(refused.value)
