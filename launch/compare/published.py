"""Published values beside a comparison: of the same protocol only, those of the recipe's card
first."""

import re
import shlex
from collections.abc import Sequence
from dataclasses import dataclass

from ropewalk.conf import recipe_card
from ropewalk.conf.published import PublishedResult
from ropewalk.eval.report import anchors
from ropewalk.eval.tasks import TASKS
from ropewalk.launch.compare.reading import Model


@dataclass(frozen=True)
class Published:
    """One published result whose protocol some model was measured by."""

    task: str
    anchor: PublishedResult
    recipes: Sequence[str]
    """Of the compared runs, those whose card names it."""


def beside(models: Sequence[Model]) -> list[Published]:
    """Those that a recipe's card names first."""
    cards = {name: card for model in models if (name := recipe_of(model)) and (card := _card(name))}
    further = [anchor for card in cards.values() for anchor in card.anchors]
    result = []
    for task in TASKS:
        rows = {model.name: model.rows.get(task.name) for model in models}
        for anchor in anchors.beside(rows, [*anchors.published(), *further]):
            of = [
                name
                for name, card in cards.items()
                if anchor.row in card.anchor_rows or anchor in card.anchors
            ]
            result.append(Published(task.name, anchor, of))
    return sorted(result, key=lambda entry: not entry.recipes)


def recipe_of(model: Model) -> str | None:
    """The recipe in the recorded command."""
    try:
        words = shlex.split(str(model.record.get("command", "")))
    except ValueError:
        return None
    names = [word.partition("=")[2] for word in words if re.match(r"recipe=\w+$", word)]
    return names[-1] if names else None


def _card(name: str) -> recipe_card.RecipeCard | None:
    """None of a recipe without a card here, such as the user's own. Raises: DataError."""
    path = recipe_card.FOLDER / f"{name}.yaml"
    return recipe_card.read(path) if path.is_file() else None
