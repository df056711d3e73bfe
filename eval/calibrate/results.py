"""The content of `calibration/results.json`: the choice, its cost and its gain. Pure."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from ropewalk.data.dataset import Window
from ropewalk.eval.calibrate.choice import MIN_DOCUMENTS, Choice
from ropewalk.eval.calibrate.search import SearchSetup
from ropewalk.eval.calibrate.trial import Trial, objective_per_window, spent, split_at_window
from ropewalk.eval.measure import statistics
from ropewalk.eval.measure.statistics import Resamples
from ropewalk.train.rope.plan import RopePlan

BINS = 16
REFERENCE = "yarn"  # with the paper's settings: the choice without a calibration


def results(
    plan: RopePlan,
    setup: SearchSetup,
    trials: Sequence[Trial],
    choice: Choice,
    losses: Mapping[str, np.ndarray],
    chosen_on: Sequence[Window],
    reported_on: Sequence[Window],
) -> dict[str, Any]:
    """`losses`: (N, S-1) on the reported windows by name: `none`, the methods, `calibrated`."""
    draws = statistics.resamples([w.origin for w in reported_on], setup.seed)
    measured = {name: method(nll, losses[REFERENCE], draws, setup) for name, nll in losses.items()}
    gain, reported = measured["calibrated"]["difference"], documents(reported_on)
    budget = {"passes": setup.config.max_forward_passes, "spent": round(spent(trials), 3)}
    pruned = sum(t.full is None for t in trials)
    return {
        "schema": 1,
        "base_window": setup.window,
        "original_max_position_embeddings": plan.original_max_position_embeddings,
        "max_position_embeddings": plan.max_position_embeddings,
        "factor": plan.factor,
        "search_length": setup.windows.shape[1],
        "prefix": setup.prefix,
        "inside_weight": setup.config.inside_weight,
        "chosen_on": documents(chosen_on),
        "reported_on": reported,
        "budget": {**budget, "trials": len(trials), "pruned": pruned},
        "chosen": choice_row(choice),
        "methods": measured,
        "gain": {"over": REFERENCE, **gain},
        "verdict": verdict(gain["value"], reported["documents"]),
        "trials": [trial_row(t) for t in trials],
    }


def choice_row(choice: Choice) -> dict[str, Any]:
    candidate = choice.trial.candidate
    return {
        "trial": choice.trial.number,
        "searcher": candidate.searcher,
        "settings": candidate.settings,
        "lowest": choice.lowest.number,
        "kept": choice.reason,
    }


def documents(windows: Sequence[Window]) -> dict[str, Any]:
    names = sorted({w.origin: w.document for w in windows}.values())
    return {"documents": len(names), "windows": len(windows), "names": names}


def method(
    nll: np.ndarray, reference: np.ndarray, draws: Resamples, setup: SearchSetup
) -> dict[str, Any]:
    """A method's loss by position, inside and beyond, and its difference to the reference."""
    return {
        "nll_by_position": statistics.by_position(nll, draws, max(1, (nll.shape[1] + 1) // BINS)),
        **intervals(nll, draws, setup),
        "difference": intervals(nll - reference, draws, setup),
    }


def intervals(nll: np.ndarray, draws: Resamples, setup: SearchSetup) -> dict[str, Any]:
    """Mean and interval inside the base's window, beyond it, and of the objective."""
    inside, beyond = split_at_window(nll, setup.window)
    value = objective_per_window(nll, setup.window, setup.config.inside_weight)
    parts = {"inside": inside, "beyond": beyond, "value": value}
    return {name: statistics.mean_with_interval(part, draws) for name, part in parts.items()}


def verdict(difference: Mapping[str, float], documents: int) -> str:
    """The verdict in words: better, worse, no gain shown, or too few documents."""
    low, high = difference["low"], difference["high"]
    mean = f"{difference['nll']:+.4f} nats"
    if difference["nll"] == low == high == 0:
        return f"the same plan as {REFERENCE}'s defaults"
    if documents < MIN_DOCUMENTS:
        return (
            f"undecided on {documents} document(s): {mean} against {REFERENCE}'s defaults, "
            f"and {MIN_DOCUMENTS} are needed for an interval"
        )
    text = f"{mean} [{low:+.4f}, {high:+.4f}] against {REFERENCE}'s defaults"
    if high < 0:
        return f"better: {text}"
    return f"worse: {text}" if low > 0 else f"no gain shown: {text}, the interval holds zero"


def trial_row(trial: Trial) -> dict[str, Any]:
    """One row of the search's plot."""
    full = trial.full
    return {
        "number": trial.number,
        "searcher": trial.candidate.searcher,
        "method": trial.candidate.settings["method"],
        "passes": trial.passes,
        "short": trial.short.value,
        **(asdict(full) if full else dict.fromkeys(("inside", "beyond", "value"))),
    }
