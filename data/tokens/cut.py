"""Long texts in parts, so that workers share them and memory stays small: only where the ids stay the same.

A part ends after a single newline between two letters: there 0 of 90 documents changed with a byte-level BPE, after any newline 55.
Not every tokenizer is so (SentencePiece's put a space before a text), so a sample of long texts is compared, each cut by itself
too, and a tokenizer that fails is given whole texts.
"""

from collections.abc import Iterator
from typing import Any

import numpy as np

from ropewalk.data.tokens.encode import Encode

PART = 1 << 18  # characters, at least; a text of less than two parts stays whole
SAMPLE, APART, ENOUGH = (
    1 << 16,
    1 << 10,
    16,
)  # a sample's characters, between its cuts, and cuts compared in all, about
NEAR = 128  # characters on each side of a cut that are compared


class Cutter:
    """Cuts texts while every comparison holds, and counts."""

    def __init__(self, encode: Encode) -> None:
        self.encode, self.same = encode, True
        self.compared = self.cuts = 0

    def parts(self, text: str) -> list[str]:
        """The text, in as many parts as its ids allow."""
        if len(text) < 2 * PART:
            return [text]
        if self.same and self.compared < ENOUGH:
            self._sample(text[:SAMPLE])
        at = [p for p in places(text, PART) if self._holds(_near(text, p))] if self.same else []
        self.cuts += len(at)
        return _split(text, at)

    def facts(self) -> dict[str, Any]:
        """For the manifest. `same_ids` is None where no cut was compared: no text was long, or none had a place."""
        return {
            "compared": self.compared,
            "same_ids": self.same if self.compared else None,
            "cuts": self.cuts,
        }

    def _sample(self, text: str) -> None:
        at = list(places(text, APART))
        self.same = self._holds(_split(text, at)) if at else True
        self.compared += len(at)

    def _holds(self, parts: list[str]) -> bool:
        whole, *found = self.encode(["".join(parts), *parts])
        return np.array_equal(whole, np.concatenate(found))


def places(text: str, apart: int) -> Iterator[int]:
    """Where a part may begin: after a single newline between two letters, at least `apart` from one another and both ends."""
    at = text.find("\n", apart)
    while 0 <= at < len(text) - apart:
        legal = text[at - 1].isalpha() and text[at + 1].isalpha()
        if legal:
            yield at + 1
        at = text.find("\n", at + (apart if legal else 1))


def _near(text: str, at: int) -> list[str]:
    return [text[max(at - NEAR, 0) : at], text[at : at + NEAR]]


def _split(text: str, at: list[int]) -> list[str]:
    return [text[low:high] for low, high in zip([0, *at], [*at, len(text)], strict=True)]
