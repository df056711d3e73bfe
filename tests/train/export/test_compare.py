"""The verdict on an engine: the keys that it drops, with numbers; empty if unverified."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from transformers import LlamaConfig
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

from ropewalk.conf.rope_methods import (
    DynamicConfig,
    Llama3Config,
    LongRopeConfig,
    NTKByPartsConfig,
    NTKConfig,
    PIConfig,
    RopeConfig,
    YarnConfig,
)
from ropewalk.train.export import compare
from ropewalk.train.export.engines import ENGINES, Engine
from ropewalk.train.export.formulas import Table, transformers

Verdicts = dict[str, compare.Verdict]
ALL_ALIKE = [RopeConfig(), PIConfig(factor=8.0), NTKConfig(factor=8.0), YarnConfig(factor=8.0)]
ODD = YarnConfig(factor=8.0, beta_fast=24.0, beta_slow=2.5, attention_factor=1.12, truncate=False)


@pytest.fixture
def judged(tiny: Callable[..., Any], planned: Callable[..., Any]) -> Callable[..., Verdicts]:
    def judge(rope: RopeConfig, kind: str = "llama", **changes: Any) -> Verdicts:
        plan = planned(tiny(kind, **changes), rope)
        return compare.verdicts(plan, kind)

    return judge


def dropped(verdict: compare.Verdict) -> dict[str, str]:
    return {drop["key"]: drop["consequence"] for drop in verdict.drops}


@pytest.mark.parametrize("rope", ALL_ALIKE, ids=lambda rope: rope.method)
def test_all_five_engines_compute_these_plans(
    rope: RopeConfig, judged: Callable[..., Verdicts]
) -> None:
    for name, verdict in judged(rope).items():
        assert verdict.same is True and not verdict.drops and verdict.inv_freq_max_rel == 0, name


def test_a_server_without_the_attention_factor_is_named_with_numbers(
    judged: Callable[..., Verdicts], tiny: Callable[..., Any], planned: Callable[..., Any]
) -> None:
    """A field failure: a server silently applied YaRN without its attention factor."""

    def frequencies_only(p: dict[str, Any], dim: int, window: int, length: int) -> Table:
        return transformers(p, dim, window, length)[0], 1.0

    server = Engine(
        "1.0", frequencies_only, {"yarn": ("factor", "original_max_position_embeddings")}
    )
    plan = planned(tiny("llama"), YarnConfig(factor=8.0))
    verdict = compare.engine_verdict("server", server, plan, "llama")
    assert verdict.same is False
    assert (verdict.inv_freq_max_rel, verdict.attention_factor) == (0, 1.0)
    consequence = dropped(verdict)["rope_type yarn"]
    assert "attention factor 1.0000 instead of 1.2079" in consequence
    assert "x0.685" in consequence  # 1 / 1.2079^2


def test_an_ignored_attention_factor_is_named_with_numbers(
    judged: Callable[..., Verdicts],
) -> None:
    verdicts = judged(YarnConfig(factor=8.0, attention_factor=1.12))
    assert [name for name, verdict in verdicts.items() if verdict.same] == ["transformers", "vLLM"]
    for name in ("SGLang", "mlx-lm", "llama.cpp (its converter)"):
        consequences = dropped(verdicts[name])
        assert consequences.keys() == {"attention_factor"} and verdicts[name].inv_freq_max_rel == 0
        assert "1.2079 instead of 1.1200" in consequences["attention_factor"]
        assert "x1.163" in consequences["attention_factor"]


def transformers_yarn(extra: dict[str, Any]) -> np.ndarray:
    """YaRN x8 of the tiny model by transformers' own function."""
    yarn = {
        "rope_type": "yarn",
        "rope_theta": 1e4,
        "factor": 8.0,
        "original_max_position_embeddings": 256,
        **extra,
    }
    config = LlamaConfig(
        hidden_size=64, num_attention_heads=4, max_position_embeddings=2048, rope_parameters=yarn
    )
    return ROPE_INIT_FUNCTIONS["yarn"](config, torch.device("cpu"))[0].double().numpy()


def test_every_dropped_key_of_an_unusual_ramp_is_named(judged: Callable[..., Verdicts]) -> None:
    verdicts = judged(ODD)
    assert dropped(verdicts["vLLM"]) == {} and dropped(verdicts["transformers"]) == {}
    assert dropped(verdicts["SGLang"]).keys() == {"attention_factor"}
    assert dropped(verdicts["mlx-lm"]).keys() == {"attention_factor", "truncate"}
    ours = dropped(verdicts["llama.cpp (its converter)"])
    assert ours.keys() == {"attention_factor", "truncate", "beta_fast", "beta_slow"}
    rel = verdicts["llama.cpp (its converter)"].inv_freq_max_rel
    server_table, planned = (
        transformers_yarn(p) for p in ({}, {"beta_fast": 24.0, "beta_slow": 2.5, "truncate": False})
    )
    assert rel == pytest.approx(np.max(np.abs(server_table / planned - 1)), rel=1e-5) and rel > 0.5
    assert ours["beta_fast"] == f"frequencies up to x{1 + rel:.1f} off"


