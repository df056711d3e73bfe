"""Searcher `longrope`: a divisor for each frequency by evolution (arXiv 2402.13753, section 3.2).

As in the paper, the search starts from PI, NTK and YaRN, divisors never fall from one frequency to
the next slower one, and none exceeds 1.25 s. Unlike the paper, children are made one at a time from
all finished trials, so that a killed search can resume; and the temperature varies with the
divisors, where the paper fixes it.

d  rotary dimensions of a head     s  factor     B  base inverse frequencies, (d/2,)
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from ropewalk.conf.rope_methods import ROPE_METHODS, Rotary
from ropewalk.data.random_streams import Purpose, generator
from ropewalk.eval.calibrate.trial import Candidate, Trial

MUTATED_SHARE = 0.3  # share of a parent's divisors that a mutation moves (the paper's p)
MUTATION_STD = 0.15  # standard deviation of ln(divisor)
MAX_DIVISOR = 1.25  # times s: the paper's search space
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
    """The next candidate: a start, then in turn a mutation and a crossing of the best trials."""
    if number < len(STARTS):
        return start(STARTS[number], factor, rotary)
    rng = generator(Purpose.EVOLUTION, seed, number)
    family = sorted(
        (t for t in finished if t.candidate.searcher == "longrope"),
        key=lambda t: (t.value, t.number),
    )
    parents = family[
        : max(2, min(population, len(family) // 4))
    ]  # a small budget has no time for mediocre parents
    first, second = (parents[int(k)].candidate.params for k in rng.integers(0, len(parents), 2))
    child = _mutated(first, rng) if number % 2 else _crossed(first, second, rng)
    return candidate(_monotone(child["divisors"], factor), child["attention_factor"], factor)


def start(method: str, factor: float, rotary: Rotary) -> Candidate:
    """A method of the papers as divisors."""
    table = ROPE_METHODS[method](factor=factor).table(rotary)
    return candidate(
        _monotone(rotary.table() / table.inv_freq, factor), table.attention_factor, factor
    )


def candidate(divisors: np.ndarray, attention_factor: float, factor: float) -> Candidate:
    params: dict[str, Any] = {
        "divisors": divisors.tolist(),
        "attention_factor": float(attention_factor),
    }
    settings = {
        "method": "longrope",
        "factor": factor,
        "long_factor": params["divisors"],
        "attention_factor": params["attention_factor"],
    }
    return Candidate("longrope", settings, params)


def _mutated(parent: dict[str, Any], rng: np.random.Generator) -> dict[str, Any]:
    """Change some divisors independently, or a run of neighbours together, and at times the
    temperature.
    """
    divisors = np.array(parent["divisors"])
    count = len(divisors)
    if rng.random() < 0.5:
        change = rng.normal(0, MUTATION_STD, count) * (rng.random(count) < MUTATED_SHARE)
    else:
        first, last = sorted(rng.integers(0, count + 1, 2))
        change = rng.normal(0, MUTATION_STD) * (
            (np.arange(count) >= first) & (np.arange(count) < last)
        )
    temperature = np.exp(rng.normal(0, MUTATION_STD / 3)) if rng.random() < 0.5 else 1.0
    return {
        "divisors": divisors * np.exp(change),
        "attention_factor": parent["attention_factor"] * temperature,
    }


def _crossed(
    first: dict[str, Any], second: dict[str, Any], rng: np.random.Generator
) -> dict[str, Any]:
    """Each divisor from one of two parents."""
    a, b = np.array(first["divisors"]), np.array(second["divisors"])
    return {
        "divisors": np.where(rng.random(len(a)) < 0.5, a, b),
        "attention_factor": (first if rng.random() < 0.5 else second)["attention_factor"],
    }


def _monotone(divisors: np.ndarray, factor: float) -> np.ndarray:
    """Divisors clipped to [1, 1.25 s] and made monotone: the mean of running maximum from the fast
    end and running minimum from the slow end.
    """
    clipped = np.clip(divisors, 1.0, MAX_DIVISOR * factor)
    return np.asarray(
        (np.maximum.accumulate(clipped) + np.minimum.accumulate(clipped[::-1])[::-1]) / 2
    )
