"""Tokens with the characters and the word that each was made of."""

import json
import re
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from tokenizers import Tokenizer

_JOINED_WORDS = re.compile(r"[^\W\d_][ \n▁ĠĊ]")
# a letter, then a space or a newline, also as SentencePiece and byte-level BPE write them


@dataclass(frozen=True)
class Located:
    """Tokens of a text, arrays (tokens,) each."""

    ids: np.ndarray  # uint32
    start: np.ndarray  # the first character
    stop: np.ndarray  # after the last character
    word: np.ndarray  # the number of its word: what the pre-tokenizer split off

    def before(self, position: int) -> int | None:
        """How many tokens end by character `position`; None when one lies across it."""
        count = int(np.searchsorted(self.stop, position, side="right"))
        in_order = bool((self.stop[:count] <= position).all())
        return count if in_order and bool((self.start[count:] >= position).all()) else None

    def ends_word(self, count: int) -> bool:
        """Whether a word ends with the first `count` tokens."""
        return bool(self.word[count - 1] != self.word[count])


class Locator:
    """Encodes a text with offsets. The tokenizer is copied on first use."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self.tokenizer = tokenizer

    def __call__(self, text: str) -> Located:
        encoding = self._without_post_processor.encode(text, add_special_tokens=False)
        offsets = np.array(encoding.offsets, dtype=np.int64).reshape(-1, 2)
        word = np.array([-1 if w is None else w for w in encoding.word_ids], dtype=np.int64)
        ids = np.array(encoding.ids, dtype=np.uint32)
        return Located(ids, offsets[:, 0], offsets[:, 1], word)

    @cached_property
    def merges_pairs(self) -> bool:
        """Whether the model is a BPE without dropout, whose merges cross no border of its result.

        A border between two of its tokens splits the text into halves that are merged alone. The
        halves of another split join to the result of the text if the two tokens at the border,
        merged alone, stay two. A Viterbi path (Unigram) has no such local proof.
        """
        model = json.loads(self.tokenizer.to_str())["model"]
        return model["type"] == "BPE" and not model.get("dropout")

    @cached_property
    def normalizes(self) -> bool:
        return self.tokenizer.normalizer is not None

    @cached_property
    def keeps_words_apart(self) -> bool:
        """Whether no token holds a letter and the space or newline after it."""
        return not any(map(_JOINED_WORDS.search, self.tokenizer.get_vocab()))

    @cached_property
    def _without_post_processor(self) -> Tokenizer:
        """A copy: the post-processor of byte-level tokenizers takes spaces out of the offsets.

        A Unigram has none, and is not copied: JSON rounds its scores, which decides ties.
        """
        content = json.loads(self.tokenizer.to_str())
        if content["model"]["type"] == "Unigram":
            return self.tokenizer
        content["post_processor"] = None
        copy = Tokenizer.from_str(json.dumps(content))
        copy.encode_special_tokens = self.tokenizer.encode_special_tokens
        return copy
