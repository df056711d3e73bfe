"""Searcher `ramp`: YaRN's two borders and its temperature, by Optuna's tree-structured Parzen estimator.

A proposal is a function of the seed and of what was measured before it: a search that was killed goes on as if it had not been.
"""

import math
from collections.abc import Sequence
from typing import Any

from ropewalk.conf.errors import ConfigError
from ropewalk.eval.calibrate.trial import Candidate, Trial

RANDOM_FIRST = 8
"""Proposals at random before the estimator speaks (Optuna's own default is 10)."""


def propose(finished: Sequence[Trial], *, seed: int, number: int, factor: float) -> Candidate:
    """The next candidate."""
    optuna = _optuna()
    sampler = optuna.samplers.TPESampler(
        seed=seed * 100_003 + number, n_startup_trials=RANDOM_FIRST, multivariate=True
    )
    study, space = optuna.create_study(sampler=sampler), _space(optuna, factor)
    for trial in finished:
        if (place := _place(trial.candidate, factor)) is not None:
            study.add_trial(_told(optuna, trial, place, space))
    return candidate(study.ask(space).params, factor)


def candidate(place: dict[str, float], factor: float) -> Candidate:
    """YaRN with real-valued borders. `place`: beta_slow, spread (beta_fast over beta_slow), attention_factor."""
    settings = {
        "method": "yarn",
        "factor": factor,
        "beta_fast": place["beta_slow"] * place["spread"],
        "beta_slow": place["beta_slow"],
        "attention_factor": place["attention_factor"],
        "truncate": False,
    }
    return Candidate("ramp", settings, dict(place))


def _space(optuna: Any, factor: float) -> dict[str, Any]:
    """Around the paper's values (1, 32, 0.1 ln s + 1) on both sides."""
    real = optuna.distributions.FloatDistribution
    return {
        "beta_slow": real(0.125, 8.0, log=True),
        "spread": real(1.5, 128.0, log=True),
        "attention_factor": real(0.9, 1 + 0.25 * math.log(factor)),
    }


def _place(known: Candidate, factor: float) -> dict[str, float] | None:
    """Where a candidate lies in the space; of the papers' methods, those that are a ramp with YaRN's borders."""
    if known.searcher != "paper":
        return known.place if known.searcher == "ramp" else None
    temperature = {"yarn": 0.1 * math.log(factor) + 1, "ntk_by_parts": 1.0}.get(
        known.settings["method"]
    )
    return (
        None
        if temperature is None
        else {"beta_slow": 1.0, "spread": 32.0, "attention_factor": temperature}
    )


def _told(optuna: Any, trial: Trial, place: dict[str, float], space: dict[str, Any]) -> Any:
    states, whole = optuna.trial.TrialState, trial.whole
    return optuna.trial.create_trial(
        state=states.PRUNED if whole is None else states.COMPLETE,
        value=None if whole is None else whole.value,
        params=place,
        distributions=space,
        intermediate_values={0: trial.short.value},
    )


def refuse_without_optuna(searcher: str) -> None:
    """Raises: ConfigError."""
    try:
        import optuna  # noqa: F401
    except ImportError:
        raise ConfigError(
            f"calibrate.searcher is {searcher}; it needs optuna, which is not installed; pip install 'ropewalk[calibrate]' "
            "or calibrate.searcher=longrope"
        ) from None


def _optuna() -> Any:
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    return optuna
