"""A recipe over the published config.json of its base, in a folder: no hub."""

import json
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from ropewalk.conf import recipe_card
from ropewalk.conf.recipe_card import RecipeCard
from ropewalk.conf.schema import Config
from ropewalk.launch.config.compose import compose
from ropewalk.launch.config.phases import phase_configs

RECIPES = recipe_card.FOLDER.parent / "recipe"


@cache
def card(name: str) -> RecipeCard:
    return recipe_card.read(recipe_card.FOLDER / f"{name}.yaml")


@cache
def phases(name: str, base: Path) -> list[Config]:
    """The phases of a recipe, checked, with a base in the folder `base`."""
    base.mkdir(exist_ok=True)
    (base / "config.json").write_text(json.dumps(card(name).base.config))
    folders = [f"runs_dir={base}/runs", f"cache_dir={base}/cache"]
    config = compose([f"recipe={name}", *folders, "train.launcher.ranks_per_node=8"])
    config.model = replace(config.model, path=str(base), revision=None)
    return phase_configs(config)


def settings(name: str) -> set[str]:
    """The settings that a recipe's file has a value for; a phase's under their own names."""
    content = yaml.safe_load((RECIPES / f"{name}.yaml").read_text())
    phases = content.pop("phases", [])
    keys = set(_leaves({k: v for k, v in content.items() if k not in ("defaults", "name")}))
    for phase in phases:
        keys |= set(_leaves({k: v for k, v in phase.items() if k != "name"}))
    return keys


def _leaves(node: dict[str, Any], prefix: str = "") -> Any:
    for key, value in node.items():
        if isinstance(value, dict):
            yield from _leaves(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}"
