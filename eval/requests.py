"""What a model is asked, and what it answers: token ids in, losses or replies out. No torch.

S tokens of a text or prompt   A tokens of an answer
"""

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from ropewalk.conf.artifacts.records import fingerprint


@dataclass(frozen=True, eq=False)
class Text:
    """Tokens whose losses are measured, each given all before it."""

    ids: np.ndarray
    """(S,) int64."""
    first: int = 1
    """Position of the first token whose loss is kept, from 1."""

    @property
    def tokens(self) -> int:
        return len(self.ids)


@dataclass(frozen=True, eq=False)
class Prompt:
    """A prompt with its reference answer, decoded greedily."""

    ids: np.ndarray
    """(S,) int64, without the answer."""
    answer: np.ndarray
    """(A,) int64."""
    context: int = 0
    """Tokens at the start, before the question: the prompts of a group that begin with the same
    context share its forward pass."""
    max_new_tokens: int = 0
    """Tokens to decode; 0: only the reference answer is judged, in one pass."""
    until: tuple[str, ...] = ()
    """Decoding ends early once the new text contains all of these."""

    @property
    def tokens(self) -> int:
        return len(self.ids) + max(len(self.answer), self.max_new_tokens)


@dataclass(frozen=True, eq=False)
class Prompts:
    """Prompts that are answered one after the other, such as the questions about one haystack."""

    prompts: tuple[Prompt, ...]

    @property
    def tokens(self) -> int:
        """As many as are computed, where each context is read once."""
        return sum(prompt.tokens for prompt in self.prompts)


@dataclass(frozen=True)
class Reply:
    """A model's answer to a prompt."""

    correct: int
    """Leading tokens of the reference answer that greedy decoding gives."""
    nll: float
    """Loss of the reference answer, the sum over its tokens, nats."""
    ids: tuple[int, ...] = ()
    """The new tokens, where they were decoded."""


Request = Text | Prompts
Result = np.ndarray | tuple[Reply, ...]
"""Of a Text: (S - first,) float32 losses in nats. Of Prompts: one reply a prompt."""


def answered(request: Request, result: Result) -> list[bool]:
    """Whether greedy decoding gives the whole reference answer, for each prompt."""
    assert isinstance(request, Prompts) and isinstance(result, tuple)
    pairs = zip(request.prompts, result, strict=True)
    return [reply.correct == len(prompt.answer) for prompt, reply in pairs]


def digest(request: Request) -> str:
    """What a request is known by: two with equal content have one result."""
    parts: list[bytes] = []
    if isinstance(request, Text):
        parts += [b"text", _bytes(request.ids), str(request.first).encode()]
    else:
        for prompt in request.prompts:
            rule = f"{prompt.context} {prompt.max_new_tokens} {prompt.until!r}"
            parts += [b"prompt", _bytes(prompt.ids), _bytes(prompt.answer), rule.encode()]
    lengths = " ".join(str(len(part)) for part in parts).encode()
    return hashlib.sha256(lengths + b"\n" + b"".join(parts)).hexdigest()[:32]


def prompt_hash(requests: Iterable[Request]) -> str:
    """Of several requests, in their order."""
    return fingerprint([digest(request) for request in requests])[:16]


def _bytes(ids: np.ndarray) -> bytes:
    return np.ascontiguousarray(ids, dtype="<i8").tobytes()
