"""The measures of a comparison: a value of each kept sample, with what decides its pair.

Two samples are a pair where the models were asked the very same: their requests have one digest.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Literal

import numpy as np

from ropewalk.eval.tasks.multi_document_qa import DOCUMENTS
from ropewalk.launch.compare.reading import Model
from ropewalk.launch.compare.samples import Line, Samples

WINDOWS = ("window_loss", "nll_by_position", "perplexity", "context_gain")
"""Tasks that read the held-out windows at full length."""
ANSWERED = {
    "passkey": "Passkeys found",
    "json_kv": "JSON values found",
    "needle": "Needles found",
    "multi_document_qa": "Questions on documents",
    "ruler": "RULER, mean score",
}
"""Tasks whose samples have scores."""


@dataclass(frozen=True, eq=False)
class Values:
    """A measure of one model, sample by sample. N samples."""

    keys: Sequence[str]
    """(N,) digests of what was asked."""
    units: Sequence[str]
    """(N,) the document, haystack or question of each."""
    values: np.ndarray
    """(N,)"""
    weights: np.ndarray
    """(N,) tokens or answers of each."""
    protocol: str
    """What values of two models must have in common to be compared at all."""


@dataclass(frozen=True)
class Measure:
    """One row of the comparison."""

    name: str
    title: str
    unit: Literal["nats", "share"]
    better: Literal["lower", "higher"]
    of: Callable[[Model], Values | None]
    """Its values of a model; None when they were not measured."""


def measures() -> list[Measure]:
    """All of them, in the order of the page."""
    losses = [
        Measure("past_window", "Loss past the window", "nats", "lower", past_window),
        Measure("inside_window", "Loss inside the window", "nats", "lower", inside_window),
        Measure("short_text", "Loss on short documents", "nats", "lower", short_text),
        Measure("context_gain", "Gain from the longest context", "nats", "higher", context_gain),
        Measure("swapped_gain", "Gain from the true far text", "nats", "higher", swapped_gain),
    ]
    answers = [
        Measure(task, f"{title}, longest text", "share", "higher", partial(scores, task))
        for task, title in ANSWERED.items()
    ]
    return [*losses, *answers]


def past_window(model: Model) -> Values | None:
    """Loss of the held-out windows past the base's window."""
    window, length = model.results["base_window"], model.results["length"]
    if length <= window:
        return None
    return _windows(model, slice(window - 1, None), f"{window:,} to {length:,} tokens")


def inside_window(model: Model) -> Values | None:
    """Loss of the held-out windows inside the base's window."""
    window = min(model.results["base_window"], model.results["length"])
    return _windows(model, slice(0, window - 1), f"0 to {window:,} tokens")


def _windows(model: Model, part: slice, protocol: str) -> Values | None:
    lines = model.samples.of_tasks(WINDOWS, "window/")
    losses = [model.samples.losses(line)[part] for line in lines]
    return _means(lines, losses, f"held-out windows, {protocol}")


def short_text(model: Model) -> Values | None:
    """Loss of the first tokens of held-out documents."""
    lines = model.samples.of_tasks(["short_context"], "short/")
    losses = [model.samples.losses(line) for line in lines]
    return _means(lines, losses, f"up to {model.results['base_window']:,} tokens")


def _means(lines: Sequence[Line], losses: Sequence[np.ndarray], protocol: str) -> Values | None:
    pairs = [(line, part) for line, part in zip(lines, losses, strict=True) if len(part)]
    if not pairs:
        return None
    return Values(
        [line["request"] for line, _ in pairs],
        [line["unit"] for line, _ in pairs],
        np.array([part.mean() for _, part in pairs]),
        np.array([len(part) for _, part in pairs], np.float64),
        protocol,
    )


def context_gain(model: Model) -> Values | None:
    """Loss of the windows' last tokens given the base's window, minus that given all before."""
    return _gain(model, model.samples)


def swapped_gain(model: Model) -> Values | None:
    """Loss of the windows' last tokens after another document's text, minus that after its own."""
    swapped = model.samples.of_tasks(["swapped_gain"], "swapped/")
    true = model.samples.of_tasks(["swapped_gain"], "window/")
    if not swapped or len(swapped) != len(true):
        return None
    pairs, gains = list(zip(swapped, true, strict=True)), list[float]()
    for other, own in pairs:
        losses = model.samples.losses(other)
        gains.append(float(losses.mean() - model.samples.losses(own)[-len(losses) :].mean()))
    kept = model.results["length"] - swapped[0]["seam"]
    return Values(
        [f"{a['request']} {b['request']}" for a, b in pairs],
        [b["unit"] for _, b in pairs],
        np.array(gains),
        np.full(len(pairs), float(kept)),
        f"last {kept:,} of {model.results['length']:,} tokens",
    )


def scores(task: str, model: Model) -> Values | None:
    """The score of each prompt of a task at its longest length; None where they were not kept."""
    lines = [x for x in model.samples.lines if x["task"] == task and x.get("scores")]
    lines = [x for x in lines if x.get("documents", DOCUMENTS) == DOCUMENTS]
    longest = max((line["length"] for line in lines), default=0)
    asked = [line for line in lines if line["length"] == longest]
    pairs = [(line, n, score) for line in asked for n, score in enumerate(line["scores"])]
    if not pairs:
        return None
    return Values(
        [f"{line['request']} {n}" for line, n, _ in pairs],
        [line["unit"] for line, _, _ in pairs],
        np.array([score for _, _, score in pairs], np.float64),
        np.ones(len(pairs)),
        f"{longest:,} tokens",
    )


def gain_over_reference(model: Model) -> Values | None:
    """The same, where the reference of the run's own evaluation is given the base's window: what
    the longer window is worth beside the model that has none."""
    return _gain(model, model.reference.samples)


def _gain(model: Model, short: Samples) -> Values | None:
    """`short`: whose losses under the shortest context are taken."""
    window, length, targets = (model.results[key] for key in ("base_window", "length", "targets"))
    long_lines = model.samples.of_tasks(["context_gain"], "window/")
    short_lines = short.of_tasks(["context_gain"], f"context/{window}/")
    if not short_lines or len(short_lines) != len(long_lines):
        return None
    pairs = list(zip(long_lines, short_lines, strict=True))
    gains = [
        short.losses(b)[-targets:].mean() - model.samples.losses(a)[-targets:].mean()
        for a, b in pairs
    ]
    return Values(
        [f"{a['request']} {b['request']}" for a, b in pairs],
        [a["unit"] for a, _ in pairs],
        np.array(gains),
        np.full(len(pairs), float(targets)),
        f"last {targets:,} tokens, given {window:,} and {length:,}",
    )
