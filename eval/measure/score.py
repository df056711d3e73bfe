"""Forward passes of the eval stage: token losses of windows, answers of questions.

N windows   S tokens of one   E hidden size
"""

from collections.abc import Iterable, Iterator, Sequence
from functools import cached_property
from typing import TypeVar

import numpy as np
import torch
from torch import nn
from tqdm import tqdm
from transformers import PreTrainedModel

from ropewalk.data.dataset import Row, collate, concatenate
from ropewalk.data.retrieval import Passkey
from ropewalk.eval.measure.dealing import deal, rank_and_size
from ropewalk.eval.tasks.task import EvalSuite
from ropewalk.train.attention import document_borders
from ropewalk.train.loss import token_nll
from ropewalk.train.model.build import evaluating
from ropewalk.train.zero.params import gathered

T = TypeVar("T")


class ModelScorer:
    """One model over the suite, with progress bars that name it: the tasks' `Scorer`.

    Its methods are collective: passes are dealt over the ranks, in the batches of one process.
    `body`: the model without its head, where its weights are partitioned over the ranks.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        suite: EvalSuite,
        label: str,
        body: nn.Module | None = None,
    ) -> None:
        self.model, self.suite, self.label, self.body = model, suite, label, body

    @cached_property
    def full_nll(self) -> np.ndarray:
        ids = np.stack([window.ids for window in self.suite.windows])
        return self.window_nll(ids, "loss by position")

    def window_nll(self, windows: np.ndarray, description: str) -> np.ndarray:
        batch_tokens = self.suite.config.batch_tokens
        parts = [windows[part] for part in batches([windows.shape[1]] * len(windows), batch_tokens)]
        losses = deal(
            parts,
            lambda part: window_nll(self.model, part, batch_tokens, self.body),
            lambda share: self.progress(share, description),
            in_step=self.body is not None,
        )
        return np.concatenate(losses)

    def greedy_correct(
        self, groups: Sequence[Sequence[Passkey]], description: str
    ) -> list[list[bool]]:
        batch_tokens = self.suite.config.batch_tokens
        parts = [
            (number, questions[part])
            for number, questions in enumerate(groups)
            for part in batches([len(question.ids) for question in questions], batch_tokens)
        ]
        answers = deal(
            parts,
            lambda part: greedy_correct(self.model, part[1], batch_tokens, self.body),
            lambda share: self.progress(share, description),
            in_step=self.body is not None,
        )
        correct: list[list[bool]] = [[] for _ in groups]
        for (number, _), part_correct in zip(parts, answers, strict=True):
            correct[number] += part_correct
        return correct

    def progress(self, items: Iterable[T], description: str) -> Iterable[T]:
        """A bar on the first rank, over its share."""
        hidden = True if rank_and_size()[0] else None
        return tqdm(items, desc=f"{self.label}: {description}", disable=hidden, leave=False)


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


def hidden_states(model: PreTrainedModel, row: Row, body: nn.Module | None = None) -> torch.Tensor:
    """Last hidden states of documents laid end to end: (S, E)."""
    arrays = (row.input_ids, row.position_ids)
    ids, positions = (torch.from_numpy(array)[None].to(model.device) for array in arrays)
    kwargs = document_borders(torch.from_numpy(row.cu_seqlens), model.device)
    run = model.base_model if body is None else body
    output = run(input_ids=ids, position_ids=positions, use_cache=False, **kwargs)
    return output.last_hidden_state[0]  # type: ignore[no-any-return]


def head(model: PreTrainedModel) -> torch.Tensor:
    """Weight of the output embedding: (vocabulary, E)."""
    return model.get_output_embeddings().weight  # type: ignore[union-attr,return-value]


def losses_and_hits(
    model: PreTrainedModel, hidden: torch.Tensor, labels: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Of hidden states (S, E): the loss of each label in nats, and whether it is likeliest: (S,).

    Collective where the head is partitioned.
    """
    with gathered(head(model)):
        return token_nll(hidden, head(model), labels)


def window_nll(
    model: PreTrainedModel, windows: np.ndarray, batch_tokens: int, body: nn.Module | None = None
) -> np.ndarray:
    """Loss in nats of each token but the first, given all before it: (N, S) -> (N, S-1) float64."""
    count, length = windows.shape
    losses = []
    with evaluating(model):
        for part in batches([length] * count, batch_tokens):
            row = collate([concatenate([window], length) for window in windows[part]])
            labels = torch.from_numpy(row.labels).to(model.device)
            nll, _ = losses_and_hits(model, hidden_states(model, row, body), labels)
            losses.append(nll.double().cpu().numpy().reshape(-1, length)[:, :-1])
    return np.concatenate(losses)


def greedy_correct(
    model: PreTrainedModel,
    questions: Sequence[Passkey],
    batch_tokens: int,
    body: nn.Module | None = None,
) -> list[bool]:
    """Whether greedy decoding gives the whole answer.

    One pass over question and answer decides it: greedy decoding succeeds exactly when each
    answer token is the most likely one after the correct tokens before it.
    """
    correct: list[bool] = []
    with evaluating(model):
        for part in batches([len(question.ids) for question in questions], batch_tokens):
            correct += _answers_correct(model, questions[part], body)
    return correct


def _answers_correct(
    model: PreTrainedModel, questions: Sequence[Passkey], body: nn.Module | None
) -> list[bool]:
    """One forward pass over all `questions`, end to end."""
    row = collate([concatenate([q.ids], len(q.ids)) for q in questions])
    ends = np.cumsum([len(q.ids) for q in questions])
    pairs = zip(ends, questions, strict=True)
    spans = [np.arange(end - q.after - q.answer_len - 1, end - q.after - 1) for end, q in pairs]
    index = torch.from_numpy(np.concatenate(spans)).to(model.device)
    labels = torch.from_numpy(row.labels).to(model.device)[index]
    _, hits = losses_and_hits(model, hidden_states(model, row, body)[index], labels)
    return [bool(hit.all()) for hit in hits.cpu().split([q.answer_len for q in questions])]
