"""What is said of an engine: which keys it drops, with numbers; nothing where it was not verified."""

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
        dynamic = rope.method == "dynamic"
        window = plan.original_max_position_embeddings if dynamic else plan.max_position_embeddings
        return compare.verdicts(plan, kind, window)

    return judge


def dropped(verdict: compare.Verdict) -> dict[str, str]:
    return {drop["key"]: drop["consequence"] for drop in verdict.drops}


@pytest.mark.parametrize("rope", ALL_ALIKE, ids=lambda rope: rope.method)
def test_forms_that_all_five_read_alike(rope: RopeConfig, judged: Callable[..., Verdicts]) -> None:
    for name, verdict in judged(rope).items():
        assert verdict.same is True and not verdict.drops and verdict.inv_freq_max_rel == 0, name


def test_server_formula_without_temperature_is_named_with_its_numbers(
    judged: Callable[..., Verdicts], tiny: Callable[..., Any], planned: Callable[..., Any]
) -> None:
    """A field failure: a server applied YaRN's frequencies and not its attention factor, and nothing said so."""

    def frequencies_only(p: dict[str, Any], dim: int, window: int, length: int) -> Table:
        return transformers(p, dim, window, length)[0], 1.0

    server = Engine(
        "1.0", frequencies_only, {"yarn": ("factor", "original_max_position_embeddings")}
    )
    plan = planned(tiny("llama"), YarnConfig(factor=8.0))
    verdicts = compare.engine_verdict("server", server, plan, "llama", 2048)
    assert (
        verdicts.same is False
        and verdicts.inv_freq_max_rel == 0
        and verdicts.attention_factor == 1.0
    )
    consequences = dropped(verdicts)["rope_type yarn"]
    assert (
        "attention factor 1.0000 instead of 1.2079" in consequences and "x0.685" in consequences
    )  # 1 / 1.2079^2


def test_ignored_attention_factor_is_named_with_its_numbers(
    judged: Callable[..., Verdicts],
) -> None:
    verdicts = judged(YarnConfig(factor=8.0, attention_factor=1.12))
    assert [name for name, verdict in verdicts.items() if verdict.same] == ["transformers", "vLLM"]
    for name in ("SGLang", "mlx-lm", "llama.cpp (its converter)"):
        consequences = dropped(verdicts[name])
        assert consequences.keys() == {"attention_factor"} and verdicts[name].inv_freq_max_rel == 0
        assert (
            "1.2079 instead of 1.1200" in consequences["attention_factor"]
            and "x1.163" in consequences["attention_factor"]
        )


def of_transformers(extra: dict[str, Any]) -> np.ndarray:
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


def test_each_dropped_key_of_an_odd_ramp(judged: Callable[..., Verdicts]) -> None:
    verdicts = judged(ODD)
    assert dropped(verdicts["vLLM"]) == {} and dropped(verdicts["transformers"]) == {}
    assert dropped(verdicts["SGLang"]).keys() == {"attention_factor"}
    assert dropped(verdicts["mlx-lm"]).keys() == {"attention_factor", "truncate"}
    ours = dropped(verdicts["llama.cpp (its converter)"])
    assert ours.keys() == {"attention_factor", "truncate", "beta_fast", "beta_slow"}
    rel = verdicts["llama.cpp (its converter)"].inv_freq_max_rel
    server_table, planned = (
        of_transformers(p) for p in ({}, {"beta_fast": 24.0, "beta_slow": 2.5, "truncate": False})
    )
    assert rel == pytest.approx(np.max(np.abs(server_table / planned - 1)), rel=1e-5) and rel > 0.5
    assert ours["beta_fast"] == f"frequencies up to x{1 + rel:.1f} off"


def test_way_out_makes_the_engine_compute_the_plan(judged: Callable[..., Verdicts]) -> None:
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


def test_longrope_that_switches_by_length(judged: Callable[..., Verdicts]) -> None:
    verdicts = judged(LongRopeConfig(factor=8.0, long_factor=[2.0] * 8, short_factor=[1.0] * 8))
    assert verdicts["transformers"].same is True and verdicts["SGLang"].same is True
    assert verdicts["vLLM"].inv_freq_max_rel == 0 and verdicts[
        "vLLM"
    ].short_inv_freq_max_rel == pytest.approx(0.5)
    for name in ("vLLM", "mlx-lm"):
        assert "50.0% off in texts up to 256 tokens" in dropped(verdicts[name])["short_factor"]
    assert verdicts["llama.cpp (its converter)"].same is None


def test_dynamic_is_told_to_be_computed_otherwise(judged: Callable[..., Verdicts]) -> None:
    verdicts = judged(DynamicConfig(factor=8.0))
    assert verdicts["transformers"].same is True and verdicts["mlx-lm"].same is True
    assert "off" in dropped(verdicts["vLLM"])["factor"]
    assert "in texts up to 256 tokens" in dropped(verdicts["SGLang"])["rope_type dynamic"]


def test_converter_that_takes_another_original_window_for_llama3(
    judged: Callable[..., Verdicts],
) -> None:
    verdicts = judged(Llama3Config(factor=8.0))["llama.cpp (its converter)"]
    assert (
        dropped(verdicts).keys() == {"original_max_position_embeddings"} and verdicts.same is False
    )
    assert (
        judged(Llama3Config(factor=8.0), max_position_embeddings=8192)[
            "llama.cpp (its converter)"
        ].same
        is True
    )


@pytest.mark.parametrize("kind", ["gemma3_text", "olmo3", "olmo2"])
def test_nothing_is_claimed_of_architectures_that_were_not_read(
    kind: str, judged: Callable[..., Verdicts]
) -> None:
    sliding = {} if kind == "olmo2" else {"sliding_window": 64, "num_hidden_layers": 6}
    verdicts = judged(YarnConfig(factor=8.0), kind, **sliding)
    assert verdicts["transformers"].same is True
    for name in ENGINES.keys() - {"transformers"}:
        assert (
            verdicts[name].same is None
            and verdicts[name].inv_freq_max_rel is None
            and verdicts[name].reads is None
        )


def test_nothing_is_claimed_of_heads_that_are_rotated_in_part(
    judged: Callable[..., Verdicts],
) -> None:
    share = {"rope_type": "default", "rope_theta": 1e4, "partial_rotary_factor": 0.5}
    verdicts = judged(YarnConfig(factor=8.0), rope_parameters=share)
    assert {
        name: verdict.same for name, verdict in verdicts.items() if verdict.same is not None
    } == {"transformers": True}


def test_rounding_is_no_difference_and_a_small_one_is() -> None:
    ours = np.array([1.0, 0.1])
    assert compare.max_relative_difference(ours * (1 + 5e-7), ours) == 0
    assert compare.max_relative_difference(ours * (1 + 1e-4), ours) == pytest.approx(1e-4)
