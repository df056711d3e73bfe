"""The forward passes of one model. Where its weights lie in parts on all ranks, every pass gathers
them on every rank: the ranks then make equally many, whatever each of them computes."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from torch import nn
from transformers import PreTrainedModel

from ropewalk.eval.engine import calls, passes
from ropewalk.eval.engine.calls import Document
from ropewalk.eval.engine.passes import Inputs, Scores
from ropewalk.train.zero.params import gathered

Rows = slice | np.ndarray
"""Of the hidden states of a pass, those that the head is computed on."""


class Forward:
    """A call computes the model on some inputs, and the head on some of their rows.

    `body`: the model without its head, where its weights are partitioned over the ranks.
    """

    def __init__(self, model: PreTrainedModel, body: nn.Module | None = None) -> None:
        self.model, self.body = model, body

    @property
    def device(self) -> torch.device:
        return self.model.device

    def __call__(self, inputs: Inputs, rows: Rows, labels: np.ndarray) -> Scores:
        """The scores of those rows of the pass's hidden states; labels (S,), -100 for none."""
        self._is_made(True)
        return self._compute(inputs, rows, labels)

    def documents(self, documents: Sequence[Document], batch_tokens: int) -> list[Scores]:
        """The scores of each document's wanted tokens, (S - first,), without a cache: documents of
        at most `batch_tokens` in all are laid end to end in one pass."""
        scores: list[Scores] = []
        for part in calls.batches([len(doc.ids) for doc in documents], batch_tokens):
            scores += self._packed(documents[part])
        return scores

    def _packed(self, documents: Sequence[Document]) -> list[Scores]:
        ends = np.cumsum([len(doc.ids) for doc in documents])
        rows = [
            np.arange(end - len(doc.labels), end) - 1
            for end, doc in zip(ends, documents, strict=True)
        ]
        inputs = passes.packed([doc.ids for doc in documents], self.device)
        labels = np.concatenate([doc.labels for doc in documents])
        return self(inputs, np.concatenate(rows), labels).split([len(part) for part in rows])

    def hidden(self, inputs: Inputs) -> torch.Tensor:
        """All hidden states of a pass, fp32: (S, E)."""
        self._is_made(True)
        hidden = self._run(inputs)
        with gathered(passes.head(self.model)):  # as every call does
            return hidden.float()

    @contextmanager
    def in_step(self) -> Iterator[None]:
        """Collective where weights are partitioned: each rank makes its calls while it is open,
        and at the end joins those that others still make."""
        yield
        while self._is_made(False):
            token = np.zeros(1, np.int64)
            self._compute(passes.packed([token], self.device), slice(0, 1), token)

    def _is_made(self, here: bool) -> bool:
        """Whether any rank makes a call now."""
        if self.body is None:
            return here
        any_rank = torch.tensor(here, dtype=torch.int32, device=self.device)
        dist.all_reduce(any_rank, dist.ReduceOp.MAX)
        return bool(any_rank)

    def _run(self, inputs: Inputs) -> torch.Tensor:
        run: Any = self.model.base_model if self.body is None else self.body
        return run(**inputs).last_hidden_state.flatten(0, 1)  # type: ignore[no-any-return]

    def _compute(self, inputs: Inputs, rows: Rows, labels: np.ndarray) -> Scores:
        hidden, weight = self._run(inputs)[rows], passes.head(self.model)
        with gathered(weight):
            return passes.scores(hidden, weight, torch.from_numpy(labels).to(self.device))
