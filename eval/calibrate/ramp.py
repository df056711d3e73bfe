"""Searcher `ramp`: YaRN's two borders and temperature, by Optuna's Parzen estimator (TPE).

A proposal is a function of the seed and the finished trials, so a killed search resumes exactly.
"""

import math
from collections.abc import Sequence
from types import ModuleType
from typing import Any

from ropewalk.conf.errors import ConfigError
from ropewalk.eval.calibrate.trial import Candidate, Trial

RANDOM_FIRST = 8
"""Random proposals before the estimator starts (Optuna's default is 10)."""


def propose(finished: Sequence[Trial], *, seed: int, number: int, factor: float) -> Candidate:
    """The next candidate."""
    optuna = _optuna()
    kwargs = {"n_startup_trials": RANDOM_FIRST, "multivariate": True}
    sampler = optuna.samplers.TPESampler(seed=seed * 100_003 + number, **kwargs)
    study, space = optuna.create_study(sampler=sampler), _space(optuna, factor)
    for trial in finished:
        if (params := _params_of(trial.candidate, factor)) is not None:
            study.add_trial(_to_optuna(optuna, trial, params, space))
    return candidate(study.ask(space).params, factor)


def candidate(params: dict[str, float], factor: float) -> Candidate:
    """YaRN with real-valued borders.

    `params`: beta_slow, spread (beta_fast over beta_slow), attention_factor.
    """
    slow = params["beta_slow"]
    borders = {"beta_fast": slow * params["spread"], "beta_slow": slow, "truncate": False}
    temperature = params["attention_factor"]
    settings = {"method": "yarn", "factor": factor, **borders, "attention_factor": temperature}
    return Candidate("ramp", settings, dict(params))


def _space(optuna: ModuleType, factor: float) -> dict[str, Any]:
    """Around the paper's values (1, 32, 0.1 ln s + 1) on both sides."""
    real = optuna.distributions.FloatDistribution
    return {
        "beta_slow": real(0.125, 8.0, log=True),
        "spread": real(1.5, 128.0, log=True),
        "attention_factor": real(0.9, 1 + 0.25 * math.log(factor)),
    }


def _params_of(candidate: Candidate, factor: float) -> dict[str, float] | None:
    """Coordinates of a candidate; None outside the space. YaRN and NTK-by-parts are ramps too."""
    if candidate.searcher != "paper":
        return candidate.params if candidate.searcher == "ramp" else None
    temperatures = {"yarn": 0.1 * math.log(factor) + 1, "ntk_by_parts": 1.0}
    temperature = temperatures.get(candidate.settings["method"])
    if temperature is None:
        return None
    return {"beta_slow": 1.0, "spread": 32.0, "attention_factor": temperature}


def _to_optuna(
    optuna: ModuleType, trial: Trial, params: dict[str, float], space: dict[str, Any]
) -> Any:
    states, full = optuna.trial.TrialState, trial.full
    return optuna.trial.create_trial(
        state=states.PRUNED if full is None else states.COMPLETE,
        value=None if full is None else full.value,
        params=params,
        distributions=space,
        intermediate_values={0: trial.short.value},
    )


def refuse_without_optuna(searcher: str) -> None:
    """Raises: ConfigError."""
    try:
        import optuna  # noqa: F401
    except ImportError:
        raise ConfigError(
            f"calibrate.searcher is {searcher}; it needs optuna, which is not installed; "
            "pip install 'ropewalk[calibrate]' or calibrate.searcher=longrope"
        ) from None


def _optuna() -> ModuleType:
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    return optuna
