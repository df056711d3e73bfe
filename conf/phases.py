"""Phases: a run as a chain of trainings, each with further settings and the previous one's weights.

Every phase is a run of its own (rope, data, train; a folder, a ledger, checkpoints); the last
phase is the run that the user named. The rope plan of every phase starts from the base's own
table, so its factor always counts from the original window.
"""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ropewalk.conf.artifacts.folders import name_problem, shortened

if TYPE_CHECKING:
    from ropewalk.conf.schema import Config

FOLDER = "phases"
SECTIONS = ("rope", "data", "train")
PHASE_KEYS = ("name", "carry_optimizer")
"""Keys of a phase that are not settings of the run."""
REPLACED_MAPPINGS = ("length_weights", "buckets", "where")
"""Settings whose mapping is replaced as one value; by ranges such as `<4K`, or by columns."""


def problems(phases: Sequence[object]) -> Iterator[str]:
    """Problems of the list itself; the settings of a phase are checked with the rest of the
    run's."""
    for number, phase in enumerate(phases):
        prefix = f"phases[{number}]"
        if not isinstance(phase, Mapping):
            yield (
                f"{prefix} is {phase}; it must be settings by key; e.g. {{data.seq_len: 65536, "
                "train.steps: 200}"
            )
            continue
        for key in map(str, phase):
            if key not in PHASE_KEYS and key.split(".")[0] not in SECTIONS:
                yield (
                    f"{prefix}.{key} is {phase[key]}; a phase sets {', '.join(PHASE_KEYS)}, "
                    f"mixture and what begins with {', '.join(f'{name}.' for name in SECTIONS)}; "
                    "set it for the whole run"
                )
        name = str(phase.get("name") or "phase")
        if reason := name_problem(name):
            yield (
                f"{prefix}.name is {shortened(name)}; it must be a plain folder name, and "
                f"{reason}; e.g. short"
            )
        yield from _carry_problems(prefix, number, phase.get("carry_optimizer", False))


def _carry_problems(prefix: str, number: int, carry_optimizer: object) -> Iterator[str]:
    if not isinstance(carry_optimizer, bool):
        yield (
            f"{prefix}.carry_optimizer is {carry_optimizer}; it must be true or false; false "
            "resets the moments"
        )
    elif carry_optimizer and number == 0:
        yield (
            f"{prefix}.carry_optimizer is True; nothing is trained before the first phase; leave "
            "it out"
        )


def settings(phase: Mapping[str, Any]) -> dict[str, Any]:
    """The settings that a phase changes, by key."""
    return {str(key): value for key, value in phase.items() if key not in PHASE_KEYS}


def folder(phases: Sequence[Any], number: int) -> str:
    """The name of phase `number` (from 1) among the run's phases: `2-long`, or `2` without a
    name."""
    name = phases[number - 1].get("name")
    return f"{number}-{name}" if name else str(number)


def previous_run_dir(config: "Config") -> Path | None:
    """The run whose model this phase starts from; None for the first, and without phases."""
    if config.phase < 2:
        return None
    runs = Path(config.runs_dir).expanduser()
    parent = runs / config.name / FOLDER if config.phase == len(config.phases) else runs
    return parent / folder(config.phases, config.phase - 1)


def carries_optimizer(config: "Config") -> bool:
    """Whether this phase continues with the previous phase's optimizer."""
    return config.phase > 1 and bool(config.phases[config.phase - 1].get("carry_optimizer"))


def passes_optimizer_on(config: "Config") -> bool:
    """Whether the next phase continues with this phase's optimizer."""
    return 0 < config.phase < len(config.phases) and bool(
        config.phases[config.phase].get("carry_optimizer")
    )


def cache_key(config: "Config") -> dict[str, bool]:
    """The phase's part of the train stage's content; empty by default, when no optimizer is
    carried."""
    carried = {
        "carry_optimizer": carries_optimizer(config),
        "hands_on_optimizer": passes_optimizer_on(config),
    }
    return {key: value for key, value in carried.items() if value}


def title(config: "Config") -> str:
    """Prefix of log lines: `phase 1/2 (short): `, empty without phases."""
    if not config.phase:
        return ""
    name = config.phases[config.phase - 1].get("name")
    return f"phase {config.phase}/{len(config.phases)}{f' ({name})' if name else ''}: "


def metrics_fields(config: "Config") -> dict[str, int]:
    """Fields of the phase in each line of metrics.jsonl."""
    return {"phase": config.phase} if config.phase else {}
