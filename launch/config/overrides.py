"""Overrides of the command line, `key=value`, as the settings declare them.

Values are converted by the declared type of their key, without Hydra's grammar, which would take
`1e3` for a number, `a=b` for an error and `~/x` for nothing it knows.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ropewalk.conf import declared
from ropewalk.launch.config.files import GROUPS
from ropewalk.launch.config.values import Converter, Scalar, parse, quoted

_MODEL_PATH = re.compile(r"eval\.models\.[^.]+\.path")
_DOTTED_MODEL = re.compile(r"eval\.models\.[^.]+\.[^.]*\..+")


@dataclass(frozen=True)
class Override:
    """One word of the command line: `key=value`, or `~key`, which removes a source."""

    word: str
    key: str
    value: str | None  # None: without `=`
    removes: bool = False

    @classmethod
    def of(cls, word: str) -> "Override":
        head, equals, value = word.partition("=")
        removes = head.startswith("~")
        key = head.lstrip("~") if removes else head.lstrip("+")
        return cls(word, key, value if equals else None, removes)

    @property
    def source(self) -> str:
        """The NAME of `data.sources.NAME`; empty for any other key."""
        name = self.key.removeprefix("data.sources.")
        return name if name != self.key and "." not in name and self.value is None else ""

    @property
    def is_group(self) -> bool:
        return self.key in GROUPS and not self.removes

    @property
    def is_hydra(self) -> bool:
        return self.key.startswith("hydra.") or self.key == "hydra"


def is_text(key: str) -> bool:
    """Whether a setting is text, whose value needs no grammar."""
    return declared.exists(key) and declared.required_type(declared.type_of(key)) in (str, Any)


def typed(override: Override) -> tuple[Any, list[str]]:
    """The value of an override that sets a setting, and its problems, a line each."""
    key, value = override.key, override.value
    if problem := _problem(override):
        return None, [problem]
    assert value is not None
    hint, converter = declared.type_of(key), Converter()
    kind = declared.required_type(hint)
    try:
        node = parse(value) if _has_brackets(kind, value) else Scalar(value, value == "null")
    except ValueError:  # a bracket that is not closed
        node = Scalar(value)
    result = converter.convert(node, key, hint)
    return result, converter.problems


def _problem(override: Override) -> str | None:
    """Why a word sets nothing."""
    key, value = override.key, override.value
    if override.removes:
        return f"~{key} removes nothing; only a source can be removed; e.g. ~data.sources.NAME"
    if _DOTTED_MODEL.fullmatch(key):
        return (
            f"{key} names a column with a dot; a dot goes to the next section; write it without, "
            "e.g. llama-3_1"
        )
    if not key or not declared.exists(key):
        return declared.unknown(key) if key else f"{override.word} is no setting; write key=value"
    if value is None:
        return f"{key} is not followed by a value; a setting is written key=value; add =VALUE"
    if is_text(key) and quoted(value):
        return (
            f"{key} is {value}; text is taken to the letter, and the quotes would be part of it; "
            f"write {key}={value[1:-1]}"
        )
    return None


def repeated_models(words: Sequence[Override]) -> list[str]:
    """A line for each column of `eval.models` that is given two models: the first would be lost."""
    paths: dict[str, list[str]] = {}
    for word in words:
        if (match := _MODEL_PATH.fullmatch(word.key)) and word.value is not None:
            paths.setdefault(match[0], []).append(word.value)
    return [
        f"{key} is given twice, as {' and '.join(different)}; a column has one model; name the "
        "other one differently"
        for key, values in paths.items()
        if len(different := list(dict.fromkeys(values))) > 1
    ]


def _has_brackets(kind: Any, value: str) -> bool:
    return kind not in (str, int, float, bool) and (kind is not Any or value.startswith("["))


def nested(values: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    """Settings by dotted key as sections inside sections; a later value replaces an earlier one."""
    result: dict[str, Any] = {}
    for key, value in values:
        *parents, name = key.split(".")
        section = result
        for parent in parents:
            if not isinstance(section.get(parent), dict):
                section[parent] = {}
            section = section[parent]
        if isinstance(value, dict) and isinstance(section.get(name), dict):
            value = {**section[name], **value}
        section[name] = value
    return result
