"""How many bytes of text each token stands for, so that losses compare across tokenizers."""

import re
from collections.abc import Callable

import numpy as np

from ropewalk.data.tokenizer.run_tokenizer import RunTokenizer

SLACK = 8
"""Tokens at either end of a text that may be split differently: a window begins inside a word."""
MOST_EXTRA_BYTES = 8
"""Bytes that the ends of a text may add: parts of a character, and a space that decoding drops."""
REPLACEMENT = "\ufffd"
BYTE_TOKEN = re.compile(r"<0x[0-9A-Fa-f]{2}>")


def byte_counter(tokenizer: RunTokenizer) -> Callable[[np.ndarray], np.ndarray | None]:
    """A function from the ids of a text (S,) to the bytes of each token, (S,) int64.

    It gives None where they are not known: the tokenizer does not give these ids back from their
    text, or the tokens' bytes do not add up to it.
    """
    backend, sizes = tokenizer.backend, dict[int, int]()
    anchor = backend.encode("a", add_special_tokens=False).ids[-1:]

    def decode(ids: list[int]) -> str:
        return str(backend.decode(ids, skip_special_tokens=False))

    def size(number: int) -> int:
        """Of a part of a character the decoder shows no text, and the token's name has its bytes:
        a letter a byte in byte-level BPE, <0x..> in SentencePiece."""
        text = decode([*anchor, number])[len(decode(anchor)) :]
        if REPLACEMENT not in text:
            return len(text.encode())
        name = backend.id_to_token(number) or ""
        return 1 if BYTE_TOKEN.fullmatch(name) else len(name)

    def count(ids: np.ndarray) -> np.ndarray | None:
        text = decode(ids.tolist())
        again = np.asarray(backend.encode(text, add_special_tokens=False).ids)
        for number in set(ids.tolist()) - sizes.keys():
            sizes[number] = size(number)
        counts = np.array([sizes[number] for number in ids.tolist()], dtype=np.int64)
        extra = abs(int(counts.sum()) - len(text.encode()))
        return counts if extra <= MOST_EXTRA_BYTES and gives_back(ids, again) else None

    return count


def gives_back(ids: np.ndarray, again: np.ndarray) -> bool:
    """Whether `again` (the ids of the text of `ids`) has all but the first and last ids."""
    middle = ids[SLACK:-SLACK]
    starts = range(min(2 * SLACK, len(again) - len(middle)) + 1)
    return np.array_equal(ids, again) or any(
        len(middle) and np.array_equal(again[start : start + len(middle)], middle)
        for start in starts
    )
