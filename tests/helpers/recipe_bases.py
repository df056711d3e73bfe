"""What a recipe's file says, and its card."""

from functools import cache
from pathlib import Path
from typing import Any

import yaml

from ropewalk.conf.recipe_card import RecipeCard
from ropewalk.conf.schema import Config
from ropewalk.launch.recipes import bases
from ropewalk.launch.recipes.bases import RECIPES


@cache
def card(name: str) -> RecipeCard:
    return bases.card_of(name)


@cache
def phases(name: str, base: Path) -> list[Config]:
    """The phases of a recipe, checked, with a base in the folder `base`."""
    folders = [f"runs_dir={base}/runs", f"cache_dir={base}/cache"]
    return bases.phases_on(name, base, *folders, "train.launcher.ranks_per_node=8")


def settings(name: str) -> set[str]:
    """The settings that a recipe's file has a value for; a phase's under their own names."""
    content = yaml.safe_load((RECIPES / f"{name}.yaml").read_text())
    phases = content.pop("phases", [])
    keys = set(_leaves({k: v for k, v in content.items() if k not in ("defaults", "name")}))
    for phase in phases:
        keys |= set(_leaves({k: v for k, v in phase.items() if k not in ("name", "mixture")}))
    return keys


def _leaves(node: dict[str, Any], prefix: str = "") -> Any:
    for key, value in node.items():
        if isinstance(value, dict):
            yield from _leaves(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}"
