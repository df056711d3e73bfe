"""Rows of results.json: accuracy by configuration and length, and their mean."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ropewalk.eval.measure import proportions, statistics
from ropewalk.eval.measure.statistics import Estimate
from ropewalk.eval.ruler import scoring
from ropewalk.eval.ruler.configurations import ALL
from ropewalk.eval.tasks.task import Measured, Sample

MEAN = "mean"
PROTOCOL = (
    *("protocol", "data", "form", "wording", "words", "words_hash", "haystack", "haystack_hash"),
    *("shots", "budget", "score"),
)

KEYS = (
    *("configuration", "length", "n", "accuracy", "low", "high", *statistics.PAIRED, "chance"),
    *("unit", "fill", *PROTOCOL, "configurations", "reason"),
)
"""Of every row, in order."""


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
    numbers = {r["n"] for r in rows}
    samples = f"{numbers.pop()} samples" if len(numbers) == 1 else "samples"
    return {
        **rows[0],
        "configuration": MEAN,
        "n": sum(r["n"] for r in rows),
        **_accuracy(cells, seed),
        "chance": float(np.mean(known)) if known else None,
        "fill": round(float(np.mean([r["fill"] for r in rows])), 4),
        **{key: _joined([r[key] for r in rows]) for key in PROTOCOL},
        **_prose(rows),
        "data": f"ruler, {len(rows)} configurations, {samples}",
        "configurations": len(rows),
    }


def _prose(rows: Sequence[dict[str, Any]]) -> dict[str, str]:
    """The haystack of those that have one of text; the others are made up or of question files."""
    made_up = {part.haystack for part in ALL.values()} - {"prose"} | {"squad", "hotpotqa"}
    texts = [r for r in rows if r["haystack"] not in made_up] or rows
    return {key: _joined([r[key] for r in texts]) for key in ("haystack", "haystack_hash")}


def _joined(values: Sequence[Any]) -> Any:
    """One value where all agree; else all, in order, once each."""
    different = list(dict.fromkeys(value for value in values if value != ""))
    if len(different) < 2:
        return different[0] if different else ""
    return " ".join(str(value) for value in different)


def not_measurable(configuration: str, length: int, reason: str) -> dict[str, Any]:
    """A row without values."""
    return {
        **dict.fromkeys(KEYS),
        "configuration": configuration,
        "length": length,
        "n": 0,
        "unit": "question",
        "configurations": 1,
        "reason": f"not measurable: {reason}",
    }


def _accuracy(cells: Sequence[Scores], seed: int) -> dict[str, float | None]:
    """accuracy, low, high; and the same of the paired difference from the base."""
    own = _interval([cell.scores for cell in cells], seed)
    pairs = [(cell.scores, cell.base) for cell in cells if cell.base is not None]
    change = _change(pairs, seed) if pairs else None
    low, high = (None if bound is None else float(np.clip(bound, 0, 1)) for bound in own[1:3])
    values = (None,) * 3 if change is None else change[:3]
    return {
        "accuracy": own.value,
        "low": low,
        "high": high,
        **dict(zip(statistics.PAIRED, values, strict=True)),
    }


def _interval(parts: Sequence[np.ndarray], seed: int) -> Estimate:
    """Mean of the parts' means: a proportion where one part has scores of 0 and 1, or all agree."""
    values = np.concatenate(parts)
    different = {*values.tolist()}
    if different <= {0.0, 1.0} and (len(parts) == 1 or len(different) == 1):
        return proportions.accuracy(values.astype(bool).tolist(), _units(values))
    return _stratified(parts, seed)


def _change(pairs: Sequence[tuple[np.ndarray, np.ndarray]], seed: int) -> Estimate:
    changes = [own - base for own, base in pairs]
    values = np.concatenate(changes)
    if {*np.concatenate([*map(np.concatenate, pairs)]).tolist()} <= {0.0, 1.0} and len(pairs) == 1:
        lost, gained = int((values < 0).sum()), int((values > 0).sum())
        return proportions.paired_difference(lost, gained, len(values))
    return _stratified(changes, seed)


def _stratified(parts: Sequence[np.ndarray], seed: int) -> Estimate:
    """What the parts differ in is no chance: questions are resampled, configurations are not."""
    mean = float(np.mean([part.mean() for part in parts]))
    centred = np.concatenate([part - part.mean() + mean for part in parts])
    return statistics.mean(centred, statistics.resamples(_units(centred), seed))


def _units(values: np.ndarray) -> list[str]:
    return [f"{number:06}" for number in range(len(values))]
