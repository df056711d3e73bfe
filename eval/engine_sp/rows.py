"""Documents of one pass over several ranks, and a rank's slice of them.

P ranks of a sequence   S tokens of the row, a multiple of P   A tokens of an answer
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch

from ropewalk.data.dataset import IGNORE, Row
from ropewalk.eval.engine.calls import Document, document
from ropewalk.eval.requests import Prompt, Prompts, Text
from ropewalk.train.attention import document_borders
from ropewalk.train.attention.shared_context import row_after_context, shared_context


@dataclass(frozen=True, eq=False)
class SharedRow:
    """Documents of a pass; with a `context` all begin with its tokens, which the first one has."""

    documents: tuple[Document, ...]
    context: int
    sp_size: int

    @cached_property
    def ends(self) -> np.ndarray:
        """The end of each document in the row."""
        shared = [0, *[self.context] * (len(self.documents) - 1)]
        lengths = [len(d.ids) - n for d, n in zip(self.documents, shared, strict=True)]
        return np.cumsum(lengths)

    @cached_property
    def row(self) -> Row:
        """Padded to a multiple of P; the padding is a document of its own."""
        parts = [d.ids[self.context if n else 0 :] for n, d in enumerate(self.documents)]
        length = -(-int(self.ends[-1]) // self.sp_size) * self.sp_size
        return row_after_context(parts, self.context, length)

    @cached_property
    def document(self) -> np.ndarray:
        """The number of the document of each token; that of the padding is the last: (S,)."""
        return np.searchsorted(self.ends, np.arange(len(self.row.input_ids)), side="right")

    @cached_property
    def scored_rows(self) -> list[np.ndarray]:
        """Of each document the rows whose next tokens are scored: from its first label's on, the
        last one, which has no label, included."""
        pairs = zip(self.ends, self.documents, strict=True)
        return [np.arange(end - len(d.labels) - 1, end) for end, d in pairs]

    @cached_property
    def labels(self) -> np.ndarray:
        """(S,): the scored tokens, else IGNORE."""
        labels = np.full(len(self.row.input_ids), IGNORE)
        for rows, d in zip(self.scored_rows, self.documents, strict=True):
            labels[rows[:-1]] = d.labels
        return labels

    def part(self, sp_rank: int) -> slice:
        width = len(self.row.input_ids) // self.sp_size
        return slice(sp_rank * width, (sp_rank + 1) * width)

    def inputs(self, sp_rank: int, device: torch.device) -> dict[str, Any]:
        """The model's arguments for a rank's slice, with the borders of the whole row."""
        part = self.part(sp_rank)
        arrays = (self.row.input_ids[part], self.row.position_ids[part])
        ids, positions = (torch.from_numpy(array)[None].to(device) for array in arrays)
        borders = document_borders(torch.from_numpy(self.row.cu_seqlens), device)
        inputs = {"input_ids": ids, "position_ids": positions, "use_cache": False, **borders}
        if self.context and len(self.documents) > 1:
            ends, count = borders["document_ends"], len(self.documents)
            inputs["shared_context"] = shared_context(ends, count, self.context, device)
        return inputs

    def scored_rows_of(self, sp_rank: int) -> np.ndarray:
        """The scored rows of a rank's slice, counted in it."""
        part, rows = self.part(sp_rank), np.concatenate(self.scored_rows)
        return rows[(rows >= part.start) & (rows < part.stop)] - part.start


def row_of_texts(texts: Sequence[Text], sp_size: int) -> SharedRow:
    return SharedRow(tuple(map(document, texts)), 0, sp_size)


def rows_of_prompts(
    group: Prompts, sp_size: int, *, share: bool
) -> Iterator[tuple[tuple[Prompt, ...], SharedRow]]:
    """Prompts that are asked in one pass, with their row: those that begin with one context."""
    for prompts in _runs(group.prompts) if share else ((prompt,) for prompt in group.prompts):
        context = prompts[0].context if len(prompts) > 1 else 0
        yield prompts, SharedRow(tuple(map(document, prompts)), context, sp_size)


def _runs(prompts: Sequence[Prompt]) -> Iterator[tuple[Prompt, ...]]:
    start = 0
    for end in range(1, len(prompts) + 1):
        if end == len(prompts) or not _have_one_context(prompts[start], prompts[end]):
            yield tuple(prompts[start:end])
            start = end


def _have_one_context(first: Prompt, other: Prompt) -> bool:
    context = first.context
    if not 0 < context == other.context:
        return False
    return bool(np.array_equal(first.ids[:context], other.ids[:context]))
