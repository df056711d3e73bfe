"""Searcher `longrope`: a divisor for each frequency by evolution (arXiv 2402.13753, section 3.2).

As in the paper, the start is PI, NTK and YaRN, divisors never fall from one frequency to the next slower one, and none exceeds
1.25 s. Unlike it, a child is made of what is known at that moment, one at a time, so that a killed search goes on from there;
and the temperature is inherited and varied with the divisors, where the paper fixes it.

d  rotary dimensions of a head     s  factor     B  base inverse frequencies, (d/2,)
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from ropewalk.conf.scaling import ROPE_CLASSES
from ropewalk.eval.calibrate.trial import Candidate, Trial
from ropewalk.train.rope.methods import METHODS, Rotary

CHANGED = 0.3  # share of a parent's divisors that a mutation moves (the paper's p)
MOVE = 0.15  # standard deviation of ln(divisor)
MOST = 1.25  # times s: the paper's search space
STARTS = ("pi", "ntk", "yarn")


def propose(
    finished: Sequence[Trial],
    *,
    seed: int,
    number: int,
    factor: float,
    rotary: Rotary,
    population: int,
) -> Candidate:
    """The next candidate: a start, then by turns a mutation of one of the best and a crossing of two."""
    if number < len(STARTS):
        return start(STARTS[number], factor, rotary)
    rng = np.random.Generator(np.random.Philox(key=[seed + 2, number]))
    family = sorted(
        (t for t in finished if t.candidate.searcher == "longrope"),
        key=lambda t: (t.value, t.number),
    )
    parents = family[
        : max(2, min(population, len(family) // 4))
    ]  # a small budget has no time for mediocre parents
    one, other = (parents[int(k)].candidate.place for k in rng.integers(0, len(parents), 2))
    child = _mutated(one, rng) if number % 2 else _crossed(one, other, rng)
    return candidate(_lawful(child["divisors"], factor), child["attention_factor"], factor)


def start(method: str, factor: float, rotary: Rotary) -> Candidate:
    """A method of the papers as divisors."""
    table = METHODS[method].table(ROPE_CLASSES[method](factor=factor), rotary)
    return candidate(
        _lawful(rotary.table() / table.inv_freq, factor), table.attention_factor, factor
    )


def candidate(divisors: np.ndarray, attention_factor: float, factor: float) -> Candidate:
    place: dict[str, Any] = {
        "divisors": divisors.tolist(),
        "attention_factor": float(attention_factor),
    }
    settings = {
        "method": "longrope",
        "factor": factor,
        "long_factor": place["divisors"],
        "attention_factor": place["attention_factor"],
    }
    return Candidate("longrope", settings, place)


def _mutated(parent: dict[str, Any], rng: np.random.Generator) -> dict[str, Any]:
    """Some divisors each by itself, or a run of neighbours together; and sometimes the temperature."""
    divisors = np.array(parent["divisors"])
    count = len(divisors)
    if rng.random() < 0.5:
        change = rng.normal(0, MOVE, count) * (rng.random(count) < CHANGED)
    else:
        first, last = sorted(rng.integers(0, count + 1, 2))
        change = rng.normal(0, MOVE) * ((np.arange(count) >= first) & (np.arange(count) < last))
    warmer = np.exp(rng.normal(0, MOVE / 3)) if rng.random() < 0.5 else 1.0
    return {
        "divisors": divisors * np.exp(change),
        "attention_factor": parent["attention_factor"] * warmer,
    }


def _crossed(
    one: dict[str, Any], other: dict[str, Any], rng: np.random.Generator
) -> dict[str, Any]:
    """Each divisor from one of two parents."""
    a, b = np.array(one["divisors"]), np.array(other["divisors"])
    return {
        "divisors": np.where(rng.random(len(a)) < 0.5, a, b),
        "attention_factor": (one if rng.random() < 0.5 else other)["attention_factor"],
    }


def _lawful(divisors: np.ndarray, factor: float) -> np.ndarray:
    """From 1 to 1.25 s, never falling: half way between lifting what follows a peak and lowering what precedes a dip."""
    within = np.clip(divisors, 1.0, MOST * factor)
    return np.asarray(
        (np.maximum.accumulate(within) + np.minimum.accumulate(within[::-1])[::-1]) / 2
    )
