"""What is equal in all compared models, and what differs: settings, inputs, versions, hardware,
how each was measured."""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

from ropewalk.conf import settings
from ropewalk.launch.compare.reading import Model

Json = Mapping[str, Any]
ABSENT = "–"
NO_FACTS = ("schema", "name", "command", "stages", "digest", "phases")
"""Keys of the run's manifest.json that say nothing about the conditions."""
MEASURING = ("eval", "calibrate", "export")
"""Sections of the settings that say nothing about how a model was made."""


@dataclass(frozen=True)
class Fact:
    """One condition of the compared models."""

    group: str
    key: str
    values: Mapping[str, str]
    """By model."""
    matters: bool
    """Whether it can change numbers."""

    @property
    def by_value(self) -> dict[str, list[str]]:
        """The models that have each value."""
        models: dict[str, list[str]] = {}
        for name, value in self.values.items():
            models.setdefault(value, []).append(name)
        return models

    @property
    def is_equal(self) -> bool:
        return len(self.by_value) == 1

    @property
    def is_a_difference(self) -> bool:
        """Whether it differs, and can be why numbers do."""
        return self.matters and not self.is_equal


def facts_of(models: Sequence[Model]) -> list[Fact]:
    """Every fact that any of the models has, by group."""
    listed: dict[tuple[str, str], dict[str, str]] = {}
    for model in models:
        for group, key, value in _facts(model):
            listed.setdefault((group, key), {})[model.name] = _text(value)
    names = [model.name for model in models]
    return [
        Fact(group, key, {name: part.get(name, ABSENT) for name in names}, _matters(group, key))
        for (group, key), part in listed.items()
    ]


def _facts(model: Model) -> Iterator[tuple[str, str, Any]]:
    yield from (("inputs", key, value) for key, value in inputs(model).items())
    yield from (("measured", key, value) for key, value in _measured(model).items())
    shown = {key: value for key, value in model.record.items() if key not in NO_FACTS}
    yield from (("code and hardware", key, value) for key, value in _flat(shown))
    yield from (("settings", key, value) for key, value in settings_of(model).items())


def settings_of(model: Model) -> dict[str, Any]:
    """Those that made it, by dotted key; none of a model of `eval.models`, which its run's settings
    say nothing about."""
    kept = {key: part for key, part in model.config.items() if key not in MEASURING}
    return {} if model.is_named else dict(_flat(kept))


def matter(key: str) -> bool:
    """Whether a setting can change numbers."""
    return _idle_settings().match(key) is None


def inputs(model: Model) -> dict[str, Any]:
    """The identity of what the model was made from."""
    data, made = model.stage("data"), {"model": model.facts.get("identity")}
    if not model.is_named:
        made |= {"base": model.reference.facts.get("identity")}
        made |= {"plan": data.get("plan"), "token stores": data.get("stores")}
    made |= {"rope": model.facts.get("rope"), "rope plan": model.facts.get("rope_hash")}
    return made | {"tokenizer": model.facts.get("tokenizer")}


def _measured(model: Model) -> dict[str, Any]:
    keys = ("length", "base_window", "windows", "documents", "targets", "layout")
    made = {key: model.results.get(key) for key in keys}
    made["seed of the questions"] = model.results.get("seed")
    own = ("window", "dtype", "backend", "kernel", "device", "sp_size", "batch_tokens")
    made |= {key: model.facts.get(key) for key in (*own, "chunk_tokens", "haystack")}
    prompts = model.facts.get("prompts") or {}
    return made | {f"samples of {task}": prompts[task] for task in prompts}


def _flat(section: Json, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Dotted keys; an empty section is a value."""
    for key, value in section.items():
        if isinstance(value, Mapping) and value:
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def _text(value: object) -> str:
    if value is None:
        return ABSENT
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def shown(value: str) -> str:
    """A value for a page: of a hash its beginning, of a user's folder its last part."""
    if re.fullmatch(r"[0-9a-f]{16,}", value):
        return value[:12]
    return f"…/{value.rstrip('/').rsplit('/', 1)[-1]}" if value.startswith(("/", "~")) else value


@cache
def _idle_settings() -> re.Pattern[str]:
    """The settings that change no number."""
    idle = [row["name"] for row in settings.rows() if row["fingerprint"] is False]
    patterns = [re.escape(name).replace("NAME", r"[^.]+") for name in [*idle, "name"]]
    return re.compile("|".join(f"{pattern}(?:$|[.])" for pattern in patterns))


def _matters(group: str, key: str) -> bool:
    return group != "settings" or matter(key)
