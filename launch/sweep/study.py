"""Optuna's study of a search, kept in the sweep's folder: what was tried, and what comes next."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from types import ModuleType
from typing import Any

from ropewalk.conf.artifacts.manifest import first_difference
from ropewalk.conf.errors import ConfigError
from ropewalk.conf.sweeps import SearchConfig
from ropewalk.launch.sweep.space import Choice, Dimension

JOURNAL = "study.journal"
DECIDES = ("objective", "direction", "sampler", "pruner")
"""Settings that a search goes on with; its budget may be raised."""
SPENT = "seconds"
STARTUP_TRIALS = 4
"""Trials before the first may be pruned."""


def optuna() -> ModuleType:
    """Raises: ConfigError where it is not installed."""
    try:
        import optuna
    except ImportError:
        raise ConfigError(
            "sweep is search; it needs optuna, which is not installed; pip install "
            "'ropewalk[calibrate]'"
        ) from None
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    return optuna


@dataclass(frozen=True)
class Study:
    """A search as far as it has come.

    The sampler of a trial is made anew, with a seed of its number, from the trials before it: a
    search that was killed proposes what it would have proposed.
    """

    folder: Path
    settings: SearchConfig
    space: Mapping[str, Dimension]
    words: list[str]
    """What all trials have, as recorded."""
    seed: int = 0
    told: dict[int, int] = field(default_factory=dict)
    """Points of the training loss that each trial has reported."""

    @cached_property
    def study(self) -> Any:
        """Raises: ConfigError for a study of another search."""
        library = optuna()
        from optuna.storages import JournalStorage
        from optuna.storages.journal import JournalFileBackend

        storage = JournalStorage(JournalFileBackend(str(self.folder / JOURNAL)))
        study = library.create_study(
            study_name=self.folder.name,
            storage=storage,
            direction=self.settings.direction,
            pruner=self._pruner(library),
            load_if_exists=True,
        )
        known, asked = study.user_attrs.get("search"), json.loads(json.dumps(self._identity()))
        if known is None:
            study.set_user_attr("search", asked)
        elif difference := first_difference(known, asked):
            raise ConfigError(
                f"{difference}; the search {self.folder.name} goes on with what it was started "
                "with; set it back, or give another sweep.name"
            )
        return study

    def _identity(self) -> dict[str, Any]:
        dimensions = {key: asdict(dimension) for key, dimension in self.space.items()}
        settings = {key: getattr(self.settings, key) for key in DECIDES}
        return {"space": dimensions, "settings": settings, "words": self.words, "seed": self.seed}

    def _pruner(self, library: ModuleType) -> Any:
        if self.settings.pruner == "none":
            return library.pruners.NopPruner()
        return library.pruners.MedianPruner(n_startup_trials=STARTUP_TRIALS)

    def _sampler(self, number: int) -> Any:
        samplers, seed = optuna().samplers, self.seed * 100_003 + number
        if self.settings.sampler == "random":
            return samplers.RandomSampler(seed=seed)
        return samplers.TPESampler(seed=seed, constant_liar=True)

    def _distributions(self) -> dict[str, Any]:
        distributions = optuna().distributions
        result: dict[str, Any] = {}
        for key, dimension in self.space.items():
            if isinstance(dimension, Choice):
                result[key] = distributions.CategoricalDistribution(dimension.values)
            elif dimension.is_whole:
                low, high = int(dimension.low), int(dimension.high)
                result[key] = distributions.IntDistribution(low, high, log=dimension.is_log)
            else:
                low_high = (dimension.low, dimension.high)
                result[key] = distributions.FloatDistribution(*low_high, log=dimension.is_log)
        return result

    @property
    def trials(self) -> list[Any]:
        """All of them, as Optuna has them."""
        return self.study.get_trials(deepcopy=False)  # type: ignore[no-any-return]

    def unfinished(self) -> list[Any]:
        """Trials that were proposed and not ended: of a search that was stopped or killed."""
        return [trial for trial in self.trials if not trial.state.is_finished()]

    def propose(self) -> Any:
        """The next trial."""
        self.study.sampler = self._sampler(len(self.trials))
        self.study.ask(self._distributions())
        return self.trials[-1]

    def values(self, trial: Any) -> dict[str, str]:
        """Its settings as they are typed."""
        return {key: self.space[key].text(value) for key, value in trial.params.items()}

    def spend(self, trial: Any, seconds: float) -> None:
        """Add to the time of a trial, over its attempts."""
        live = self._live(trial)
        live.set_user_attr(SPENT, round(trial.user_attrs.get(SPENT, 0.0) + seconds, 1))

    def _live(self, trial: Any) -> Any:
        return optuna().trial.Trial(self.study, trial._trial_id)

    def spent_s(self) -> float:
        """Seconds of all trials."""
        return float(sum(trial.user_attrs.get(SPENT, 0.0) for trial in self.trials))

    def has_budget(self, gpus: int) -> bool:
        """Whether another trial may start. `gpus`: of each trial."""
        settings, spent = self.settings, self.spent_s()
        if len(self.trials) >= settings.trials:
            return False
        if settings.minutes is not None and spent >= settings.minutes * 60:
            return False
        return settings.gpu_hours is None or spent * gpus < settings.gpu_hours * 3600

    def tell(self, trial: Any, value: float) -> None:
        self.study.tell(trial.number, value)

    def tell_pruned(self, trial: Any) -> None:
        self.study.tell(trial.number, state=optuna().trial.TrialState.PRUNED)

    def tell_failed(self, trial: Any, reason: str) -> None:
        self._live(trial).set_user_attr("reason", reason)
        self.study.tell(trial.number, state=optuna().trial.TrialState.FAIL)

    def is_pruned(self, trial: Any, losses: Mapping[int, float], steps: int) -> bool:
        """Report the training loss at every tenth of the steps that was reached since the last
        look; whether Optuna's pruner gives the trial up. `losses`: by step, from 1."""
        live = self._live(trial)
        for tenth in range(self.told.get(trial.number, 0) + 1, 10):
            step = max(1, steps * tenth // 10)
            if step not in losses:
                break
            live.report(losses[step], step)
            self.told[trial.number] = tenth
            if live.should_prune():
                return True
        return False

    def best(self) -> Any:
        """The best finished trial; None without one."""
        state = optuna().trial.TrialState.COMPLETE
        finished = [trial for trial in self.trials if trial.state == state]
        sign = 1 if self.settings.direction == "minimize" else -1
        return min(finished, key=lambda trial: sign * trial.value, default=None)
