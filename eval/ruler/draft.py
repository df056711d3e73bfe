"""A question of any size: its random choices are made, its haystack grows with the size."""

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeVar

import numpy as np

from ropewalk.data.random_streams import Purpose, generator

Item = TypeVar("Item")
SHUFFLE_SEED = 42  # of RULER's shuffles


class CannotFit(Exception):
    """A configuration has no samples of a length; the text says why."""


@dataclass(frozen=True)
class Body:
    """A prompt as text: the message to the model, and the beginning of its answer."""

    message: str
    prefix: str
    context: str
    """The part of the message that grows with the size."""
    gold: tuple[str, ...] = ()
    """Texts inside the context that hold the answer."""

    @property
    def depths(self) -> tuple[float, ...]:
        """Where they begin, from 0 (start) to 1 (end of the context), in characters."""
        room = max(1, len(self.context) - max(map(len, self.gold), default=0))
        return tuple(min(1.0, self.context.index(text) / room) for text in self.gold)


class Draft(Protocol):
    references: tuple[str, ...]
    answer: str
    """The references as a solved example shows them."""
    least: int
    """The smallest size, in units of the haystack."""
    most: int
    """The largest size."""

    def body(self, size: int) -> Body: ...


@dataclass(frozen=True)
class Draw:
    """The random choices of one sample: functions of seed, cell and number.

    `exact`: orders and places are this sample's own; else the order is RULER's, the same for all.
    """

    exact: bool
    length: int
    seed: int
    cell: int
    """Names configuration and length."""
    number: int

    def stream(self, purpose: Purpose = Purpose.RULER_QUESTION) -> np.random.Generator:
        """A fresh stream: the same numbers at each call."""
        return generator(purpose, self.seed, (self.cell << 24) + self.number)

    def order(self, items: Sequence[Item]) -> list[Item]:
        """The items in random order."""
        if not self.exact:
            shuffled = list(items)
            random.Random(SHUFFLE_SEED).shuffle(shuffled)
            return shuffled
        keys = self.stream(Purpose.RULER_ORDER).random(len(items))
        return [items[number] for number in np.argsort(keys)]

    def depths(self, count: int) -> np.ndarray:
        """`count` places in [0, 1) that sweep over the samples of a cell, evenly for any number.

        Additive recurrence with the powers of the generalised golden ratio (Roberts, 2018), from a
        random start.
        """
        start = generator(Purpose.RULER_DEPTH, self.seed, self.cell).random(count)
        ratio = 1.5
        for _ in range(64):  # the root of x^(count + 1) = x + 1
            ratio = (1 + ratio) ** (1 / (count + 1))
        return (start + self.number * ratio ** -np.arange(1.0, count + 1)) % 1


def several(draw: Callable[[], str], count: int, in_use: set[str]) -> list[str]:
    """`count` different texts that are not among `in_use`, to which they are added."""
    texts: list[str] = []
    while len(texts) < count:
        text = draw()
        if text not in in_use:
            in_use.add(text)
            texts.append(text)
    return texts
