"""Needles in a haystack: keys with values, among noise, prose or other needles."""

import uuid
from functools import partial

from ropewalk.eval.ruler.configurations import Configuration
from ropewalk.eval.ruler.draft import Body, Draw, several
from ropewalk.eval.ruler.haystacks import (
    Prose,
    line_places,
    noise_lines,
    prose_places,
    with_needles,
)
from ropewalk.eval.ruler.wording import Wording
from ropewalk.eval.ruler.words import Words

FEWEST_WORDS = 8
ENDLESS = 1 << 40


class Needles:
    """A draft (draft.py). Units of the haystack: words of prose, lines, or sentences of noise."""

    def __init__(
        self,
        configuration: Configuration,
        wording: Wording,
        words: Words,
        prose: Prose | None,
        draw: Draw,
    ) -> None:
        self.configuration, self.wording, self.draw = configuration, wording, draw
        self.words, self.prose = words, prose
        self.rng = draw.stream()
        self.in_use: set[str] = set()
        """Keys and values that are in use: no two needles share one."""
        self._draw_needles(configuration)
        self.first = self._first_sentence()
        self.lines: list[str] = []
        self.least = self.count + 1 if prose is None else FEWEST_WORDS
        self.most = prose.words if prose is not None and draw.exact else ENDLESS

    def _draw_needles(self, configuration: Configuration) -> None:
        keys = several(
            partial(self._random, configuration.keys), configuration.inserted, self.in_use
        )
        values = {
            key: several(
                partial(self._random, configuration.values), configuration.values_each, self.in_use
            )
            for key in keys
        }
        needles = [self._needle(key, value) for key in keys for value in values[key]]
        asked = self.rng.permutation(len(keys))[: configuration.asked]
        self.count = len(needles)
        self.needles = self.draw.order(needles)
        self.asked = [keys[number] for number in asked]
        self.references = tuple(value for key in self.asked for value in values[key])
        self.gold = tuple(self._needle(key, v) for key in self.asked for v in values[key])
        self.answer = ", ".join(self.references) + "."

    def _random(self, kind: str) -> str:
        if kind == "words":
            return self.words.pair(self.rng)
        if kind == "numbers":
            return str(self.rng.integers(1_000_000, 10_000_000))
        return str(uuid.UUID(bytes=self.rng.bytes(16), version=4))

    def _needle(self, key: str, value: str) -> str:
        return self.wording.needle.format(key=key, value=value, **self._kinds)

    @property
    def _kinds(self) -> dict[str, str]:
        kinds = self.configuration.values
        return {"kinds": kinds, "kind": kinds[:-1]}

    def _first_sentence(self) -> int:
        if self.prose is None or not self.draw.exact:
            return 0
        return int(self.rng.integers(len(self.prose.sentences)))

    def body(self, size: int) -> Body:
        context = self._context(size)
        keys = self.asked
        query = f"{', '.join(keys[:-1])}, and {keys[-1]}" if len(keys) > 1 else keys[0]
        texts = self.wording
        one = len(self.references) == 1
        template = texts.niah_one if one else texts.niah_many
        prefix = texts.niah_one_prefix if one else texts.niah_many_prefix
        return Body(
            template.format(context=context, query=query, **self._kinds),
            prefix.format(query=query, **self._kinds),
            context,
            self.gold,
        )

    def _context(self, size: int) -> str:
        if self.prose is not None:
            sentences = self.prose.cut(self.first, size)
            places = prose_places(self.draw, sentences, self.count)
            return " ".join(with_needles(sentences, places, self.needles))
        lines = self._lines(size)
        places = line_places(self.draw, len(lines), self.count)
        return "\n".join(with_needles(lines, places, self.needles))

    def _lines(self, size: int) -> list[str]:
        if self.configuration.haystack == "noise":
            return noise_lines(self.wording.noise, size, self.draw.exact)
        while len(self.lines) < size:
            kinds = (self.configuration.keys, self.configuration.values)
            (key,), (value,) = (several(partial(self._random, k), 1, self.in_use) for k in kinds)
            self.lines.append(self._needle(key, value))
        return self.lines[:size]
