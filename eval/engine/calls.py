"""The forward calls that compute a document. No torch.

A text is computed in calls that end at multiples of `chunk_tokens`, and at its own end; a prompt
also where its context ends, and where it parts from other prompts of its group. These places do
not depend on what is shared: two prompts with equal tokens up to the end of a call make the same
calls up to there, and may share their keys and values, bit for bit.
"""

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise

import numpy as np

from ropewalk.eval.requests import Prompt, Prompts, Request, Text

NEAREST = 16
"""A parting ends a call where this part of `chunk_tokens` is behind it."""


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


def text_ends(text: Text, chunk_tokens: int) -> list[int]:
    """Where each call of a text ends."""
    return [*range(chunk_tokens, text.tokens, chunk_tokens), text.tokens]


def prompt_ends(prompt: Prompt, chunk_tokens: int, partings: Collection[int]) -> list[int]:
    """Where each call of a prompt ends; the last one has its answer.

    A parting soon after another call's end is passed over: that call would save little.
    """
    last, nearest = len(prompt.ids), chunk_tokens // NEAREST
    fixed = {*range(chunk_tokens, last, chunk_tokens), prompt.context} - {0}
    ends: list[int] = []
    for end in sorted(fixed.union(partings)):
        if end < last and (end in fixed or end - (ends[-1] if ends else 0) >= nearest):
            ends.append(end)
    return [*ends, last + len(prompt.answer)]


@dataclass(frozen=True, eq=False)
class PromptCalls:
    """A prompt and the ends of its calls; the last one is never shared."""

    prompt: Prompt
    ends: Sequence[int]

    @cached_property
    def document(self) -> Document:
        return document(self.prompt)

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


def common_start(a: np.ndarray, b: np.ndarray) -> int:
    """How many tokens at their start are equal."""
    shorter = min(len(a), len(b))
    differs = a[:shorter] != b[:shorter]
    return int(differs.argmax()) if differs.any() else shorter


def partings(ids: Sequence[np.ndarray]) -> list[set[int]]:
    """Where each of these prompts, which are in the order of their tokens, parts from others."""
    common = [common_start(a, b) for a, b in pairwise(ids)]
    before, after = (_least_so_far(part) for part in (common, common[::-1]))
    return [{*before[n], *after[len(ids) - 1 - n]} for n in range(len(ids))]


def _least_so_far(common: Sequence[int]) -> list[set[int]]:
    """Of each prompt: its common starts with all before it, from those of neighbours."""
    sets: list[set[int]] = [set()]
    for tokens in common:
        sets.append({tokens, *(min(tokens, other) for other in sets[-1])})
    return sets


def runs(calls: Sequence[PromptCalls]) -> Iterator[slice]:
    """Consecutive prompts that begin with the same context."""
    start = 0
    for end in range(1, len(calls) + 1):
        if end == len(calls) or not calls[end].has_context_of(calls[start]):
            yield slice(start, end)
            start = end


def ordered_calls(group: Prompts, chunk_tokens: int) -> tuple[list[int], list[PromptCalls]]:
    """The prompts' numbers in the order in which they are computed, and their calls.

    In the order of their tokens, neighbours begin with as many equal tokens as they can.
    """
    prompts = group.prompts
    order = sorted(range(len(prompts)), key=lambda n: prompts[n].ids.astype(">u8").tobytes())
    ordered = [prompts[n] for n in order]
    places = partings([prompt.ids for prompt in ordered])
    pairs = zip(ordered, places, strict=True)
    return order, [PromptCalls(p, prompt_ends(p, chunk_tokens, at)) for p, at in pairs]


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
