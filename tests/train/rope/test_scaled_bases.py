"""Bases that are scaled already: from which window their factor counts."""

import json
from pathlib import Path
from typing import Any

import pytest
from rope_models import LLAMA, LLAMA31, SMALL, config_of
from transformers import AutoModelForCausalLM, PreTrainedConfig

from ropewalk.conf.errors import ConfigError
from ropewalk.conf.rope_methods import (
    RopeConfig,
    YarnConfig,
)
from ropewalk.train.base import Base, base_config
from ropewalk.train.rope import plan, proof


def test_the_factor_of_a_scaled_base_counts_from_its_original_window() -> None:
    config = config_of("Llama", {"rope_parameters": LLAMA31})
    planned = plan.make(YarnConfig(factor=16.0), config, "small")
    unscaled = {"rope_type": "default", "rope_theta": 5e5}
    pretrained = config_of("Llama", {"rope_parameters": unscaled, "max_position_embeddings": 32})
    expected = plan.make(YarnConfig(factor=16.0), pretrained, "small")
    assert planned.inv_freq == expected.inv_freq and planned.max_position_embeddings == 512
    assert planned.base_window == 256
    with pytest.raises(
        ConfigError, match=r"already scaled \(llama3\) to 256 tokens, .* must be above 8"
    ):
        plan.make(YarnConfig(factor=8.0), config, "small")
    with pytest.raises(ConfigError, match="own scaling .llama3. starts at 32"):
        plan.make(YarnConfig(factor=16.0, original_max_position_embeddings=256), config, "small")


def from_file(folder: Path, window: int, scaling: dict[str, Any], **more: Any) -> PreTrainedConfig:
    content = {**LLAMA, "model_type": "qwen2", "rope_theta": 1e6}
    content |= {"num_key_value_heads": 2, **more}  # Qwen 2 takes 32 for a missing key
    content |= {"max_position_embeddings": window, "rope_scaling": scaling}
    (folder / "config.json").write_text(json.dumps(content))
    return base_config(Base(str(folder)))


QWEN = {"type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32_768}


@pytest.mark.parametrize("window", [32_768, 40_960, 131_072])
def test_the_factor_of_a_scaled_base_gives_its_window(window: int, tmp_path: Path) -> None:
    """Old Qwen configs add rope_scaling only; Qwen 3 has 40,960."""
    config = from_file(tmp_path, window, QWEN)
    planned = plan.make(YarnConfig(factor=8.0), config, "qwen")
    assert (planned.original_max_position_embeddings, planned.base_window) == (32_768, 131_072)
    assert plan.make(RopeConfig(), config, "qwen").factor == 4.0
    with pytest.raises(
        ConfigError, match=r"already scaled .yarn. to 131072 tokens, .* must be above 4"
    ):
        plan.make(YarnConfig(factor=4.0), config, "qwen")


def test_the_window_of_llama_3_2_is_the_one_in_its_config() -> None:
    """Its factor, 32 from 8192, would give a longer one."""
    config = config_of("Llama", {"rope_parameters": {**LLAMA31, "factor": 32.0}})
    assert plan.make(YarnConfig(factor=16.0), config, "small").base_window == 256


def test_the_factor_of_a_linear_base_counts_from_the_window_in_the_settings() -> None:
    linear = {"rope_type": "linear", "rope_theta": 1e4, "factor": 4.0}
    config = config_of("Llama", {"rope_parameters": linear})
    planned = plan.make(
        YarnConfig(factor=8.0, original_max_position_embeddings=256), config, "small"
    )
    assert (planned.base_window, planned.max_position_embeddings) == (1024, 2048)


@pytest.mark.parametrize("kind", ["yarn", "llama3"])
def test_a_scaled_base_needs_its_original_window(kind: str, tmp_path: Path) -> None:
    more = {"low_freq_factor": 1.0, "high_freq_factor": 4.0} if kind == "llama3" else {}
    config = from_file(tmp_path, 256, {"rope_type": kind, "factor": 4.0, **more})
    with pytest.raises(
        ConfigError,
        match=f"already scaled .rope_type {kind}. and its config does not say from which",
    ):
        plan.make(YarnConfig(factor=8.0), config, "small")
    with pytest.raises(
        ConfigError, match="original_max_position_embeddings is 512; .* starts at 256 at most"
    ):
        plan.make(YarnConfig(factor=8.0, original_max_position_embeddings=512), config, "small")
    planned = plan.make(
        YarnConfig(factor=8.0, original_max_position_embeddings=64), config, "small"
    )
    assert (planned.base_window, planned.max_position_embeddings) == (256, 512)


def test_a_scaled_base_holds_the_plan_from_the_original_window_in_the_settings(
    tmp_path: Path,
) -> None:
    """transformers builds its table from the window that it takes for the original one."""
    sizes = {key: value for key, value in SMALL.items() if key not in LLAMA}
    from_file(tmp_path, 256, {"type": "yarn", "factor": 4.0}, **sizes)
    config = base_config(Base(str(tmp_path)))
    planned = plan.make(
        YarnConfig(factor=8.0, original_max_position_embeddings=64), config, "small"
    )
    rescaled = plan.apply(planned, base_config(Base(str(tmp_path))))
    for candidate, expected_plan in ((config, planned.unscaled), (rescaled, planned)):
        model = AutoModelForCausalLM.from_config(candidate)
        assert "queries and keys" in proof.prove(model, expected_plan, "in the test")
