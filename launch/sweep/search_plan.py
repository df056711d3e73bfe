"""A search before its first trial: every border and value checked."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ropewalk.conf.errors import ConfigError
from ropewalk.conf.schema import Config
from ropewalk.launch.config import compose
from ropewalk.launch.sweep import naming, objective, runner, space
from ropewalk.launch.sweep.chosen import Chosen
from ropewalk.launch.sweep.runs import PlannedRun
from ropewalk.launch.sweep.study import Study

VERBS = ("run", "train", "eval")


@dataclass(frozen=True)
class Search:
    """A search that is checked: what its trials have, and what they vary."""

    chosen: Chosen
    verb: str
    words: list[str]
    """What all trials have."""
    dimensions: dict[str, space.Dimension]
    config: Config
    """Of a trial, for what all of them share."""
    folder: Path

    @property
    def runs_dir(self) -> Path:
        return self.folder.parent.parent

    def name_of(self, trial: Any) -> str:
        """Of a trial's run."""
        return f"{self.folder.name}-{trial.number}"

    def run_of(self, trial: Any, study: Study) -> PlannedRun:
        """Raises: ConfigError for settings that do not go together."""
        values = [f"{key}={value}" for key, value in study.values(trial).items()]
        words = [*self.words, *values, f"name={self.name_of(trial)}"]
        return PlannedRun(tuple(words), compose.compose(words, self.verb))


def plan(chosen: Chosen, verb: str) -> Search:
    """A search whose borders and values are all checked. Raises: ConfigError."""
    if verb not in VERBS:
        raise ConfigError(f"sweep is search; {verb} ends in no objective; use {', '.join(VERBS)}")
    objective.check(chosen.settings.search.objective, verb)
    words, dimensions = space.split(chosen.words, chosen.settings.search.space)
    if not dimensions:
        raise ConfigError(
            "sweep is search; something must be searched, and every setting has one value; e.g. "
            "train.optimizer.lr='log(1e-5,1e-3)'"
        )
    name = chosen.settings.name or naming.sweep_name(Chosen(chosen.settings, words, "search"))
    words = [word for word in words if not word.startswith("name=")]
    config = check(words, dimensions, verb)
    folder = runner.sweep_folder(config, name)
    return Search(chosen, verb, words, dimensions, config, folder)


def check(words: list[str], dimensions: dict[str, space.Dimension], verb: str) -> Config:
    """Compose every border and value once. Raises: ConfigError with all problems."""
    first = {key: dimension.samples()[0] for key, dimension in dimensions.items()}
    problems, config = dict[str, None](), None
    for key, dimension in dimensions.items():
        for value in dimension.samples():
            values = [f"{k}={v}" for k, v in {**first, key: value}.items()]
            try:
                config = compose.compose([*words, *values, "name=trial"], verb)
            except ConfigError as error:
                problems |= dict.fromkeys(str(error).splitlines())
    if problems or config is None:
        raise ConfigError("\n".join(problems))
    return config
