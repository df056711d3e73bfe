"""SERVING.md and serving.json: command lines that give the plan, a table, a line a dropped key."""

import json
import re
import shlex
from collections.abc import Callable
from typing import Any

import pytest
from transformers import AutoModelForCausalLM

from ropewalk.conf.rope_methods import (
    ABFConfig,
    DynamicConfig,
    LongRopeConfig,
    NTKByPartsConfig,
    PIConfig,
    RopeConfig,
    YarnConfig,
)
from ropewalk.train.export import handoff, serving
from ropewalk.train.rope import proof

ODD = YarnConfig(factor=8.0, beta_fast=24.0, beta_slow=2.5, attention_factor=1.12, truncate=False)
ALL_CAN = [PIConfig(factor=8.0), YarnConfig(factor=8.0), ODD, DynamicConfig(factor=8.0)]


def command(page: str, program: str) -> list[str]:
    """The arguments of a command line as a shell splits them."""
    (block,) = re.findall(rf"```sh\n({re.escape(program)}.*?)\n```", page, re.S)
    return shlex.split(block)


def value(arguments: list[str], flag: str) -> str:
    return arguments[arguments.index(flag) + 1]


@pytest.mark.parametrize("rope", ALL_CAN, ids=["linear", "yarn", "odd yarn", "dynamic"])
@pytest.mark.parametrize(
    ("program", "flag"),
    [("vllm serve", "--hf-overrides"), ("python -m sglang", "--json-model-override-args")],
)
def test_the_overrides_turn_the_bases_config_into_the_plan(
    program: str, flag: str, rope: RopeConfig, tiny: Callable[..., Any], export: Callable[..., Any]
) -> None:
    """Both servers apply them to an unscaled config by `config.update`."""
    exported = export(tiny("llama"), rope, gguf="off")
    config = tiny("llama")
    config.update(json.loads(value(command(exported.page, program), flag)))
    assert "hold the plan" in proof.prove(
        AutoModelForCausalLM.from_config(config), exported.plan, "in the test"
    )


@pytest.mark.parametrize("kind", ["gemma3_text", "olmo3"])
def test_the_overrides_hold_all_tables_of_a_model(
    kind: str, tiny: Callable[..., Any], export: Callable[..., Any]
) -> None:
    config = tiny(kind, sliding_window=64, num_hidden_layers=6)
    exported = export(config, YarnConfig(factor=8.0), gguf="off")
    fresh = tiny(kind, sliding_window=64, num_hidden_layers=6)
    fresh.update(json.loads(value(command(exported.page, "vllm serve"), "--hf-overrides")))
    assert "hold the plan" in proof.prove(
        AutoModelForCausalLM.from_config(fresh), exported.plan, "in the test"
    )
    assert "| vLLM | 0.33.0 | not verified |" in exported.page
    assert (
        f"vLLM is not verified: its code for the architecture {kind} was not read." in exported.page
    )


def test_the_page_of_default_yarn_has_all_commands_and_no_warning(
    tiny: Callable[..., Any], export: Callable[..., Any]
) -> None:
    exported = export(tiny("llama"), YarnConfig(factor=8.0), gguf="f16")
    page = exported.page
    assert "Warning" not in page and exported.metadata["warnings"] == []
    assert value(command(page, "vllm serve"), "--max-model-len") == "2048"
    assert value(command(page, "python -m sglang"), "--context-length") == "2048"
    assert command(page, "llama-server -m model-f16.gguf")[3:] == ["-c", "2048"]
    assert command(page, "llama-server -m unscaled.gguf")[5:] == shlex.split(
        "--rope-scaling yarn --rope-scale 8 --yarn-orig-ctx 256"
    )
    assert "mlx_lm.server --model hf" in page and "--cache-type-k f32" in page
    for engine in (
        "transformers | 5.23",
        "vLLM | 0.33.0",
        "SGLang | 0.5.23",
        "mlx-lm | 0.32.2",
        "llama.cpp, model-f16.gguf |",
    ):
        assert re.search(rf"^\| {re.escape(engine)}.*\| 0 / 0 \| 1\.2079 \| yes \|$", page, re.M), (
            engine
        )
    assert "Not measured: run `ropewalk eval`" in page


def test_the_page_names_every_dropped_key_with_numbers(
    tiny: Callable[..., Any], export: Callable[..., Any], capsys: pytest.CaptureFixture[str]
) -> None:
    """The consequence stands on the page and on the terminal."""
    exported = export(tiny("llama"), ODD)
    warning = (
        "SGLang 0.5.23 does not read attention_factor: attention factor 1.2079 instead of 1.1200: "
        "attention scores x1.163"
    )
    assert f"**Warning:** {warning}" in exported.page
    assert f"export warning: {warning}" in capsys.readouterr().out
    assert "mlx-lm 0.32.2 does not read truncate: frequencies up to" in exported.page
    assert (
        "(its converter) 0274f0f does not read beta_fast, beta_slow, truncate: frequencies up to x"
        in exported.page
    )
    assert re.search(
        r"^\| SGLang \| 0\.5\.23 \|( read \|){5} not read \| 0 / 0 \| 1\.2079 \| \*\*no\*\* \|$",
        exported.page,
        re.M,
    )
    assert re.search(
        r"^\| llama\.cpp, model-f32\.gguf .*\| 0 / 0 \| 1\.1200 \| yes \|$", exported.page, re.M
    )
    sglang = json.loads(
        value(command(exported.page, "python -m sglang"), "--json-model-override-args")
    )
    assert sglang["rope_parameters"]["attn_factor"] == pytest.approx(1.12 / 1.2079442)
    assert "attn_factor" not in value(command(exported.page, "vllm serve"), "--hf-overrides")
    assert "unscaled.gguf" not in exported.page  # no flags express this table


