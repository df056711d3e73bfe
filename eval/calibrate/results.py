"""The content of `calibration/results.json`: the choice, its cost and its gain. Pure."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ropewalk.conf.schema import Config
from ropewalk.data.dataset import Window
from ropewalk.eval.calibrate.choice import MIN_DOCUMENTS, Choice
from ropewalk.eval.calibrate.search import SearchSetup
from ropewalk.eval.calibrate.trial import Trial, objective_per_window, spent, split_at_window
from ropewalk.eval.measure import statistics
from ropewalk.train.rope.plan import RopePlan

BINS = 16
REFERENCE = "yarn"  # with the paper's settings: the choice without a calibration


def results(
    config: Config,
    plan: RopePlan,
    setup: SearchSetup,
    trials: Sequence[Trial],
    choice: Choice,
    losses: Mapping[str, np.ndarray],
    chosen_on: Sequence[Window],
    reported_on: Sequence[Window],
) -> dict[str, Any]:
    """`losses`: (N, S-1) on the reported windows by name: `none`, the methods, `calibrated`."""
    draws = statistics.resamples([w.document for w in reported_on], config.seed)
    measured = {name: method(nll, losses[REFERENCE], draws, setup) for name, nll in losses.items()}
    return {
        "schema": 1,
        "base_window": setup.window,
        "original_max_position_embeddings": plan.original_max_position_embeddings,
        "max_position_embeddings": plan.max_position_embeddings,
        "factor": plan.factor,
        "search_length": setup.windows.shape[1],
        "prefix": setup.prefix,
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
    return {
        "trial": choice.trial.number,
        "searcher": candidate.searcher,
        "settings": candidate.settings,
        "lowest": choice.lowest.number,
        "kept": choice.reason,
    }


def text(windows: Sequence[Window]) -> dict[str, Any]:
    names = sorted({w.document for w in windows})
    return {"documents": len(names), "windows": len(windows), "names": names}


def budget(config: Config, trials: Sequence[Trial]) -> dict[str, Any]:
    return {
        "passes": config.calibrate.max_forward_passes,
        "spent": round(spent(trials), 3),
        "trials": len(trials),
        "pruned": sum(t.full is None for t in trials),
    }


def method(
    nll: np.ndarray, reference: np.ndarray, draws: np.ndarray, setup: SearchSetup
) -> dict[str, Any]:
    """A method's loss by position, inside and beyond, and its difference to the reference."""
    window, share = setup.window, setup.config.inside_weight
    difference = nll - reference
    return {
        "nll_by_position": statistics.by_position(nll, draws, max(1, (nll.shape[1] + 1) // BINS)),
        **{name: interval(part, draws) for name, part in parts(nll, window, share).items()},
        "difference": {
            name: interval(part, draws) for name, part in parts(difference, window, share).items()
        },
    }


def parts(nll: np.ndarray, window: int, inside_weight: float) -> dict[str, np.ndarray]:
    inside, beyond = split_at_window(nll, window)
    return {
        "inside": inside,
        "beyond": beyond,
        "value": objective_per_window(nll, window, inside_weight),
    }


def interval(nll: np.ndarray, draws: np.ndarray) -> dict[str, float]:
    return dict(zip(("nll", "low", "high"), statistics.mean_with_interval(nll, draws), strict=True))


def verdict(difference: Mapping[str, float], documents: int) -> str:
    """The verdict in words: better, worse, no gain shown, or too few documents."""
    low, high = difference["low"], difference["high"]
    mean = f"{difference['nll']:+.4f} nats"
    if difference["nll"] == low == high == 0:
        return f"the same plan as {REFERENCE}'s defaults"
    if documents < MIN_DOCUMENTS:
        return (
            f"not to be told from {documents} document(s): {mean} against {REFERENCE}'s defaults, "
            f"and {MIN_DOCUMENTS} are needed for an interval"
        )
    text = f"{mean} [{low:+.4f}, {high:+.4f}] against {REFERENCE}'s defaults"
    if high < 0:
        return f"better: {text}"
    return f"worse: {text}" if low > 0 else f"no gain shown: {text}, the interval holds zero"


def brief(trial: Trial) -> dict[str, Any]:
    """One row of the search's plot."""
    full = trial.full
    return {
        "number": trial.number,
        "searcher": trial.candidate.searcher,
        "method": trial.candidate.settings["method"],
        "passes": trial.passes,
        "short": trial.short.value,
        "inside": full and full.inside,
        "beyond": full and full.beyond,
        "value": full and full.value,
    }
