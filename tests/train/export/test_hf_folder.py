"""Both key styles of config.json: transformers gives the same bits from either and from both."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM

from ropewalk.conf.rope_methods import (
    ABFConfig,
    DynamicConfig,
    Llama3Config,
    LongRopeConfig,
    NTKByPartsConfig,
    PIConfig,
    RopeConfig,
    YarnConfig,
)
from ropewalk.train.export import hf_folder

LONGER = [1 + i for i in range(8)]
ROPES = {
    "none": RopeConfig(),
    "raised theta": ABFConfig(factor=8.0),
    "linear": PIConfig(factor=8.0),
    "dynamic": DynamicConfig(factor=8.0),
    "ntk_by_parts": NTKByPartsConfig(factor=8.0),
    "yarn": YarnConfig(factor=8.0),
    "yarn, all keys": YarnConfig(
        factor=8.0, beta_fast=24.0, beta_slow=2.5, attention_factor=1.12, truncate=False
    ),
    "llama3": Llama3Config(factor=8.0),
    "longrope": LongRopeConfig(
        factor=8.0, long_factor=LONGER, short_factor=[1.0] * 8, attention_factor=1.3
    ),
}


def logits(folder: Path) -> torch.Tensor:
    """Logits past the original window."""
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    ids = torch.randint(0, 300, (1, 600), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        return model(input_ids=ids).logits


def variant(folder: Path, name: str, *dropped: str) -> Path:
    """A copy of the checkpoint without some keys of config.json."""
    exported = folder.with_name(name)
    shutil.copytree(folder, exported)
    config = json.loads((folder / "config.json").read_text())
    (exported / "config.json").write_text(
        json.dumps({k: v for k, v in config.items() if k not in dropped})
    )
    return exported


@pytest.mark.parametrize("rope", ROPES.values(), ids=ROPES)
def test_either_key_style_and_both_give_the_same_bits(
    rope: RopeConfig, tiny: Callable[..., Any], export: Callable[..., Any]
) -> None:
    exported = export(tiny("llama"), rope, gguf="off")
    assert {"rope_parameters", "rope_theta", "rope_scaling"} <= exported.config.keys()
    hf = exported.folder / "hf"
    new = variant(hf, "new", "rope_theta", "rope_scaling")
    old = variant(hf, "old", "rope_parameters")
    expected = logits(new)
    assert torch.equal(logits(hf), expected)
    assert torch.equal(logits(old), expected)
    if rope.method != "none":  # the comparison can fail: without any key the logits differ
        unscaled = logits(variant(old, "unscaled", "rope_theta", "rope_scaling"))
        assert not torch.allclose(unscaled, expected, atol=1e-2)


def test_the_partial_rotary_factor_is_a_top_level_legacy_key(
    tiny: Callable[..., Any], export: Callable[..., Any]
) -> None:
    share = {"rope_type": "default", "rope_theta": 1e4, "partial_rotary_factor": 0.5}
    exported = export(tiny("phi", rope_parameters=share), YarnConfig(factor=8.0), gguf="off")
    assert exported.config["partial_rotary_factor"] == 0.5
    assert "partial_rotary_factor" not in exported.config["rope_scaling"]
    hf = exported.folder / "hf"
    assert torch.equal(logits(hf), logits(variant(hf, "old", "rope_parameters")))


def test_the_legacy_keys_of_yarn() -> None:
    yarn = {
        "rope_type": "yarn",
        "rope_theta": 1e4,
        "factor": 8.0,
        "original_max_position_embeddings": 256,
    }
    keys, reason = hf_folder.legacy_keys({"model_type": "llama", "rope_parameters": yarn})
    assert reason is None and keys == {
        "rope_theta": 1e4,
        "rope_scaling": {
            "rope_type": "yarn",
            "type": "yarn",
            "factor": 8.0,
            "original_max_position_embeddings": 256,
        },
    }


@pytest.mark.parametrize("kind", ["gemma3_text", "olmo3"])
def test_several_tables_have_no_legacy_keys(
    kind: str, tiny: Callable[..., Any], export: Callable[..., Any]
) -> None:
    config = tiny(kind, sliding_window=64, num_hidden_layers=6)
    exported = export(config, YarnConfig(factor=8.0))
    assert "rope_scaling" not in exported.config and "rope_theta" not in exported.config
    assert "full_attention" in exported.config["rope_parameters"]
    assert any(
        "rope_parameters only" in w and "tables of their own" in w
        for w in exported.metadata["warnings"]
    )


@pytest.mark.parametrize(
    ("kind", "reason"), [("phi3", "attention factor"), ("gpt_neox", "other names")]
)
def test_legacy_keys_with_another_meaning_are_left_out(kind: str, reason: str) -> None:
    config = {
        "model_type": kind,
        "rope_parameters": {"rope_type": "linear", "rope_theta": 1e4, "factor": 2.0},
    }
    keys, message = hf_folder.legacy_keys(config)
    assert keys == {} and message is not None and reason in message
