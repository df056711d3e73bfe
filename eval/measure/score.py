"""Forward passes of the eval stage: token losses of windows, answers of questions. The only part that needs torch.

N windows   S tokens of one   E hidden size
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from transformers import PreTrainedModel

from ropewalk.data.dataset import Row, collate, concatenate
from ropewalk.data.retrieval import Passkey
from ropewalk.train.attention import document_borders
from ropewalk.train.loss import token_nll


def batches(lengths: Sequence[int], batch_tokens: int) -> Iterator[slice]:
    """Slices of consecutive items of at most `batch_tokens` together; a longer item stands alone."""
    start = 0
    while start < len(lengths):
        end, size = start + 1, lengths[start]
        while end < len(lengths) and size + lengths[end] <= batch_tokens:
            size += lengths[end]
            end += 1
        yield slice(start, end)
        start = end


@contextmanager
def evaluating(model: PreTrainedModel) -> Iterator[None]:
    model.eval()
    with torch.no_grad():
        yield


def hidden_states(model: PreTrainedModel, row: Row) -> torch.Tensor:
    """Last hidden states of documents laid end to end: (S, E)."""
    at: Any = model.device
    ids, positions = (torch.from_numpy(x)[None].to(at) for x in (row.input_ids, row.position_ids))
    marks = document_borders(torch.from_numpy(row.cu_seqlens), at)
    return model.base_model(
        input_ids=ids, position_ids=positions, use_cache=False, **marks
    ).last_hidden_state[0]  # type: ignore[no-any-return]


def head(model: PreTrainedModel) -> torch.Tensor:
    return model.get_output_embeddings().weight  # type: ignore[union-attr,return-value]


def window_nll(model: PreTrainedModel, windows: np.ndarray, batch_tokens: int) -> np.ndarray:
    """Loss in nats of each token but the first, given all before it in its window. (N, S) -> (N, S-1) float64."""
    count, length = windows.shape
    found = []
    with evaluating(model):
        for part in batches([length] * count, batch_tokens):
            row = collate([concatenate([w], length) for w in windows[part]])
            labels = torch.from_numpy(row.labels).to(model.device)
            nll, _ = token_nll(hidden_states(model, row), head(model), labels)
            found.append(nll.double().cpu().numpy().reshape(-1, length)[:, :-1])
    return np.concatenate(found)


def greedy_correct(
    model: PreTrainedModel, questions: Sequence[Passkey], batch_tokens: int
) -> list[bool]:
    """Whether greedy decoding gives the whole answer: each answer token must be the most likely after the right ones.

    One pass over question and answer is exactly greedy decoding's verdict, since it compares up to the first error.
    """
    found: list[bool] = []
    with evaluating(model):
        for part in batches([len(q.ids) for q in questions], batch_tokens):
            asked = questions[part]
            row = collate([concatenate([q.ids], len(q.ids)) for q in asked])
            ends = np.cumsum([len(q.ids) for q in asked])
            places = np.concatenate(
                [np.arange(e - q.answer_len - 1, e - 1) for e, q in zip(ends, asked, strict=True)]
            )
            at = torch.from_numpy(places).to(model.device)
            labels = torch.from_numpy(row.labels).to(model.device)[at]
            _, hit = token_nll(hidden_states(model, row)[at], head(model), labels)
            found += [bool(h.all()) for h in hit.cpu().split([q.answer_len for q in asked])]
    return found
