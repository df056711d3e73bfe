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
Params = dict[str, Any]  # divisors, attention_factor


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
    family = [t for t in finished if t.candidate.searcher == "longrope"]
    family.sort(key=lambda t: (t.value, t.number))
    # A small budget has no time for mediocre parents.
    parents = family[: max(2, min(population, len(family) // 4))]
    first, second = (parents[int(k)].candidate.params for k in rng.integers(0, len(parents), 2))
    child = _mutated(first, rng) if number % 2 else _crossed(first, second, rng)
    return candidate(_monotone(child["divisors"], factor), child["attention_factor"], factor)


def start(method: str, factor: float, rotary: Rotary) -> Candidate:
    """A method of the papers as divisors."""
    table = ROPE_METHODS[method](factor=factor).table(rotary)
    divisors = _monotone(rotary.table() / table.inv_freq, factor)
    return candidate(divisors, table.attention_factor, factor)


def candidate(divisors: np.ndarray, attention_factor: float, factor: float) -> Candidate:
    temperature = {"attention_factor": float(attention_factor)}
    settings = {"method": "longrope", "factor": factor, "long_factor": divisors.tolist()}
    params = {"divisors": divisors.tolist()}
    return Candidate("longrope", {**settings, **temperature}, {**params, **temperature})


def _mutated(parent: Params, rng: np.random.Generator) -> Params:
    """Change some divisors independently, or a run of neighbours together, and at times the
    temperature.
    """
    divisors = np.array(parent["divisors"])
    count = len(divisors)
    if rng.random() < 0.5:
        change = rng.normal(0, MUTATION_STD, count) * (rng.random(count) < MUTATED_SHARE)
    else:
        first, last = sorted(rng.integers(0, count + 1, 2))
        neighbours = (np.arange(count) >= first) & (np.arange(count) < last)
        change = rng.normal(0, MUTATION_STD) * neighbours
    temperature = parent["attention_factor"]
    if rng.random() < 0.5:
        temperature *= np.exp(rng.normal(0, MUTATION_STD / 3))
    return {"divisors": divisors * np.exp(change), "attention_factor": temperature}


def _crossed(first: Params, second: Params, rng: np.random.Generator) -> Params:
    """Each divisor from one of two parents."""
    a, b = np.array(first["divisors"]), np.array(second["divisors"])
    divisors = np.where(rng.random(len(a)) < 0.5, a, b)
    temperature = (first if rng.random() < 0.5 else second)["attention_factor"]
    return {"divisors": divisors, "attention_factor": temperature}


def _monotone(divisors: np.ndarray, factor: float) -> np.ndarray:
    """Divisors clipped to [1, 1.25 s] and made monotone: the mean of running maximum from the fast
    end and running minimum from the slow end.
    """
    clipped = np.clip(divisors, 1.0, MAX_DIVISOR * factor)
    rising, falling = np.maximum.accumulate(clipped), np.minimum.accumulate(clipped[::-1])
    return np.asarray((rising + falling[::-1]) / 2)
