"""What stands behind a recipe: conf/card/NAME.yaml beside conf/recipe/NAME.yaml.

A card is read by people and by `ropewalk recipes`; nothing of it enters a run or its fingerprint.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from ropewalk.conf import rules
from ropewalk.conf.errors import DataError
from ropewalk.conf.published import PublishedResult
from ropewalk.conf.rules import setting

FOLDER = Path(__file__).parent / "card"
_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
ORIGINS = {
    "paper": "the publication's own text or tables",
    "code": "the authors' published code or scripts",
    "config": "the released model's config.json",
    "model card": "the model's or data set's page",
    "notes": "others' notes of the publication, which we have not read ourselves",
    "arithmetic": "follows from figures of the other kinds",
    "ours": "the authors give none: our choice, with its reason",
}
"""What the origin of a number begins with."""


@dataclass(kw_only=True)
class BaseModel:
    """The model that the recipe starts from."""

    licence: str = setting(way_out="name the licence")
    gated: bool = False
    """Whether its host asks for accepted terms and a token."""
    mirror: str | None = None
    """A copy that asks for neither."""
    starter: str | None = None
    """A small open model of the same kind, to try the recipe with."""
    config_source: str = setting(way_out="say where config.json was read")
    config: dict[str, Any] = setting(factory=dict)
    """The published config.json, as far as RoPE, memory and speed depend on it."""


@dataclass(kw_only=True)
class Text:
    """The documents."""

    published: str = setting(way_out="name the authors' data")
    """What the authors trained on."""
    here: str = setting(way_out="say which text the recipe reads")
    """Which text the recipe reads, and what it stands in for."""
    licence: str = setting(way_out="name the licence, or say that it is not stated")


@dataclass(kw_only=True)
class Authors:
    """What the authors used; null: not published."""

    hardware: str | None = None
    gpu_hours: float | None = setting(None, above=0)
    note: str | None = None


@dataclass(kw_only=True)
class Planned:
    """The machine that docs/recipes.md plans the recipe for."""

    hardware: str = setting(way_out="a name of conf/hardware, e.g. h100")
    gpus: list[int] = setting(factory=list, at_least=1)
    """One number, or one a phase."""


@dataclass(kw_only=True)
class Finding:
    """A warning of the rope stage that is meant, and why."""

    text: str = setting(way_out="a part of the warning")
    why: str = setting(way_out="say why it is meant")


@dataclass(kw_only=True)
class RecipeCard:
    """One recipe's card."""

    title: str = setting(way_out="a line that says what it does")
    references: list[str] = setting(factory=list)
    """Papers, repositories with their commit, model pages."""
    base: BaseModel
    text: Text
    numbers: dict[str, str] = setting(factory=dict)
    """Setting -> origin, such as `code: train.sh`; a section stands for all that is under it."""
    departures: list[str] = setting(factory=list)
    """What differs from the publication, and why."""
    contradictions: list[str] = setting(factory=list)
    """Where paper, code and release disagree, and which the recipe follows."""
    gaps: list[str] = setting(factory=list)
    """What Ropewalk cannot say or do yet that the publication has."""
    findings: list[Finding] = setting(factory=list)
    authors: Authors = setting(factory=Authors)
    planned: Planned
    anchor_rows: list[int] = setting(factory=list)
    """Rows of eval/anchors.yaml that the recipe should reach."""
    anchors: list[PublishedResult] = setting(factory=list)
    """Further published results."""
    shrink: int = setting(at_least=1)
    """Lengths of the small twin that tests train are divided by this."""

    def problems(self, prefix: str) -> Iterator[str]:
        for key, origin in self.numbers.items():
            if origin.split(":")[0] not in ORIGINS or not origin.partition(":")[2].strip():
                yield (
                    f"{prefix}numbers.{key} is {origin}; it must be one of {', '.join(ORIGINS)}, "
                    "a colon and the place or reason; e.g. 'code: train.sh'"
                )

    def origin(self, key: str) -> str | None:
        """Where the number of a setting is from, by its own name or the nearest section's."""
        parts = key.split(".")
        sections = (".".join(parts[:end]) for end in range(len(parts), 0, -1))
        return next((self.numbers[name] for name in sections if name in self.numbers), None)


def names() -> list[str]:
    """The recipes that have a card here."""
    return sorted(path.stem for path in FOLDER.glob("*.yaml"))


def read(path: Path) -> RecipeCard:
    """Raises: DataError with every problem."""
    try:
        values = yaml.load(path.read_text("utf-8"), Loader=_LOADER)
        card: Any = OmegaConf.to_object(
            OmegaConf.merge(OmegaConf.structured(RecipeCard), OmegaConf.create(values))
        )
    except (OmegaConfBaseException, yaml.YAMLError, OSError, ValueError) as error:
        reason = str(error).splitlines()[0]
        raise DataError(f"{path.name} is no card: {reason}; mend it") from error
    if lines := list(rules.problems(card, f"{path.name}: ")):
        raise DataError("\n".join(lines))
    return card  # type: ignore[no-any-return]
