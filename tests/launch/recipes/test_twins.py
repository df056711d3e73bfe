"""The small twin of every recipe: the same but for lengths and places; two steps of each phase."""

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import recipe_twins
import yaml
from recipe_bases import RECIPES, card

from ropewalk.conf import recipe_card
from ropewalk.launch.recipes import costs, twin, twin_files

NAMES = recipe_card.names()
MAY_DIFFER = (
    *("name", "defaults", "mixture", "model", "runs_dir", "cache_dir", "data.min_piece"),
    *("train.steps", "train.global_batch_tokens", "train.schedule.warmup_steps", "train.sp_size"),
    *("train.precision", "train.metrics", "train.launcher", "data.sources", "data.length_weights"),
)


def flat(node: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(node, dict) and node:
        for key, value in node.items():
            yield from flat(value, f"{prefix}{key}.")
    elif isinstance(node, list) and prefix == "phases.":
        for number, phase in enumerate(node):
            yield from ((f"phases.{number}.{k}", v) for k, v in phase.items())
    else:
        yield prefix.rstrip("."), node


@pytest.mark.parametrize("name", NAMES)
def test_a_twin_differs_in_lengths_and_places_alone(name: str) -> None:
    published = yaml.safe_load((RECIPES / f"{name}.yaml").read_text())
    small, shrink = dict(flat(twin.settings(name))), card(name).shrink
    for key, value in flat(published):
        setting = key.split(".", 2)[2] if key.startswith("phases.") else key
        if setting.startswith(MAY_DIFFER):
            continue
        if setting.startswith("data.buckets"):  # its keys are lengths
            continue
        if setting.endswith(("seq_len", "target_length", "_embeddings", "s2_group", "length")):
            assert small[key] == pytest.approx(value / shrink, rel=0.02), key
        elif setting == "data.begin" and isinstance(value, list):
            assert len(small[key]) == len(value)
        elif not setting.startswith("train.memory.tile"):
            assert small[key] == value, key
    assert len(published.get("phases", [])) == len(twin.settings(name).get("phases", []))


@pytest.mark.parametrize("name", NAMES)
def test_a_twins_base_keeps_the_ratios_of_windows_and_heads(name: str) -> None:
    config = card(name).base.config
    small = twin_files.with_fewer_heads(twin_files.shrunken_config(config, card(name).shrink))
    window = config["max_position_embeddings"] / small["max_position_embeddings"]
    assert window == pytest.approx(card(name).shrink, rel=0.02)
    heads = config["num_attention_heads"] / config["num_key_value_heads"]
    assert small["num_attention_heads"] / small["num_key_value_heads"] == heads
    if "qk_rope_head_dim" not in config:
        width = config["hidden_size"] // config["num_attention_heads"]
        assert small["head_dim"] == config.get("head_dim", width)


def trained(name: str, folder: Path) -> list[Path]:
    """Two finite steps in each phase that trains; its runs."""
    recipe_twins.call(name, recipe_twins.written(name, folder), "train")
    runs = recipe_twins.run_folders(name, folder)
    phases = yaml.safe_load((RECIPES / f"{name}.yaml").read_text()).get("phases", [{}])
    assert len(runs) == len(phases)
    for run, phase in zip(runs, phases, strict=True):
        expected = 0 if phase.get("train.steps") == 0 else 2
        losses = recipe_twins.losses(run) if expected else []
        assert len(losses) == expected and all(map(math.isfinite, losses)), (run, losses)
    return runs


@pytest.mark.slow
def test_qwen3s_twin_trains_and_exports_qwens_yarn(tmp_path: Path) -> None:
    config = recipe_twins.exported(trained("qwen3_128k", tmp_path)[-1])
    rope = config["rope_parameters"]
    assert (rope["rope_type"], rope["factor"]) == ("yarn", 4.0)
    assert rope["original_max_position_embeddings"] == 32768 // 128
    assert config["max_position_embeddings"] == 131072 // 128


@pytest.mark.slow
def test_olmo3s_twin_trains_and_rescales_its_full_layers_alone(tmp_path: Path) -> None:
    rope = recipe_twins.exported(trained("olmo3_64k", tmp_path)[-1])["rope_parameters"]
    assert rope["full_attention"]["rope_type"] == "yarn"
    assert rope["full_attention"]["factor"] == 8.0
    assert rope["sliding_attention"]["rope_type"] == "default"


def test_codellamas_twin_trains_and_exports_its_theta(tmp_path: Path) -> None:
    rope = recipe_twins.exported(trained("codellama", tmp_path)[-1])["rope_parameters"]
    assert (rope["rope_type"], rope["rope_theta"]) == ("default", 1e6)


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_every_twin_trains(name: str, tmp_path: Path) -> None:
    runs = trained(name, tmp_path)
    assert (runs[-1] / "rope.json").is_file()


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_every_twin_is_checked_and_planned(name: str, tmp_path: Path) -> None:
    recipe_twins.written(name, tmp_path)
    assert "check" in recipe_twins.call(name, tmp_path, "check")
    words = ("--hardware", "h100", "--gpus", "2", "--json", "train.precision=bf16")
    plan = recipe_twins.call(name, tmp_path, "plan", *words)
    assert '"verdict": "fits"' in plan


@pytest.mark.slow
@pytest.mark.parametrize("name", ["codellama", "pi_llama"])
def test_the_table_is_what_a_plan_says_now(name: str) -> None:
    from ropewalk.launch.recipes import table

    assert costs.plan(name) == table.read()[name]["plan"]