def test_the_suggested_keys_make_the_engine_compute_the_plan(
    judged: Callable[..., Verdicts],
) -> None:
    yarn = judged(YarnConfig(factor=8.0, beta_fast=24.0, attention_factor=1.12))
    assert yarn["SGLang"].way_out == {"attn_factor": pytest.approx(1.12 / 1.2079442)}
    assert yarn["mlx-lm"].way_out == {"mscale": pytest.approx(0.12 / 0.2079442)}
    assert yarn["vLLM"].way_out is None and yarn["llama.cpp (its converter)"].way_out is None
    divisors = [1.0 + i for i in range(8)]
    tied = judged(LongRopeConfig(factor=8.0, long_factor=divisors, attention_factor=1.3))
    for name in ("vLLM", "SGLang"):
        assert dropped(tied[name]).keys() == {"attention_factor"}
        assert tied[name].way_out == {"short_mscale": 1.3, "long_mscale": 1.3}
    assert judged(ODD)["mlx-lm"].way_out is None  # truncate stays lost


def test_ntk_by_parts_is_yarn_without_temperature(judged: Callable[..., Verdicts]) -> None:
    verdicts = judged(NTKByPartsConfig(factor=8.0))
    assert "1.2079 instead of 1.0000" in dropped(verdicts["SGLang"])["attention_factor"]
    assert verdicts["vLLM"].same is True


def test_engines_with_one_longrope_table_are_off_in_short_texts(
    judged: Callable[..., Verdicts],
) -> None:
    verdicts = judged(LongRopeConfig(factor=8.0, long_factor=[2.0] * 8, short_factor=[1.0] * 8))
    assert verdicts["transformers"].same is True and verdicts["SGLang"].same is True
    assert verdicts["vLLM"].inv_freq_max_rel == 0
    assert verdicts["vLLM"].short_inv_freq_max_rel == pytest.approx(0.5)
    for name in ("vLLM", "mlx-lm"):
        assert "50.0% off in texts up to 256 tokens" in dropped(verdicts[name])["short_factor"]
    assert verdicts["llama.cpp (its converter)"].same is None


def test_servers_compute_dynamic_ntk_otherwise(judged: Callable[..., Verdicts]) -> None:
    verdicts = judged(DynamicConfig(factor=8.0))
    assert verdicts["transformers"].same is True and verdicts["mlx-lm"].same is True
    assert "off" in dropped(verdicts["vLLM"])["factor"]
    assert "in texts up to 256 tokens" in dropped(verdicts["SGLang"])["rope_type dynamic"]


def test_the_converter_has_its_own_original_window_for_llama3(
    judged: Callable[..., Verdicts],
) -> None:
    converter, rope = "llama.cpp (its converter)", Llama3Config(factor=8.0)
    verdict = judged(rope)[converter]
    assert dropped(verdict).keys() == {"original_max_position_embeddings"}
    assert verdict.same is False
    assert judged(rope, max_position_embeddings=8192)[converter].same is True


@pytest.mark.parametrize("kind", ["gemma3_text", "olmo3", "olmo2"])
def test_other_architectures_are_not_verified(kind: str, judged: Callable[..., Verdicts]) -> None:
    sliding = {} if kind == "olmo2" else {"sliding_window": 64, "num_hidden_layers": 6}
    verdicts = judged(YarnConfig(factor=8.0), kind, **sliding)
    assert verdicts["transformers"].same is True
    for name in ENGINES.keys() - {"transformers"}:
        verdict = verdicts[name]
        assert verdict.same is verdict.inv_freq_max_rel is verdict.reads is None


def test_partly_rotated_heads_are_not_verified(
    judged: Callable[..., Verdicts],
) -> None:
    share = {"rope_type": "default", "rope_theta": 1e4, "partial_rotary_factor": 0.5}
    verdicts = judged(YarnConfig(factor=8.0), rope_parameters=share)
    verified = {name: v.same for name, v in verdicts.items() if v.same is not None}
    assert verified == {"transformers": True}


def test_rounding_does_not_count_as_a_difference() -> None:
    ours = np.array([1.0, 0.1])
    assert compare.max_relative_difference(ours * (1 + 5e-7), ours) == 0
    assert compare.max_relative_difference(ours * (1 + 1e-4), ours) == pytest.approx(1e-4)
