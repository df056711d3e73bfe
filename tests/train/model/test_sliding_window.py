"""A base's sliding window against the new window, and lifted on request, against transformers'
own masks.
"""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from architectures import SMALL, small_model
from transformers import AutoConfig, AutoModelForCausalLM

from ropewalk.conf.errors import ConfigError, DataError
from ropewalk.conf.model import ModelConfig
from ropewalk.conf.rope_methods import RopeConfig, YarnConfig
from ropewalk.train.base import Base, base_config
from ropewalk.train.model import build as models
from ropewalk.train.rope import plan as rope_plan
from ropewalk.train.rope.plan import RopePlan

BASE_WINDOW, WINDOW = 32, 64
MIXED = {"layer_types": ["sliding_attention"] * 3 + ["full_attention"], "sliding_window": 8}
QWEN = {"use_sliding_window": True, "sliding_window": 8, "max_window_layers": 2}


def planned(kind: str, setting: int | str | None = None, **changes: Any) -> RopePlan:
    sizes = {**SMALL, "max_position_embeddings": BASE_WINDOW, **changes}
    config = getattr(transformers, f"{kind}Config")(**sizes)
    return rope_plan.make(YarnConfig(factor=2.0), config, "the-base", setting)


def logits(model: Any) -> torch.Tensor:
    ids = (torch.arange(WINDOW) * 7 % 97)[None]
    with torch.no_grad():
        return model.eval()(input_ids=ids, use_cache=False).logits  # type: ignore[no-any-return]


@pytest.mark.parametrize(
    ("kind", "changes", "setting"),
    [
        ("Mistral", {"sliding_window": 8}, "off"),
        ("Mistral", {"sliding_window": 8}, WINDOW),
        ("Mistral", {"sliding_window": 4096}, None),
        ("Phi3", {"sliding_window": 31, "head_dim": 8}, "off"),
        ("Phi3", {"sliding_window": 262_144, "partial_rotary_factor": 0.5, "head_dim": 8}, None),
        ("Starcoder2", {"sliding_window": 8}, "off"),
        ("Qwen2", QWEN, "off"),
    ],
)
def test_a_lifted_or_wide_window_is_full_attention_and_exported_so(
    kind: str, changes: dict[str, Any], setting: int | str | None, tmp_path: Path
) -> None:
    model = small_model(kind, {**changes, "max_position_embeddings": BASE_WINDOW})
    model.save_pretrained(tmp_path / "base")
    base = Base(str(tmp_path / "base"))
    config = base_config(base)
    plan = rope_plan.make(YarnConfig(factor=2.0), config, "the-base", setting)
    built = models.build(base, plan, dtype=torch.float32, compute_dtype=torch.float32)
    built.save_pretrained(tmp_path / "exported")

    full = rope_plan.apply(plan, base_config(base))
    full.sliding_window = None
    if kind == "Qwen2":
        full.layer_types = ["full_attention"] * 4
    oracle = AutoModelForCausalLM.from_pretrained(tmp_path / "base", config=full)
    oracle.set_attn_implementation("eager")
    expected = logits(oracle)
    torch.testing.assert_close(logits(built), expected, atol=2e-4, rtol=1e-4)
    reloaded = AutoModelForCausalLM.from_pretrained(tmp_path / "exported")
    reloaded.set_attn_implementation("eager")
    torch.testing.assert_close(logits(reloaded), expected, atol=2e-4, rtol=1e-4)
    written = AutoConfig.from_pretrained(tmp_path / "exported").sliding_window
    assert written == (
        changes["sliding_window"] if setting is None else {"off": None}.get(setting, setting)
    )
    if setting is not None:
        narrow = AutoModelForCausalLM.from_pretrained(tmp_path / "base", config=config)
        narrow.set_attn_implementation("eager")
        assert float((logits(narrow) - expected).abs().max()) > 0.01


def test_a_plan_s_file_with_another_window_is_damaged(tmp_path: Path) -> None:
    content = planned("Mistral", "off", sliding_window=8).json()
    file = tmp_path / "rope.json"
    file.write_text(json.dumps(content))
    assert RopePlan.read(file).sliding_window == {"sliding_window": None}
    file.write_text(json.dumps(content | {"sliding_window": {}}))
    with pytest.raises(DataError, match="is damaged"):
        RopePlan.read(file)


def test_the_base_is_measured_with_its_own_window() -> None:
    plan = planned("Mistral", "off", sliding_window=8)
    assert plan.sliding_window == {"sliding_window": None}
    assert plan.unscaled.sliding_window == {}
    narrow = planned("Mistral", None, sliding_window=4096)
    assert plan.hash != narrow.hash and RopePlan.from_json(plan.json()) == plan


@pytest.mark.parametrize(
    ("kind", "changes", "setting", "message"),
    [
        ("Mistral", {"sliding_window": 63}, None, "model.sliding_window=off to train"),
        ("Mistral", {"sliding_window": 8}, 63, "of 63 tokens in every layer, which hides"),
        ("Mistral", {"sliding_window": 16}, 8, "has a window of 16 tokens"),
        ("Mistral", {"sliding_window": None}, "off", "the-base has no sliding window"),
        ("Gemma3Text", MIXED, "off", "alternates its windows with full attention"),
        ("Olmo3", MIXED, 64, "alternates its windows with full attention"),
        (
            "GptOss",
            {**MIXED, "rope_parameters": {"rope_type": "default", "rope_theta": 1e4}},
            "off",
            "alternates",
        ),
    ],
)
def test_what_cannot_be_is_refused_with_a_way_out(
    kind: str, changes: dict[str, Any], setting: int | str | None, message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        planned(kind, setting, **changes)


def test_alternate_windows_stay_and_an_unscaled_plan_hides_nothing_new() -> None:
    assert planned("Gemma3Text", **MIXED).sliding_window == {}
    config = transformers.MistralConfig(**{**SMALL, "sliding_window": 8})
    assert rope_plan.make(RopeConfig(), config, "the-base").sliding_window == {}


@pytest.mark.parametrize("value", [False, 0, "on", 1.5, True])
def test_the_setting_is_a_number_or_off(value: object) -> None:
    (line,) = ModelConfig(path="x", sliding_window=value).problems("model.")
    assert line.startswith(f"model.sliding_window is {value}; ")
    for good in (None, "off", 64):
        assert not [*ModelConfig(path="x", sliding_window=good).problems("model.")]
