"""A former name of a setting is answered with the present one, wherever it is written."""

import json
from collections.abc import Sequence
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

import pytest

from ropewalk.conf.errors import ConfigError
from ropewalk.conf.renamed import RENAMED
from ropewalk.launch.config.compose import compose, config_dir_override

DEMO = compose(["recipe=demo"])


def lines(overrides: Sequence[str]) -> list[str]:
    with pytest.raises(ConfigError) as error:
        compose(["recipe=demo", *overrides])
    return str(error.value).splitlines()


def value_of(key: str) -> Any:
    value: Any = DEMO
    for name in key.split("."):
        value = getattr(value, name)
    return value


@pytest.mark.parametrize("former", RENAMED)
def test_every_former_name_is_answered(former: str) -> None:
    present = RENAMED[former]
    value = value_of(present)
    text = "{}" if is_dataclass(value) else json.dumps(value).replace(" ", "")
    assert lines([f"{former}={text}"])[0] == f"{former} is now {present}"
    assert f"{former} is now {present}" in lines([f"+{former}={text}"])


def test_present_names_are_not_former_names() -> None:
    sections = {
        f"train.{f.name}" for f in fields(DEMO.train) if is_dataclass(value_of(f"train.{f.name}"))
    }
    assert set(RENAMED) & {*RENAMED.values()} <= sections


def test_other_problems_are_reported_with_it() -> None:
    assert lines(["train.lr=-1", "rope.factor=0.5", "train.hang_s=1"]) == [
        "train.lr is now train.optimizer.lr",
        "train.hang_s is now train.launcher.hang_timeout_s",
        "rope.factor is 0.5; it must be a finite number of at least 1; e.g. rope.factor=8",
        (
            "train.optimizer.lr is -1.0; it must be a finite number above 0; e.g. "
            "train.optimizer.lr=2e-5"
        ),
    ]


def test_former_names_in_a_phase_and_in_a_recipe(tmp_path: Path) -> None:
    assert lines(["phases=[{},{train.lr:1e-4,train.steps:-1}]"]) == [
        "phases[1].train.lr is now train.optimizer.lr",
        "phases[1].train.steps is -1; it must be at least 0; raise it",
    ]
    assert recipe_lines(tmp_path) == FORMER_IN_RECIPE


def test_a_former_name_in_a_recipe_hides_no_wrong_override(tmp_path: Path) -> None:
    overrides = ["nope=1", "train.steps=abc", "data.sources.a.weight=x", "train.optimizer.eps=1e-9"]
    assert recipe_lines(tmp_path, *overrides) == [
        *FORMER_IN_RECIPE,
        NOPE,
        "train.steps is abc; it must be a whole number; e.g. train.steps=2048",
        "data.sources.a.weight is x; it must be a number; e.g. data.sources.a.weight=2.0",
    ]


def test_a_former_name_in_a_recipe_and_in_an_override_is_told_for_each(tmp_path: Path) -> None:
    lines = recipe_lines(tmp_path, "train.lr=1", "nope=1")
    assert sorted(lines) == sorted([*FORMER_IN_RECIPE, "train.lr is now train.optimizer.lr", NOPE])


FORMER_IN_RECIPE = [
    "recipe/mine.yaml line 2: data.tokens is now data.total_tokens",
    "recipe/mine.yaml line 3: train.lr is now train.optimizer.lr",
    "recipe/mine.yaml line 3: train.optimizer is now train.optimizer.name",
]
NOPE = "nope is not a setting; did you mean rope?"


def recipe_lines(folder: Path, *overrides: str) -> list[str]:
    """The problems of a run with a recipe that has three former names."""
    (folder / "recipe").mkdir(exist_ok=True)
    (folder / "recipe" / "mine.yaml").write_text(
        "# @package _global_\ndata: {tokens: 7}\ntrain: {lr: 1e-3, optimizer: adamw}\n"
    )
    with pytest.raises(ConfigError) as error:
        compose(["recipe=mine", *overrides, config_dir_override(str(folder))])
    return str(error.value).splitlines()
