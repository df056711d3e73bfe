"""Settings declare their rule beside type and default; one walker checks all of them."""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import MISSING, Field, dataclass, field, fields, is_dataclass
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

LARGEST = 2**63 - 1
"""Of whole numbers: torch's seeds, and numbers of tokens in tables of 64 bits."""


@dataclass(frozen=True)
class Rule:
    """The values that a setting may have; of a list or a mapping, each of its items."""

    one_of: tuple[object, ...] = ()
    at_least: float = -math.inf
    above: float = -math.inf
    at_most: float = math.inf
    below: float = math.inf
    way_out: str = ""

    def text(self, value: object) -> str:
        """The rule in words, for a value of this type: `a finite number above 0 and at most 1`."""
        if self.one_of:
            return f"one of {', '.join(map(str, self.one_of))}"
        if value == "":
            return "a text"
        if isinstance(value, int) and abs(value) > LARGEST:
            return f"at most {LARGEST} in size"
        bounds = {
            "at least": self.at_least,
            "above": self.above,
            "at most": self.at_most,
            "below": self.below,
        }
        text = " and ".join(f"{word} {_digits(n)}" for word, n in bounds.items() if _is_bound(n))
        if isinstance(value, int):
            return text
        return f"a finite number {'of ' if text.startswith('at ') else ''}{text}".rstrip()

    def allows(self, value: object) -> bool:
        if self.one_of:
            return value in self.one_of
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            return value != ""
        if isinstance(value, int) and abs(value) > LARGEST:
            return False
        return math.isfinite(value) and not self._excess(value)

    def _excess(self, value: float) -> str:
        """How to bring the number into its range; empty when it is inside."""
        if value < self.at_least or value <= self.above:
            return "raise it"
        if value > self.at_most or value >= self.below:
            return "lower it"
        return ""

    def correction(self, value: object) -> str:
        if self.one_of:  # YAML reads a bare off as false
            bare = "off" in self.one_of and str(value) == "False"
            near = get_close_matches(str(value), map(str, self.one_of), 1)
            hint = f"did you mean {near[0]}? " if near else ""
            return hint + (self.way_out or ('write "off" in quotes' if bare else "choose one"))
        if value == "":
            return self.way_out or "leave it out"
        assert isinstance(value, (int, float)), value
        return self.way_out or self._excess(value) or "set a number"


def _is_bound(number: float) -> bool:
    return abs(number) != math.inf


def _digits(number: float) -> str:
    return str(number) if isinstance(number, int) else f"{number:g}"


def setting(
    default: object = MISSING,
    *,
    factory: Callable[[], Any] | None = None,
    fingerprint: bool | Literal["if_set"] = True,
    **rule: Any,
) -> Any:
    """A dataclass field with a rule.

    `fingerprint`: False for a setting that does not affect a stage's output (speed, logging,
    paths); "if_set" for one that is left out of the fingerprint while it has its default, so
    that adding it does not invalidate earlier results. `rule`: the fields of `Rule`.
    """
    metadata = {"rule": Rule(**rule), "fingerprint": fingerprint}
    if factory is not None:
        return field(default_factory=factory, metadata=metadata)
    return field(default=default, metadata=metadata)


def problems(section: "DataclassInstance", prefix: str = "") -> Iterator[str]:
    """One line for each value in a section and its sub-sections that breaks its rule or a
    condition (`problems`) of the section."""
    for item in fields(section):
        rule = item.metadata.get("rule", Rule())
        yield from _value_problems(f"{prefix}{item.name}", getattr(section, item.name), rule)
    conditions = getattr(section, "problems", None)
    if conditions is not None:
        yield from conditions(prefix)


def _value_problems(key: str, value: object, rule: Rule) -> Iterator[str]:
    if is_dataclass(value) and not isinstance(value, type):
        yield from problems(value, f"{key}.")
    elif isinstance(value, Mapping):
        for name, item in value.items():
            yield from _value_problems(f"{key}.{name}", item, rule)
    elif isinstance(value, Sequence) and not isinstance(value, str):
        for index, item in enumerate(value):
            yield from _value_problems(f"{key}[{index}]", item, rule)
    elif value is not None and not rule.allows(value):
        shown = "empty" if value == "" else value
        yield f"{key} is {shown}; it must be {rule.text(value)}; {rule.correction(value)}"


def content(section: object) -> Any:
    """A section as plain values, for a fingerprint: without settings that do not affect a
    stage's output."""
    if is_dataclass(section) and not isinstance(section, type):
        return {
            f.name: content(getattr(section, f.name))
            for f in fields(section)
            if in_fingerprint(f, getattr(section, f.name))
        }
    if isinstance(section, dict):
        return {str(key): content(value) for key, value in section.items()}
    if isinstance(section, (list, tuple)):
        return [content(value) for value in section]
    return section


def in_fingerprint(setting: "Field[Any]", value: object) -> bool:
    fingerprint = setting.metadata.get("fingerprint", True)
    return not is_default(setting, value) if fingerprint == "if_set" else bool(fingerprint)


def is_default(setting: "Field[Any]", value: object) -> bool:
    factory: Any = setting.default_factory
    return bool(value == (factory() if setting.default is MISSING else setting.default))
