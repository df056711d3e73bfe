"""A recipe over the published config.json of its base, without the hub."""

import json
from dataclasses import replace
from pathlib import Path

from ropewalk.conf import recipe_card
from ropewalk.conf.errors import ConfigError
from ropewalk.conf.recipe_card import RecipeCard
from ropewalk.conf.schema import Config

RECIPES = recipe_card.FOLDER.parent / "recipe"


def card_of(name: str) -> RecipeCard:
    """Raises: ConfigError for a name without a card."""
    path = recipe_card.FOLDER / f"{name}.yaml"
    if not path.is_file():
        known = ", ".join(recipe_card.names())
        raise ConfigError(f"recipes is {name}; it must be one of {known}; correct it")
    return recipe_card.read(path)


def phases_on(name: str, folder: Path, *words: str) -> list[Config]:
    """The checked phases of a recipe whose base is `folder`, which gets its config.json.

    `words`: settings on top. Raises: ConfigError.
    """
    from ropewalk.launch.config.compose import compose
    from ropewalk.launch.config.phases import phase_configs

    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(card_of(name).base.config))
    config = compose([f"recipe={name}", *words])
    config.model = replace(config.model, path=str(folder), revision=None)
    return phase_configs(config)
