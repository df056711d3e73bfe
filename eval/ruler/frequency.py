"""Counting: the common words of a numbered list, and the most frequent coded words of a text."""

import math
from bisect import bisect_left
from collections.abc import Sequence
from string import ascii_lowercase

import numpy as np

from ropewalk.eval.ruler.draft import Body, CannotFit, Draw, several
from ropewalk.eval.ruler.niah import ENDLESS
from ropewalk.eval.ruler.wording import Wording
from ropewalk.eval.ruler.words import Words

COMMON = 10
SHORT = 4096  # RULER's list has fewer repetitions below this length
ALPHA = 2.0  # exponent of the frequencies of coded words (Zipf)
ZETA = math.pi**2 / 6  # Riemann's zeta of ALPHA
ANSWERS = 3
DOTS = "..."
LETTERS = 6


class CommonWords:
    """A draft (draft.py): a list with ten common words. Units: different words; items if exact.

    `repeats`: of a common and of another word.
    """

    def __init__(
        self, wording: Wording, words: Words, draw: Draw, repeats: tuple[int, int]
    ) -> None:
        self.wording, self.draw, self.repeats, self.words = wording, draw, repeats, words
        self.references = tuple(words.distinct(draw.stream(), COMMON))
        self.answer = _numbered(self.references)
        self.least, self.most = self.size(2 * COMMON), self.size(words.available)

    def size(self, words: int) -> int:
        """The size of a list with that many different words."""
        common, other = self.repeats
        return COMMON * common + (words - COMMON) * other if self.draw.exact else words

    def body(self, size: int) -> Body:
        items = self.draw.order(self._items(size))
        context = _numbered(items)
        return Body(self.wording.cwe.format(context=context), self.wording.cwe_prefix, context)

    def _items(self, size: int) -> list[str]:
        common, other = self.repeats
        rest = size - COMMON * common if self.draw.exact else (size - COMMON) * other
        words = self.words.distinct(self.draw.stream(), COMMON + math.ceil(rest / other))
        return _repeated(words[:COMMON], common) + _repeated(words[COMMON:], other)[:rest]


def _repeated(words: Sequence[str], times: int) -> list[str]:
    return [word for word in words for _ in range(times)]


def _numbered(words: Sequence[str]) -> str:
    return " ".join(f"{number}. {word}" for number, word in enumerate(words, 1))


class FrequentWords:
    """A draft (draft.py): coded words whose frequencies fall with their rank squared.

    The first rank is dots, and ranks two to four are asked. Units: words before each rank's share
    is rounded down; if exact, words.
    """

    most = ENDLESS

    def __init__(self, wording: Wording, draw: Draw, vocabulary: int) -> None:
        if vocabulary < ANSWERS + 2:
            raise CannotFit(f"it has {vocabulary} different words, and needs {ANSWERS + 2}")
        self.wording, self.draw = wording, draw
        rng = draw.stream()
        codes = several(lambda: "".join(rng.choice([*ascii_lowercase], LETTERS)), vocabulary, set())
        self.vocabulary = [DOTS, *draw.order(sorted(codes))[1:]]
        self.references = tuple(self.vocabulary[1 : ANSWERS + 1])
        self.answer = " ".join(self.references)
        # from here on each asked word is more frequent than every other, rounded down too
        self.least = math.ceil(ZETA / ((ANSWERS + 1) ** -ALPHA - (ANSWERS + 2) ** -ALPHA))

    def _counts(self, size: int) -> np.ndarray:
        """How often each word is used."""
        if self.draw.exact:
            return nested_counts(size, len(self.vocabulary))
        ranks = np.arange(1, len(self.vocabulary) + 1)
        return (size * ranks**-ALPHA / ZETA).astype(int)

    def body(self, size: int) -> Body:
        pairs = zip(self.vocabulary, self._counts(size).tolist(), strict=True)
        words = self.draw.order([word for word, count in pairs for _ in range(count)])
        context = " ".join(words)
        return Body(self.wording.fwe.format(context=context), self.wording.fwe_prefix, context)


def nested_counts(size: int, vocabulary: int) -> np.ndarray:
    """Uses of each rank among `size` words, (vocabulary,): one size more adds one word.

    The k-th use of rank r comes at time k r²; the first `size` uses are counted, of equal times
    the lower rank's first. At the end of a time every share is rounded down.
    """
    squares = np.arange(1, vocabulary + 1, dtype=np.int64) ** 2
    time = bisect_left(range(size), size, key=lambda time: int((time // squares).sum()))
    counts = time // squares
    last = np.flatnonzero(time % squares == 0)[::-1][: counts.sum() - size]
    counts[last] -= 1
    return counts
