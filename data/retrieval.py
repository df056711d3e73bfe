"""Synthetic retrieval, on token ids: a pass key hidden in real text, and a stretch of text repeated.

Pure: used by the data stage to make training documents, by the eval stage to make questions.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from ropewalk.conf.errors import DataError

NEEDLE = "\nThe pass key is {key}. Remember it. {key} is the pass key.\n"
QUESTION = "\nWhat is the pass key? The pass key is"
ANSWER = " {key}"


@dataclass(frozen=True)
class Passkey:
    ids: np.ndarray  # (length,) the text with needle, question and answer
    answer: int  # how many ids at the end are the answer


def passkey(
    encode: Callable[[str], np.ndarray], filler: np.ndarray, key: str, length: int, depth: float
) -> Passkey:
    """`length` tokens: filler, the needle at `depth` (0 start, 1 end) of it, filler, question, answer.

    Raises: DataError when the length leaves no room for filler, or when the tokenizer joins question and answer.
    """
    needle, question = encode(NEEDLE.format(key=key)), encode(QUESTION)
    asked = encode(QUESTION + ANSWER.format(key=key))
    if not np.array_equal(asked[: len(question)], question):
        raise DataError(
            "passkey: the tokenizer joins question and answer into one token; leave the passkey task out"
        )
    room = length - len(needle) - len(asked)
    if room < 0 or room > len(filler):
        raise DataError(
            f"passkey length is {length}; it must hold {len(needle) + len(asked)} tokens of task and filler of at most "
            f"{len(filler)} tokens; choose another length or longer documents"
        )
    cut = round(depth * room)
    return Passkey(
        np.concatenate([filler[:cut], needle, filler[cut:room], asked]), len(asked) - len(question)
    )


def random_key(rng: np.random.Generator) -> str:
    return "".join(str(d) for d in rng.integers(0, 10, 5))


def stretch(text: np.ndarray, length: int, rng: np.random.Generator) -> np.ndarray:
    """`length` consecutive tokens from a random place of `text`, from its start again where it ends."""
    start = int(rng.integers(0, max(1, len(text) - length)))
    return np.resize(text[start : start + length], length) if len(text) else text


def repeat(text: np.ndarray, length: int, rng: np.random.Generator) -> np.ndarray:
    """A stretch of an eighth to a half of `length`, again and again: each token after the first round can be copied."""
    period = int(np.exp(rng.uniform(np.log(max(1, length // 8)), np.log(max(2, length // 2)))))
    return np.resize(stretch(text, period, rng), length)
