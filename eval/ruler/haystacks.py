"""What a needle is hidden in: prose by words, or lines of noise; and where it goes."""

import hashlib
import re
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate

import numpy as np

from ropewalk.data.random_streams import Purpose
from ropewalk.eval.ruler.draft import Draw

SENTENCE_END = re.compile(r"(?<=[.!?])[\"')\]]*\s+|\n\s*\n")
LONGEST = 60  # words of a sentence; longer ones, as in code and tables, are divided
GRID = np.round(np.linspace(0, 100, 40)).astype(int)
"""RULER's depths of needles in prose, in percent."""
SENTENCES_OF_NOISE = re.compile(r"(?<=\.) ")


@dataclass(frozen=True)
class Prose:
    """Sentences of running text, with single spaces."""

    source: str
    sentences: tuple[str, ...]

    @cached_property
    def ends(self) -> list[int]:
        """Words up to each sentence's end."""
        return list(accumulate(sentence.count(" ") + 1 for sentence in self.sentences))

    @property
    def words(self) -> int:
        return self.ends[-1] if self.sentences else 0

    @cached_property
    def hash(self) -> str:
        return hashlib.sha256("\n".join(self.sentences).encode()).hexdigest()[:16]

    def cut(self, first: int, words: int) -> list[str]:
        """The sentences from number `first` on with that many words; after the last comes the
        first one, and the last sentence is cut."""
        start = self.ends[first - 1] if first else 0
        rounds, rest = divmod(start + words, self.words)
        end = bisect_left(self.ends, rest) if rest else 0  # whole sentences of the last round
        chosen = [*self.sentences] * rounds + [*self.sentences[:end]]
        del chosen[:first]
        if part := rest - (self.ends[end - 1] if end else 0):
            chosen.append(" ".join(self.sentences[end].split(" ")[:part]))
        return chosen


def sentences(texts: Iterable[str]) -> tuple[str, ...]:
    """The sentences of texts, end to end; needles need no more than a border that is natural."""
    parts = []
    for text in texts:
        for sentence in SENTENCE_END.split(text):
            words = sentence.split()
            starts = range(0, len(words), LONGEST)
            parts += [" ".join(words[start : start + LONGEST]) for start in starts]
    return tuple(parts)


def noise_lines(line: str, size: int, exact: bool) -> list[str]:
    """Lines of noise, with single sentences on the last one. `size`: lines; sentences if exact."""
    if not exact:
        return [line] * size
    parts = SENTENCES_OF_NOISE.split(line)
    repeats, rest = divmod(size, len(parts))
    return [line] * repeats + ([" ".join(parts[:rest])] if rest else [])


def line_places(draw: Draw, lines: int, count: int) -> list[int]:
    """Before which line each of `count` needles goes."""
    if draw.exact:
        return [round(depth * lines) for depth in draw.depths(count)]
    chosen = draw.stream(Purpose.RULER_ORDER).choice(lines, count, replace=False)
    return sorted(int(place) for place in chosen)


def prose_places(draw: Draw, sentences: Sequence[str], count: int) -> list[int]:
    """Before which sentence each of `count` needles goes."""
    if draw.exact:
        ends = [0, *accumulate(len(sentence) + 1 for sentence in sentences)]
        return [_nearest(ends, depth * ends[-1]) for depth in draw.depths(count)]
    depths = draw.stream(Purpose.RULER_ORDER).choice(GRID, count, replace=False)
    return sorted(int(len(sentences) * (depth / 100)) for depth in depths)


def _nearest(ends: Sequence[int], place: float) -> int:
    after = bisect_right(ends, place)
    if after == len(ends):
        return after - 1
    return after if ends[after] - place < place - ends[after - 1] else after - 1


def with_needles(parts: Sequence[str], places: Sequence[int], needles: Sequence[str]) -> list[str]:
    """Each needle before the part that its place names."""
    result, start = list[str](), 0
    for place, needle in sorted(zip(places, needles, strict=True), key=lambda pair: pair[0]):
        result += [*parts[start:place], needle]
        start = place
    return result + [*parts[start:]]
