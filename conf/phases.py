"""Phases: a run as a chain of trainings, each with settings of its own on top of the run's, each from the weights of the one before.

Every phase is a run by itself (rope, data, train; a folder, a ledger, checkpoints); the last one is the run that was named. The rope
plan of each is made of the base's own table, so its factor counts from the original window whatever came before it.
"""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ropewalk.conf.schema import Config

FOLDER = "phases"
SECTIONS = ("rope", "data", "train")
OWN = ("name", "carry_optimizer")
"""What a phase says of itself, beside settings."""


def problems(phases: Sequence[Any]) -> Iterator[str]:
    """Of the list as such; what a phase sets is checked with the rest of the run's settings."""
    for number, phase in enumerate(phases):
        at = f"phases[{number}]"
        if not isinstance(phase, Mapping):
            yield f"{at} is {phase}; it must be settings by key; e.g. {{data.seq_len: 65536, train.steps: 200}}"
            continue
        for key in map(str, phase):
            if key not in OWN and key.split(".")[0] not in SECTIONS:
                yield (
                    f"{at}.{key} is {phase[key]}; a phase sets {', '.join(OWN)} and what begins with {', '.join(f'{s}.' for s in SECTIONS)}; "
                    "set it for the whole run"
                )
        name = str(phase.get("name", ""))
        if "/" in name or name.startswith("."):
            yield f"{at}.name is {name}; it must be a plain folder name; e.g. short"
        yield from _carry_problems(at, number, phase.get("carry_optimizer", False))


def _carry_problems(at: str, number: int, carried: Any) -> Iterator[str]:
    if not isinstance(carried, bool):
        yield f"{at}.carry_optimizer is {carried}; it must be true or false; false starts the moments anew"
    elif carried and number == 0:
        yield f"{at}.carry_optimizer is True; nothing is trained before the first phase; leave it out"


def settings(phase: Mapping[str, Any]) -> dict[str, Any]:
    """What a phase changes, by key."""
    return {str(key): value for key, value in phase.items() if key not in OWN}


def folder(phases: Sequence[Any], number: int) -> str:
    """The name of phase `number` (from 1) among the run's phases: `2-long`, or `2` without a name."""
    name = phases[number - 1].get("name")
    return f"{number}-{name}" if name else str(number)


def previous_run_dir(config: "Config") -> Path | None:
    """The run whose model this phase starts from; None for the first, and without phases."""
    if config.phase < 2:
        return None
    runs = Path(config.runs_dir).expanduser()
    beside = runs / config.name / FOLDER if config.phase == len(config.phases) else runs
    return beside / folder(config.phases, config.phase - 1)


def carries_optimizer(config: "Config") -> bool:
    """Whether this phase goes on with the optimizer of the one before."""
    return config.phase > 1 and bool(config.phases[config.phase - 1].get("carry_optimizer"))


def passes_optimizer_on(config: "Config") -> bool:
    """Whether the next phase goes on with the optimizer of this one."""
    return 0 < config.phase < len(config.phases) and bool(
        config.phases[config.phase].get("carry_optimizer")
    )


def cache_key(config: "Config") -> dict[str, bool]:
    """What of this its training is made of; nothing where no optimizer is carried, which is the default."""
    said = {
        "carry_optimizer": carries_optimizer(config),
        "hands_on_optimizer": passes_optimizer_on(config),
    }
    return {key: value for key, value in said.items() if value}


def title(config: "Config") -> str:
    """For lines of the log: `phase 1/2 (short): `, empty without phases."""
    if not config.phase:
        return ""
    name = config.phases[config.phase - 1].get("name")
    return f"phase {config.phase}/{len(config.phases)}{f' ({name})' if name else ''}: "


def metrics_fields(config: "Config") -> dict[str, int]:
    """What a step's line of metrics.jsonl says of it."""
    return {"phase": config.phase} if config.phase else {}
