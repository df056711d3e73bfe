"""Words of the command line for phases, `phases.*.train.steps=2`, and a phase's own `mixture`.

A phase's settings stand on top of the run's, so `train.steps=2` alone does not reach a phase that
sets its steps. `phases.*.KEY=VALUE` sets KEY in every phase, `phases.NAME.KEY=VALUE` and
`phases[N].KEY=VALUE` (from 0) in one. Both this and a mixture are put into the phases here, so the
frozen settings have plain values.
"""

import re
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from omegaconf import DictConfig, OmegaConf

from ropewalk.conf.phases import REPLACED_MAPPINGS, SECTIONS, settings
from ropewalk.conf.sources import SourceConfig
from ropewalk.launch.config.overrides import Override, typed
from ropewalk.launch.config.values import LEFT_OUT, Converter, Scalar

_WORD = re.compile(r"phases(?:\[(?P<number>\d+)\]|\.(?P<name>[^.\[\]]+))\.(?P<key>.+)")
_METHODS = ("rope", "rope.method")


@dataclass(frozen=True)
class PhaseWord:
    """`phases.SELECTOR.KEY=VALUE`, converted to the declared type of KEY."""

    selector: str  # `phases.*`, `phases.NAME` or `phases[N]`
    key: str
    value: Any

    def selects(self, number: int, phase: Mapping[str, Any]) -> bool:
        name = self.selector.removeprefix("phases.")
        return name == "*" or name == phase.get("name") or self.selector == f"phases[{number}]"


def read(word: Override) -> tuple[PhaseWord | None, list[str]]:
    """The word if it is one for phases, and its problems, a line each."""
    match = _WORD.fullmatch(word.key)
    if match is None or word.removes:
        return None, []
    key, selector = match["key"], word.key.removesuffix(f".{match['key']}")
    if key.split(".")[0] not in (*SECTIONS, "carry_optimizer", "mixture"):
        return None, [
            f"{word.key} is {word.value}; phases differ in what begins with "
            f"{', '.join(f'{section}.' for section in SECTIONS)}, in carry_optimizer and mixture; "
            f"set {key} for the whole run"
        ]
    if word.value == "null" and LEFT_OUT.fullmatch(key):
        value, problems = None, []
    elif word.value is not None and key in ("rope", "mixture", "carry_optimizer"):
        converter = Converter()
        kind = bool if key == "carry_optimizer" else str
        value = converter.convert(Scalar(word.value), word.key, kind)
        problems = converter.problems
    else:
        value, problems = typed(Override(word.word, key, word.value))
        problems = [f"{selector}.{line}" for line in problems]
    return PhaseWord(selector, key, value), problems


def put(phases: list[Any], words: Sequence[PhaseWord]) -> list[str]:
    """Set the words' values in the phases, in place. Returns a line for each that has no phase."""
    problems = []
    for word in words:
        chosen = [
            phase
            for number, phase in enumerate(phases)
            if isinstance(phase, dict) and word.selects(number, phase)
        ]
        if not chosen:
            names = [p.get("name") or f"[{n}]" for n, p in enumerate(phases) if isinstance(p, dict)]
            known = f"its phases are {', '.join(names)}" if names else "the run has no phases"
            way_out = "name one of them, or *" if names else f"set {word.key}"
            problems.append(f"{word.selector}.{word.key} sets nothing; {known}; {way_out}")
        for phase in chosen:
            for key in _METHODS if word.key in _METHODS else (word.key,):
                phase.pop(key, None)
            phase[word.key] = word.value  # the last key wins over a section that has it
    return problems


def with_mixtures(
    phases: Sequence[Any], run: DictConfig, composed: Callable[[str], DictConfig]
) -> list[Any]:
    """The phases with `mixture: NAME` in the place of what the preset sets.

    `composed(NAME)`: the run's values under that preset.
    """
    return [
        {**_changes(run, composed(str(phase["mixture"]))), **_without(phase, "mixture")}
        if isinstance(phase, dict) and phase.get("mixture") is not None
        else phase
        for phase in phases
    ]


def _without(phase: Mapping[str, Any], name: str) -> dict[str, Any]:
    return {key: value for key, value in phase.items() if key != name}


def _changes(run: DictConfig, other: DictConfig) -> dict[str, Any]:
    """The keys of `data` that differ under another preset, with its values.

    A source that only the run's preset gave a weight has none there: it is left out.
    """
    before, after = (_section(values, "data") for values in (run, other))
    sources: dict[str, Any] = after.pop("sources")
    old: dict[str, Any] = before.pop("sources")
    changes = {f"data.{key}": value for key, value in after.items() if before[key] != value}
    defaults = asdict(SourceConfig())
    for name, source in sources.items():
        was = old.get(name, defaults)
        if was["weight"] is not None and source["weight"] is None:
            changes[f"data.sources.{name}"] = None
            continue
        different = {key: value for key, value in source.items() if was.get(key) != value}
        changes |= {f"data.sources.{name}.{key}": value for key, value in different.items()}
    return changes


def _section(values: DictConfig, name: str) -> dict[str, Any]:
    section = OmegaConf.to_container(values[name])
    assert isinstance(section, dict)
    return {str(key): value for key, value in section.items()}


def idle_problems(
    phases: Sequence[Any],
    values: Mapping[str, Any],
    method: str | None,
    words: Sequence[PhaseWord] = (),
) -> list[str]:
    """A line for each setting of the command line that every phase sets anew: it has no effect.

    One that some of a recipe's phases set is told on stderr. `values`: of the command line, nested;
    `method`: of `rope=METHOD`; `words`: settings that the command line gives to phases too.
    """
    listed = [_leaves(settings(phase)) for phase in phases if isinstance(phase, dict)]
    given = {key: v for key, v in _leaves(values).items() if key.split(".")[0] in SECTIONS}
    given |= {"rope": method} if method else {}
    for word in words:
        given.pop(word.key, None)
    problems = []
    for key, value in given.items():
        aliases = _METHODS if key in _METHODS else (key,)
        own = [n for n, phase in enumerate(listed) if any(a in phase for a in aliases)]
        if own and len(own) == len(listed):
            problems.append(
                f"{key} is {value}; every phase sets it, so this changes nothing; write "
                f"'phases.*.{key}={value}' for all of them"
            )
        elif own and "phases" not in values:
            names = ", ".join(f"phases[{n}]" for n in own)
            text = f"{key}={value} does not reach {names}, which set it; 'phases.*.{key}=' does"
            print(f"note: {text}", file=sys.stderr)
    return problems


def _leaves(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested or dotted settings by their dotted key."""
    leaves: dict[str, Any] = {}
    for name, value in values.items():
        key = f"{prefix}{name}"
        if isinstance(value, Mapping) and value and not key.endswith(REPLACED_MAPPINGS):
            leaves |= _leaves(value, f"{key}.")
        else:
            leaves[key] = value
    return leaves


def mixtures(phases: Sequence[Any]) -> list[str]:
    """The presets that phases choose."""
    chosen = [phase.get("mixture") for phase in phases if isinstance(phase, dict)]
    return [str(name) for name in chosen if name is not None]
