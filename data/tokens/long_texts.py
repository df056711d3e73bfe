"""Long texts split into parts, so that workers share them: only where the token ids stay the same.

A part ends after a single newline between two letters: there, none of 90 documents changed under a
byte-level BPE; after any newline 55 did. SentencePiece and others add a space before each text, so
a sample of long texts is compared, and then every cut. A tokenizer that fails gets full texts.
"""

from collections.abc import Iterator
from typing import Any

import numpy as np

from ropewalk.data.tokens.encode import Encode

PART = 1 << 18  # characters, at least; a text shorter than two parts is not split
SAMPLE = 1 << 16  # characters of a text that are compared with cuts
SAMPLE_PART = 1 << 10  # characters between the cuts of a sample
ENOUGH_CUTS = 16  # cuts compared over all samples, about
CONTEXT = 128  # characters on each side of a cut that are compared


class LongTextSplitter:
    """Splits texts while every comparison holds, and counts cuts and comparisons."""

    def __init__(self, encode: Encode) -> None:
        self.encode = encode
        self.same_ids = True
        self.compared = 0
        self.cuts = 0

    def split(self, text: str) -> list[str]:
        """The text in parts whose token ids join to the ids of the text."""
        if len(text) < 2 * PART:
            return [text]
        if self.same_ids and self.compared < ENOUGH_CUTS:
            self._compare_sample(text[:SAMPLE])
        if not self.same_ids:
            return [text]
        cuts = [cut for cut in cut_points(text, PART) if self._ids_agree(_around(text, cut))]
        self.cuts += len(cuts)
        return _split_at(text, cuts)

    def metadata(self) -> dict[str, Any]:
        """For the manifest. `same_ids` is None when no cut was compared."""
        return {
            "compared": self.compared,
            "same_ids": self.same_ids if self.compared else None,
            "cuts": self.cuts,
        }

    def _compare_sample(self, text: str) -> None:
        cuts = list(cut_points(text, SAMPLE_PART))
        self.same_ids = self._ids_agree(_split_at(text, cuts)) if cuts else True
        self.compared += len(cuts)

    def _ids_agree(self, parts: list[str]) -> bool:
        joined, *separate = self.encode(["".join(parts), *parts])
        return np.array_equal(joined, np.concatenate(separate))


def cut_points(text: str, distance: int) -> Iterator[int]:
    """Positions after a single newline between letters, `distance` apart and from both ends."""
    newline = text.find("\n", distance)
    while 0 <= newline < len(text) - distance:
        between_letters = text[newline - 1].isalpha() and text[newline + 1].isalpha()
        if between_letters:
            yield newline + 1
        newline = text.find("\n", newline + (distance if between_letters else 1))


def _around(text: str, cut: int) -> list[str]:
    return [text[max(cut - CONTEXT, 0) : cut], text[cut : cut + CONTEXT]]


def _split_at(text: str, cuts: list[int]) -> list[str]:
    return [text[low:high] for low, high in zip([0, *cuts], [*cuts, len(text)], strict=True)]
