"""A pass key hidden in real text, and a span of text repeated."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from ropewalk.conf.errors import DataError

NEEDLE = "\nThe pass key is {key}. Remember it. {key} is the pass key.\n"
QUESTION = "\nWhat is the pass key? The pass key is"
ANSWER = " {key}"


class Tokens(Protocol):
    """Token ids, an array (tokens,) or what is sliced as one."""

    def __len__(self) -> int: ...
    def __getitem__(self, span: slice, /) -> np.ndarray: ...


@dataclass(frozen=True)
class Passkey:
    ids: np.ndarray  # (length,) the text with needle, question and answer
    answer_len: int  # tokens of the answer, at the end of the text
    after: int = 0  # tokens after the answer: 1 with an end token


def passkey(
    encode: Callable[[str], np.ndarray], filler: np.ndarray, key: str, length: int, depth: float
) -> Passkey:
    """`length` tokens: filler, the needle at `depth` of it (0 start, 1 end), question, answer.

    `encode` maps a text to token ids (tokens,); `filler` is (at least `length`,) token ids.
    Raises: DataError when the length has no room for filler, or when the tokenizer joins question
    and answer.
    """
    needle, question = encode(NEEDLE.format(key=key)), encode(QUESTION)
    answered = encode(QUESTION + ANSWER.format(key=key))
    if not np.array_equal(answered[: len(question)], question):
        raise DataError(
            "passkey: the tokenizer joins question and answer into one token; "
            "leave the passkey task out"
        )
    task = len(needle) + len(answered)
    room = length - task
    if room < 0 or room > len(filler):
        raise DataError(
            f"passkey length is {length}; it must hold {task} tokens of task and filler of at most "
            f"{len(filler)} tokens; choose another length or longer documents"
        )
    position = round(depth * room)
    ids = np.concatenate([filler[:position], needle, filler[position:room], answered])
    return Passkey(ids, len(answered) - len(question))


def random_key(rng: np.random.Generator) -> str:
    return "".join(str(digit) for digit in rng.integers(0, 10, 5))


def random_span(text: Tokens, length: int, rng: np.random.Generator) -> np.ndarray:
    """(length,): consecutive tokens of `text` from a random start, repeated if it is too short."""
    start = int(rng.integers(0, max(1, len(text) - length)))
    return np.resize(text[start : start + length], length) if len(text) else text[:0]


def repeat(text: Tokens, length: int, rng: np.random.Generator) -> np.ndarray:
    """(length,): a random span of an eighth to a half of `length`, repeated.

    Every token after the first period can be copied from the period before.
    """
    shortest, longest = max(1, length // 8), max(2, length // 2)
    period = int(np.exp(rng.uniform(np.log(shortest), np.log(longest))))
    return np.resize(random_span(text, period, rng), length)
