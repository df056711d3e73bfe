"""Rows of results.json: accuracy by configuration and length, and their mean."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ropewalk.eval.measure import statistics
from ropewalk.eval.ruler import scoring
from ropewalk.eval.tasks.task import Measured, Sample

MEAN = "mean"
PROTOCOL = ("protocol", "mode", "form", "wording", "words", "haystack", "shots", "budget", "score")


@dataclass(frozen=True)
class Scores:
    """The scores of a cell's samples, each from 0 to 1."""

    configuration: str
    length: int
    samples: Sequence[Sample]
    scores: np.ndarray
    """(n,)."""
    base: np.ndarray | None
    """Of the base for the same samples."""
    chance: float | None


def by_cell(measured: Measured) -> list[Scores]:
    """In the order of the samples."""
    cells: dict[tuple[str, int], list[int]] = {}
    for number, sample in enumerate(measured.samples):
        cell = (sample.facts["configuration"], sample.facts["length"])
        cells.setdefault(cell, []).append(number)
    return [_scores(measured, *cell, numbers) for cell, numbers in cells.items()]


def _scores(measured: Measured, configuration: str, length: int, numbers: Sequence[int]) -> Scores:
    samples = [measured.samples[n] for n in numbers]

    def texts(results: Sequence[Any]) -> list[str]:
        return [scoring.reply_text(measured.suite, results[n]) for n in numbers]

    def scores(replies: Sequence[str]) -> np.ndarray:
        pairs = zip(samples, replies, strict=True)
        return np.array([scoring.score_of(sample, text) for sample, text in pairs])

    own = texts(measured.results)
    base = None if measured.base is None else scores(texts(measured.base))
    return Scores(configuration, length, samples, scores(own), base, scoring.chance(own, samples))


def row(cell: Scores, seed: int) -> dict[str, Any]:
    """The accuracy of one configuration at a length; its interval resamples questions."""
    fills = [sample.facts["fill"] for sample in cell.samples]
    return {
        "configuration": cell.configuration,
        "length": cell.length,
        "n": len(cell.scores),
        **_accuracy([cell], seed),
        "chance": cell.chance,
        "unit": "question",
        "fill": round(float(np.mean(fills)) / cell.length, 4),
        **{key: cell.samples[0].facts[key] for key in PROTOCOL},
        "configurations": 1,
        "reason": None,
    }


def mean_row(cells: Sequence[Scores], seed: int) -> dict[str, Any]:
    """The mean of the configurations that were measured at a length, each with equal weight."""
    rows = [row(cell, seed) for cell in cells]
    known = [r["chance"] for r in rows if r["chance"] is not None]
    return {
        **rows[0],
        "configuration": MEAN,
        "n": sum(r["n"] for r in rows),
        **_accuracy(cells, seed),
        "chance": float(np.mean(known)) if known else None,
        "fill": round(float(np.mean([r["fill"] for r in rows])), 4),
        **{key: _joined([r[key] for r in rows]) for key in PROTOCOL},
        "configurations": len(rows),
    }


def _joined(values: Sequence[Any]) -> Any:
    """One value where all agree; else all, in order, once each."""
    different = list(dict.fromkeys(value for value in values if value != ""))
    if len(different) < 2:
        return different[0] if different else ""
    return " ".join(str(value) for value in different)


def not_measurable(configuration: str, length: int, reason: str, like: dict[str, Any]) -> Any:
    """A row without values; `like`: one whose keys it has."""
    empty = dict.fromkeys(like)
    return {
        **empty,
        "configuration": configuration,
        "length": length,
        "n": 0,
        "configurations": 1,
        "unit": "question",
        "reason": f"not measurable: {reason}",
    }


def _accuracy(cells: Sequence[Scores], seed: int) -> dict[str, float | None]:
    """accuracy, low, high; and the same of the paired difference from the base."""
    mean, low, high = _interval([cell.scores for cell in cells], seed, bounded=True)
    result = {"accuracy": mean, "low": low, "high": high}
    paired = [cell.scores - cell.base for cell in cells if cell.base is not None]
    change = _interval(paired, seed, bounded=False) if paired else (None, None, None)
    return {**result, **dict(zip(statistics.PAIRED, change, strict=True))}


def _interval(parts: Sequence[np.ndarray], seed: int, bounded: bool) -> tuple[float, float, float]:
    """Mean of the parts' means, and its 95% bootstrap interval over the items of each part.

    `bounded`: items lie in [0, 1]. Where all are equal the bootstrap has no width; then the
    interval is that of a proportion with as many items.
    """
    means = np.zeros(statistics.DRAWS)
    for number, part in enumerate(parts):
        weights = statistics.resamples([str(n) for n in range(len(part))], seed + number)
        means += weights @ part / len(part) / len(parts)
    mean = float(np.mean([part.mean() for part in parts]))
    low, high = np.quantile(means, [0.025, 0.975])
    if bounded and low == high:
        n = sum(len(part) for part in parts)
        low, high = statistics.wilson(round(mean * n), n)
    return mean, float(low), float(high)
