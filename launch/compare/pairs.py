"""The difference of two models in one measure: sample by sample where they share samples.

Without a common sample the interval of the difference is that of two independent means, from the
interval of each (Zou and Donner 2008, MOVER; of two shares it is Newcombe's 1998 method 10).
"""

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ropewalk.eval.measure import proportions, statistics
from ropewalk.eval.measure.statistics import Estimate
from ropewalk.launch.compare.measures import Values


@dataclass(frozen=True)
class Difference:
    """A model's value minus the baseline's."""

    estimate: Estimate
    """`n`: units; of an unpaired one those of the model with fewer."""
    is_paired: bool
    samples: int
    """Pairs; of an unpaired one the model's samples."""
    left_out: int
    """Samples of either model that have no partner, where others have one."""


def estimate(values: Values, seed: int, is_share: bool) -> Estimate:
    """The mean of one model, with its interval over the units."""
    if is_share and proportions.is_binary(values.values):
        return proportions.accuracy([bool(v) for v in values.values], values.units)
    draws = statistics.resamples(values.units, seed)
    return statistics.mean(values.values, draws, values.weights)


def difference(own: Values, baseline: Values, seed: int, is_share: bool) -> Difference:
    """The model's values minus the baseline's, of one protocol."""
    common = _partners(own, baseline)
    if not common:
        estimates = [estimate(part, seed, is_share) for part in (own, baseline)]
        return Difference(_independent(*estimates), False, len(own.keys), 0)
    ours, theirs = (np.array(side) for side in zip(*common, strict=True))
    units = [own.units[number] for number in ours]
    a, b = own.values[ours], baseline.values[theirs]
    left_out = len(own.keys) + len(baseline.keys) - 2 * len(common)
    paired = _paired(a, b, units, own.weights[ours], seed, is_share)
    return Difference(paired, True, len(common), left_out)


def pooled(sides: Sequence[tuple[Values, Values]], seed: int) -> Estimate | None:
    """The mean difference over several pairs of models, such as one a seed; a unit that occurs in
    several is resampled as one. None where one pair has no common sample."""
    changes, units, weights = list[np.ndarray](), list[str](), list[np.ndarray]()
    for own, baseline in sides:
        common = _partners(own, baseline)
        if not common:
            return None
        ours, theirs = (np.array(side) for side in zip(*common, strict=True))
        changes.append(own.values[ours] - baseline.values[theirs])
        units += [own.units[number] for number in ours]
        weights.append(own.weights[ours])
    draws = statistics.resamples(units, seed)
    return statistics.mean(np.concatenate(changes), draws, np.concatenate(weights))


def _partners(own: Values, baseline: Values) -> list[tuple[int, int]]:
    """Numbers of the samples with equal keys; of a key that occurs twice its n-th with the n-th."""
    numbers = {key: number for number, key in enumerate(_numbered(baseline.keys))}
    keys = enumerate(_numbered(own.keys))
    return [(number, numbers[key]) for number, key in keys if key in numbers]


def _numbered(keys: Sequence[str]) -> list[tuple[str, int]]:
    counts, numbered = Counter[str](), list[tuple[str, int]]()
    for key in keys:
        numbered.append((key, counts[key]))
        counts[key] += 1
    return numbered


def _paired(
    a: np.ndarray, b: np.ndarray, units: list[str], weights: np.ndarray, seed: int, is_share: bool
) -> Estimate:
    binary = is_share and proportions.is_binary(a) and proportions.is_binary(b)
    if binary and len(set(units)) == len(units):
        return proportions.change(a, b)
    draws = statistics.resamples(units, seed)
    result = statistics.mean(a - b, draws, weights)
    if binary and result.low == result.high and result.n > 1:  # all agree: one answer of each unit
        moved = round(result.value * result.n)
        least = proportions.paired_difference(max(-moved, 0), max(moved, 0), result.n)
        return Estimate(result.value, least.low, least.high, result.n)
    return result


def _independent(own: Estimate, baseline: Estimate) -> Estimate:
    change, n = own.value - baseline.value, min(own.n, baseline.n)
    if own.low is None or own.high is None or baseline.low is None or baseline.high is None:
        return Estimate(change, None, None, n)
    below = math.hypot(own.value - own.low, baseline.high - baseline.value)
    above = math.hypot(own.high - own.value, baseline.value - baseline.low)
    return Estimate(change, change - below, change + above, n)
