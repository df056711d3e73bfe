"""JSON key-value retrieval while training: the questions about a haystack in one pass, no decoding.

A question is answered if each token of its answer is the likeliest after those before it: greedy
decoding would give the answer.

Q questions   S tokens of a rank's row
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

from ropewalk.data.dataset import IGNORE, Row
from ropewalk.data.proportion import wilson
from ropewalk.data.retrieval import Haystack, Question
from ropewalk.train.attention.shared_context import row_after_context, shared_context
from ropewalk.train.loop.dealing import local_slices, padded
from ropewalk.train.loop.micro_batches import to_device
from ropewalk.train.loss_model import LossModel
from ropewalk.train.model.geometry import head_counts
from ropewalk.train.transfer import copy_to_device
from ropewalk.train.zero.mesh import Mesh, all_reduce_sum, device


@dataclass(frozen=True, eq=False)
class Pass:
    """Questions about one context that are asked in one forward pass."""

    context: np.ndarray
    questions: tuple[Question, ...]
    first: int
    """The number of the first question, counted over all haystacks."""

    def documents(self) -> list[np.ndarray]:
        """The context with the first question and its answer, then each other question alone."""
        texts = [np.concatenate([q.ids, q.answer]) for q in self.questions]
        return [np.concatenate([self.context, texts[0]]), *texts[1:]]

    def row(self, sp_size: int) -> Row:
        """A row whose labels are the answers', padded for `sp_size` ranks."""
        documents = self.documents()
        length = padded(sum(map(len, documents)), sp_size)
        row = row_after_context(documents, len(self.context), length)
        labels = np.where(self.asked(len(row.labels)) >= 0, row.labels, IGNORE)
        return replace(row, labels=labels)

    def asked(self, tokens: int) -> np.ndarray:
        """(tokens,) int64: the number of the question whose answer a label belongs to, else -1."""
        number = np.full(tokens, -1)
        ends = np.cumsum([len(document) for document in self.documents()])
        for index, (end, question) in enumerate(zip(ends, self.questions, strict=True)):
            number[end - 1 - len(question.answer) : end - 1] = self.first + index
        return number


def passes(haystacks: Sequence[Haystack], is_shared: bool) -> Iterator[Pass]:
    """One for each haystack where its questions share the context, else one for each question."""
    first = 0
    for haystack in haystacks:
        count = len(haystack.questions) if is_shared else 1
        for start in range(0, len(haystack.questions), count):
            questions = haystack.questions[start : start + count]
            yield Pass(haystack.context, questions, first + start)
        first += len(haystack.questions)


class KeyValueRetrieval:
    """Every question about each of `haystacks`, over all ranks."""

    def __init__(self, module: LossModel, haystacks: Sequence[Haystack], mesh: Mesh) -> None:
        self.module, self.haystacks, self.mesh = module, haystacks, mesh
        # where keys are gathered in parts, the parts are planned for documents that begin at 0
        is_shared = head_counts(module.model.config)[0] % mesh.sp_size == 0
        self.passes = list(passes(haystacks, is_shared))

    def measure(self, after_pass: Callable[[], None]) -> dict[str, Any]:
        """Collective. The shares of questions answered; the model is in evaluation mode."""
        questions = [question for haystack in self.haystacks for question in haystack.questions]
        sums = torch.zeros(len(questions), 2, dtype=torch.float64, device=device())
        for number, part, row in local_slices(len(self.passes), self._row, self.mesh):
            asked = self.passes[number].asked(int(row.cu_seqlens[-1]))[part]
            self._add(sums, row, asked, self.passes[number])
            after_pass()
        misses, nll = all_reduce_sum(sums).cpu().unbind(1)
        return {
            "length": max(haystack.tokens for haystack in self.haystacks),
            "haystacks": len(self.haystacks),
            **shares(questions, (misses == 0).tolist(), len(self.haystacks)),
            "answer_nll": float(nll.sum()) / sum(len(q.answer) for q in questions),
        }

    def _row(self, number: int) -> Row:
        return self.passes[number].row(self.mesh.sp_size)

    def _add(self, sums: torch.Tensor, row: Row, asked: np.ndarray, of_row: Pass) -> None:
        """Add a row: of each question the labels that are not the likeliest, and their loss."""
        batch, shared = to_device(row), None
        if len(of_row.questions) > 1:
            documents, context = len(of_row.questions), len(of_row.context)
            shared = shared_context(batch["document_ends"], documents, context, device())
            batch["shared_context"] = shared
        self.module(**batch, total_labels=1)
        assert shared is None or shared.layers, "the model hands its attention no shared context"
        counted = batch["label_positions"]
        number = copy_to_device(asked, device())[counted]
        values = torch.stack([~self.module.hits[counted], self.module.nll[counted]], 1)
        sums.index_add_(0, number, values.double())


def shares(
    questions: Sequence[Question], answered: Sequence[bool], haystacks: int
) -> dict[str, Any]:
    """The shares answered, of all questions and by depth, with 95% intervals.

    Questions about one haystack are not independent of one another: the interval of all is that of
    as many questions as there are haystacks.
    """
    by_depth: dict[float, list[bool]] = {}
    for question, is_answered in zip(questions, answered, strict=True):
        by_depth.setdefault(question.depth, []).append(is_answered)
    rows = [{"depth": depth, **_share(hits, len(hits))} for depth, hits in sorted(by_depth.items())]
    return {**_share(answered, haystacks), "by_depth": rows}


def _share(answered: Sequence[bool], units: int) -> dict[str, Any]:
    n, share = len(answered), sum(answered) / len(answered)
    low, high = wilson(share * units, units)
    return {"n": n, "accuracy": share, "low": low, "high": high}