def test_serving_json_has_schema_1(tiny: Callable[..., Any], export: Callable[..., Any]) -> None:
    exported = export(tiny("llama"), ODD)
    content = exported.serving
    assert (content["schema"], content["plan"]) == (1, exported.plan.hash)
    assert content["warnings"] == exported.metadata["warnings"]
    engines = content["engines"]
    llama_cpp = {"llama.cpp (its converter)", "llama.cpp, model-f32.gguf"}
    assert set(engines) == {"transformers", "vLLM", "SGLang", "mlx-lm"} | llama_cpp
    keys = {"version", "reads", "drops", "inv_freq_max_rel", "attention_factor", "same"}
    for engine in engines.values():
        assert keys <= engine.keys()
    assert engines["SGLang"]["attention_factor"] == pytest.approx(1.2079442)
    assert [drop["key"] for drop in engines["SGLang"]["drops"]] == ["attention_factor"]
    assert engines["vLLM"]["same"] is True and engines["mlx-lm"]["same"] is False
    assert content["gguf"]["keys"]["attn_factor"] == pytest.approx(1.12)
    assert len(content["gguf"]["keys"]["rope_freqs"]) == 8


def test_vllm_gets_its_own_key_for_longropes_factor(
    tiny: Callable[..., Any], export: Callable[..., Any]
) -> None:
    rope = LongRopeConfig(factor=8.0, long_factor=[1.0 + i for i in range(8)], attention_factor=1.3)
    exported = export(tiny("llama"), rope)
    overrides = json.loads(value(command(exported.page, "vllm serve"), "--hf-overrides"))
    parameters = overrides["rope_parameters"]
    assert parameters["long_mscale"] == parameters["short_mscale"] == 1.3
    assert "short_mscale" not in exported.config["rope_parameters"]


FLAGS = [
    (PIConfig(factor=4.0), "--rope-scaling linear --rope-scale 4"),
    (ABFConfig(factor=4.0, rope_theta=5e5), "--rope-freq-base 500000.0"),
    (
        YarnConfig(factor=4.0, beta_fast=24.0, beta_slow=2.5),
        "--rope-scaling yarn --rope-scale 4 --yarn-orig-ctx 256 "
        "--yarn-beta-fast 24 --yarn-beta-slow 2.5",
    ),
    (YarnConfig(factor=4.0, truncate=False), None),
    (NTKByPartsConfig(factor=4.0), None),
    (RopeConfig(), None),
]


@pytest.mark.parametrize(("rope", "flags"), FLAGS)
def test_the_flags_of_llama_cpp(
    rope: RopeConfig, flags: str | None, tiny: Callable[..., Any], planned: Callable[..., Any]
) -> None:
    assert serving.scaling_flags(planned(tiny("llama"), rope)) == flags


def results(verdict: bool = True) -> dict[str, Any]:
    """Results of eval with two bins inside the window of 256 and one beyond."""
    spans = [(0, 128), (128, 256), (256, 512)]

    def model(nll: float) -> dict[str, Any]:
        return {
            "nll_by_position": [
                {"from": a, "to": b, "nll": nll, "low": nll - 0.1, "high": nll + 0.1, "tokens": 9}
                for a, b in spans
            ]
        }

    inside = {
        "name": "Inside the original window",
        "text": "+0.020 nats [+0.010, +0.030]",
        "rule": "at most +0.05",
        "verdict": "pass",
    }
    return {
        "base_window": 256,
        "models": {"base": model(3.1), "extended": model(3.12)},
        "gates": [inside] if verdict else [],
    }


def test_the_page_shows_the_cost_on_short_text_with_intervals(
    tiny: Callable[..., Any], export: Callable[..., Any]
) -> None:
    cost = handoff.short_text_cost(results())
    exported = export(tiny("llama"), YarnConfig(factor=8.0), gguf="off", short_text=cost)
    assert "+0.020 nats [+0.010, +0.030] per token, extended against base" in exported.page
    assert "at most +0.05: pass" in exported.page
    assert "| 0-128 | 3.100 [3.000, 3.200] | 3.120 [3.020, 3.220] |" in exported.page
    assert "| 128-256 |" in exported.page and "| 256-512 |" not in exported.page
    assert exported.serving["short_text"]["window"] == 256


def test_there_is_no_cost_on_short_text_without_a_base() -> None:
    assert handoff.short_text_cost(results(verdict=False)) is None


def test_an_engine_with_its_own_formula_is_named(
    tiny: Callable[..., Any], export: Callable[..., Any]
) -> None:
    """SGLang reads every key of dynamic NTK, but has one table for all lengths."""
    page = export(tiny("llama"), DynamicConfig(factor=8.0), gguf="off").page
    assert "SGLang 0.5.23 has its own way with rope_type dynamic: frequencies up to" in page
    assert "off in texts up to 256 tokens" in page and "vLLM 0.33.0 does not read factor" in page


@pytest.mark.parametrize(
    ("kind", "changes"),
    [("gemma3_text", {"sliding_window": 64, "num_hidden_layers": 6}), ("stablelm", {})],
)
def test_unverified_architectures_get_no_flags(
    kind: str, changes: dict[str, Any], tiny: Callable[..., Any], export: Callable[..., Any]
) -> None:
    exported = export(tiny(kind, **changes), YarnConfig(factor=8.0), gguf="f32")
    assert "no GGUF file was written" in exported.page and "--rope-scaling" not in exported.page
