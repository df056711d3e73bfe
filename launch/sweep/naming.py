"""The name of a sweep, and which run is its baseline."""

from collections.abc import Sequence

from ropewalk.launch.config.overrides import Override
from ropewalk.launch.sweep.chosen import Chosen
from ropewalk.launch.sweep.grid import shortened, swept_keys
from ropewalk.launch.sweep.runs import PlannedRun


def sweep_name(chosen: Chosen) -> str:
    """`NAME-GROUP` of `sweep=GROUP`, else `NAME-KEY-KEY` of what is swept."""
    values = {word.key: word.value for word in map(Override.of, chosen.words)}
    name = values.get("name") or values.get("recipe") or "custom"
    base = name.replace(",", "+")
    keys = [key.rpartition(".")[2] for key in swept_keys(chosen.words)]
    return shortened("-".join([base, *([chosen.group] if chosen.group else keys)]))


def baseline_run(baseline: str | None, runs: Sequence[PlannedRun]) -> str:
    """The run of that name, or the first that has it as a value; without one the first."""
    if baseline is not None:
        for run in runs:
            values = [word.value for word in map(Override.of, run.words)]
            if baseline == run.name or baseline in (*values, *run.name.split("-")):
                return run.name
    return runs[0].name
