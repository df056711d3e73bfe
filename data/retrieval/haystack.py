"""A text and the questions about it, which share its tokens."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from ropewalk.conf.errors import DataError

Encode = Callable[[str], np.ndarray]
"""A text to token ids (tokens,) int64, without special tokens."""


class TooShort(DataError):
    """A length without room for the least that a haystack holds."""


@dataclass(frozen=True, eq=False)
class Question:
    """A question at the end of a haystack, and its answer."""

    ids: np.ndarray
    """(tokens,) of the question."""
    answer: np.ndarray
    """(tokens,) of the answer, which follow the question's."""
    key: str
    """What is asked for."""
    value: str
    """The answer as text."""
    depth: float
    """Where the answer stands in the haystack, from 0 (start) to 1 (end)."""

    @property
    def tokens(self) -> int:
        return len(self.ids) + len(self.answer)


@dataclass(frozen=True, eq=False)
class Haystack:
    """The tokens that all its questions share, and the questions."""

    context: np.ndarray
    """(tokens,) before each question."""
    questions: tuple[Question, ...]
    pairs: int
    """Facts of the asked kind in the haystack, each of which could be mistaken for another."""

    @property
    def tokens(self) -> int:
        """Of the context with its longest question and answer."""
        return len(self.context) + max(question.tokens for question in self.questions)


def continuation(encode: Encode, before: str, text: str, task: str) -> np.ndarray:
    """Token ids of `text` where it follows `before`.

    Raises: DataError when the tokenizer joins the end of `before` and the start of `text`.
    """
    first, both = encode(before), encode(before + text)
    if not np.array_equal(both[: len(first)], first):
        raise DataError(
            f"{task}: {text[:12]!r} follows {before[-12:]!r}; the tokenizer must end a token "
            f"between question and answer, and joins them; leave {task} out of eval.tasks"
        )
    return both[len(first) :]


def ask(
    encode: Encode, before: str, question: str, answer: str, task: str
) -> tuple[np.ndarray, np.ndarray]:
    """Token ids of a question and of its answer, where they follow `before`. Raises: DataError."""
    ids = continuation(encode, before, question, task)
    return ids, continuation(encode, before + question, answer, task)
