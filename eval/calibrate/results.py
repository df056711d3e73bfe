"""The content of `calibration/results.json`: what was found, what it cost, and its gain over the papers' defaults. Pure."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ropewalk.conf.schema import Config
from ropewalk.data.dataset import Window
from ropewalk.eval.calibrate.choice import LEAST, Choice
from ropewalk.eval.calibrate.search import Task
from ropewalk.eval.calibrate.trial import Trial, halves, spent, weighted
from ropewalk.eval.measure import statistics
from ropewalk.train.rope.plan import RopePlan

BINS = 16
REFERENCE = "yarn"  # with the paper's settings: what a user would have taken


def results(
    config: Config,
    plan: RopePlan,
    task: Task,
    trials: Sequence[Trial],
    choice: Choice,
    losses: Mapping[str, np.ndarray],
    chosen_on: Sequence[Window],
    reported_on: Sequence[Window],
) -> dict[str, Any]:
    """`losses`: name -> (N, S-1) on the stretches reported on; `none`, the papers' methods and `calibrated`."""
    draws = statistics.resamples([w.document for w in reported_on], config.seed)
    measured = {name: method(nll, losses[REFERENCE], draws, task) for name, nll in losses.items()}
    return {
        "schema": 1,
        "base_window": task.window,
        "original_max_position_embeddings": plan.original_max_position_embeddings,
        "max_position_embeddings": plan.max_position_embeddings,
        "factor": plan.factor,
        "search_length": task.windows.shape[1],
        "prefix": task.prefix,
        "inside_weight": config.calibrate.inside_weight,
        "chosen_on": text(chosen_on),
        "reported_on": text(reported_on),
        "budget": budget(config, trials),
        "chosen": brief_choice(choice),
        "methods": measured,
        "gain": {"over": REFERENCE, **measured["calibrated"]["difference"]},
        "verdict": verdict(
            measured["calibrated"]["difference"]["value"], len({w.document for w in reported_on})
        ),
        "trials": [brief(t) for t in trials],
    }


def brief_choice(choice: Choice) -> dict[str, Any]:
    candidate = choice.trial.candidate
    told = {
        "trial": choice.trial.number,
        "searcher": candidate.searcher,
        "settings": candidate.settings,
    }
    return {**told, "lowest": choice.lowest.number, "kept": choice.kept}


def text(windows: Sequence[Window]) -> dict[str, Any]:
    names = sorted({w.document for w in windows})
    return {"documents": len(names), "windows": len(windows), "names": names}


def budget(config: Config, trials: Sequence[Trial]) -> dict[str, Any]:
    return {
        "passes": config.calibrate.max_forward_passes,
        "spent": round(spent(trials), 3),
        "trials": len(trials),
        "pruned": sum(t.whole is None for t in trials),
    }


def method(nll: np.ndarray, reference: np.ndarray, draws: np.ndarray, task: Task) -> dict[str, Any]:
    """One method's loss by position, inside and beyond, and its paired difference to the reference."""
    window, share = task.window, task.config.inside_weight
    difference = nll - reference
    return {
        "nll_by_position": statistics.by_position(nll, draws, max(1, (nll.shape[1] + 1) // BINS)),
        **{name: interval(part, draws) for name, part in parts(nll, window, share).items()},
        "difference": {
            name: interval(part, draws) for name, part in parts(difference, window, share).items()
        },
    }


def parts(nll: np.ndarray, window: int, inside_weight: float) -> dict[str, np.ndarray]:
    inside, beyond = halves(nll, window)
    return {"inside": inside, "beyond": beyond, "value": weighted(nll, window, inside_weight)}


def interval(nll: np.ndarray, draws: np.ndarray) -> dict[str, float]:
    return dict(zip(("nll", "low", "high"), statistics.mean_with_interval(nll, draws), strict=True))


def verdict(difference: Mapping[str, float], documents: int) -> str:
    """In words, also where there is no gain, or too little text to tell."""
    low, high = difference["low"], difference["high"]
    mean = f"{difference['nll']:+.4f} nats"
    if difference["nll"] == low == high == 0:
        return f"the same plan as {REFERENCE}'s defaults"
    if documents < LEAST:
        return f"not to be told from {documents} document(s): {mean} against {REFERENCE}'s defaults, and {LEAST} are needed for an interval"
    text = f"{mean} [{low:+.4f}, {high:+.4f}] against {REFERENCE}'s defaults"
    if high < 0:
        return f"better: {text}"
    return f"worse: {text}" if low > 0 else f"no gain shown: {text}, the interval holds zero"


def brief(trial: Trial) -> dict[str, Any]:
    """One row of the search's plot."""
    whole = trial.whole
    return {
        "number": trial.number,
        "searcher": trial.candidate.searcher,
        "method": trial.candidate.settings["method"],
        "passes": trial.passes,
        "short": trial.short.value,
        "inside": whole and whole.inside,
        "beyond": whole and whole.beyond,
        "value": whole and whole.value,
    }
