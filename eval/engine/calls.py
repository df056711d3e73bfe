"""The forward calls that compute a document. No torch.

A document is computed in calls that end at multiples of `chunk_tokens`, where the context of a
prompt ends, and at its own end. They depend on the document alone: two prompts with equal tokens
up to the end of a call make the same calls up to there, and may share their keys and values, bit
for bit.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from ropewalk.eval.requests import Prompt, Prompts, Request, Text


@dataclass(frozen=True, eq=False)
class Document:
    """Tokens that are computed as one sequence. Those from `first` on are the wanted losses."""

    ids: np.ndarray
    """(S,) int64."""
    first: int

    @property
    def labels(self) -> np.ndarray:
        """(S - first,), of the rows first - 1 to S - 2."""
        return self.ids[self.first :]


def document(item: Text | Prompt) -> Document:
    """A text, or a prompt with its reference answer."""
    if isinstance(item, Text):
        return Document(item.ids, item.first)
    return Document(np.concatenate([item.ids, item.answer]), len(item.ids))


def documents(request: Request) -> list[Document]:
    items = [request] if isinstance(request, Text) else request.prompts
    return [document(item) for item in items]


def call_ends(length: int, chunk_tokens: int, last: int, context: int = 0) -> tuple[int, ...]:
    """Where each call ends. `last`: the last call begins before this token."""
    borders = {*range(chunk_tokens, last, chunk_tokens), context}
    return (*sorted(end for end in borders if 0 < end < last), length)


@dataclass(frozen=True, eq=False)
class PromptCalls:
    """A prompt and the ends of its calls; the last one has the answer, and is never shared."""

    prompt: Prompt
    chunk_tokens: int

    @cached_property
    def document(self) -> Document:
        return document(self.prompt)

    @cached_property
    def ends(self) -> tuple[int, ...]:
        last, context = len(self.prompt.ids), self.prompt.context
        return call_ends(len(self.document.ids), self.chunk_tokens, last, context)

    def shared_with(self, before: "PromptCalls | None") -> int:
        """Tokens at the start that the calls of `before` computed as these would."""
        shared = 0
        for end, its_end in zip(self.ends[:-1], before.ends[:-1] if before else (), strict=False):
            assert before is not None
            span = slice(shared, end)
            if end != its_end or not _equal(self.prompt.ids[span], before.prompt.ids[span]):
                break
            shared = end
        return shared

    def has_context_of(self, other: "PromptCalls") -> bool:
        """Whether both begin with the same context."""
        context = self.prompt.context
        return 0 < context == other.prompt.context and self.shared_with(other) >= context


def _equal(a: np.ndarray, b: np.ndarray) -> bool:
    return bool(np.array_equal(a, b))


def in_order(prompts: Sequence[Prompt]) -> list[int]:
    """The prompts' numbers so that neighbours begin with as many equal tokens as they can."""
    return sorted(range(len(prompts)), key=lambda n: prompts[n].ids.astype(">u8").tobytes())


def runs(calls: Sequence[PromptCalls]) -> Iterator[slice]:
    """Consecutive prompts that begin with the same context."""
    start = 0
    for end in range(1, len(calls) + 1):
        if end == len(calls) or not calls[end].has_context_of(calls[start]):
            yield slice(start, end)
            start = end


def ordered_calls(group: Prompts, chunk_tokens: int) -> tuple[list[int], list[PromptCalls]]:
    """The prompts' numbers in the order in which they are computed, and their calls."""
    order = in_order(group.prompts)
    return order, [PromptCalls(group.prompts[n], chunk_tokens) for n in order]


def computed_tokens(request: Request, chunk_tokens: int) -> int:
    """Tokens of the forward passes of a request, where beginnings are shared."""
    if isinstance(request, Text):
        return request.tokens
    _, calls = ordered_calls(request, chunk_tokens)
    pairs = zip(calls, [None, *calls], strict=False)
    return sum(each.prompt.tokens - each.shared_with(before) for each, before in pairs)


def is_packed(request: Request, chunk_tokens: int) -> bool:
    """Whether its documents are laid end to end with others in one pass without a cache.

    Long documents are computed in calls, decoding needs a cache, and a group's common beginning is
    computed once. Where all of a group fits into one call, one pass is as fast.
    """
    if isinstance(request, Text):
        return request.tokens <= chunk_tokens
    if any(prompt.max_new_tokens or prompt.tokens > chunk_tokens for prompt in request.prompts):
        return False
    saved = request.tokens - computed_tokens(request, chunk_tokens)
    return request.tokens <= chunk_tokens or not saved


def batches(lengths: Sequence[int], batch_tokens: int) -> Iterator[slice]:
    """Slices of consecutive items with at most `batch_tokens` together; a longer item is alone."""
    start = 0
    while start < len(lengths):
        end, size = start + 1, lengths[start]
        while end < len(lengths) and size + lengths[end] <= batch_tokens:
            size += lengths[end]
            end += 1
        yield slice(start, end)
        start = end
