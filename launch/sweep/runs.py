"""The runs of a sweep: their words and settings, all checked before the first starts."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from ropewalk.conf.artifacts.folders import RUNS_DIR
from ropewalk.conf.errors import ConfigError
from ropewalk.conf.schema import Config
from ropewalk.launch.config import compose
from ropewalk.launch.config.overrides import Override
from ropewalk.launch.sweep import grid
from ropewalk.launch.sweep.chosen import Chosen

STAND_IN = "yarn"
"""For a table that is not searched yet: a method with the same settings beside it."""
OWN = ("rope", "rope.path", "seed", "name")
"""What runs of one calibration may differ in."""


@dataclass(frozen=True)
class PlannedRun:
    """One run of a sweep."""

    words: tuple[str, ...]
    """What gives this run, without the sweep."""
    config: Config
    """Of a run whose table is searched first: with `STAND_IN` in its place."""
    calibration: "PlannedRun | None" = None
    """The search of its table, which several runs may share."""

    @property
    def name(self) -> str:
        return self.config.name

    def words_in(self, sweep: str) -> tuple[str, ...]:
        """The words of its job, which group it with the sweep's other runs in the trackers."""
        own = self.config.train.metrics.group
        return self.words if own else (*self.words, f"train.metrics.group={sweep}")


def planned_runs(chosen: Chosen, verb: str) -> list[PlannedRun]:
    """Every combination, in the order of the words.

    Raises: ConfigError with the problems of all runs, each line once.
    """
    searched: dict[tuple[str, ...], PlannedRun] = {}
    runs, problems = list[PlannedRun](), dict[str, None]()
    for words in grid.sweep(chosen.words):
        try:
            runs.append(_planned(words, chosen.settings.calibrated, searched, verb))
        except ConfigError as error:
            problems |= dict.fromkeys(str(error).splitlines())
    if problems:
        raise ConfigError("\n".join(problems))
    return runs


def _planned(
    words: Sequence[str],
    calibrated: Mapping[str, Sequence[str]],
    searched: dict[tuple[str, ...], PlannedRun],
    verb: str,
) -> PlannedRun:
    values = _values(words)
    method = values.get("rope") or ""
    if method == "none" and calibrated:
        words = _unscaled(words, verb)
    if method not in calibrated or "rope.path" in values:
        return PlannedRun(tuple(words), compose.compose(words, verb))
    config = compose.compose(_with(words, rope=STAND_IN), verb)
    key = tuple(word for word in words if Override.of(word).key not in OWN)
    if (method, *key) not in searched:
        name = f"{config.name}-search"
        search = [*_with(words, rope=STAND_IN, name=name), *calibrated[method]]
        settings = compose.compose(search, "calibrate")
        searched[method, *key] = PlannedRun(tuple(search), settings)
    calibration = searched[method, *key]
    path = f"{values.get('runs_dir') or RUNS_DIR}/{calibration.name}/calibration/rope.json"
    run = [*_with(words, rope="table"), f"rope.path={path}"]
    return PlannedRun(tuple(run), replace(config), calibration)


def _unscaled(words: Sequence[str], verb: str) -> list[str]:
    """The base's own table with the window of the others, which rope=none keeps at the base's."""
    from ropewalk.train.base import base_config, locate

    config = compose.compose(words, verb)
    base = base_config(locate(config.model, Path(config.cache_dir).expanduser()))
    theta = base.get_text_config(decoder=True).rope_parameters["rope_theta"]
    return [*_with(words, rope="abf"), f"rope.rope_theta={theta}"]


def _values(words: Iterable[str]) -> dict[str, str | None]:
    return {word.key: word.value for word in map(Override.of, words)}


def _with(words: Iterable[str], **values: str) -> list[str]:
    """Words with other values of some settings that they have."""
    parsed = [Override.of(word) for word in words]
    return [f"{w.key}={values[w.key]}" if w.key in values else w.word for w in parsed]


def calibrations(runs: Sequence[PlannedRun]) -> list[PlannedRun]:
    """The searches of tables, each once."""
    return [*{run.calibration.name: run.calibration for run in runs if run.calibration}.values()]
