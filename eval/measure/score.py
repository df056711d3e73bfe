"""Forward passes of the eval stage: the losses of texts, and answers to prompts.

N windows   S tokens of one pass   E hidden size
"""

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch import nn
from transformers import PreTrainedModel

from ropewalk.data.dataset import Row, collate, concatenate
from ropewalk.eval.requests import Prompt, Reply, Request, Result, Text
from ropewalk.train.attention import document_borders
from ropewalk.train.loss import token_nll
from ropewalk.train.model.build import evaluating
from ropewalk.train.zero.params import gathered


class Engine:
    """One model that answers requests, a batch a call.

    `body`: the model without its head, where its weights are partitioned over the ranks.
    """

    def __init__(
        self, model: PreTrainedModel, batch_tokens: int, body: nn.Module | None = None
    ) -> None:
        self.model, self.batch_tokens, self.body = model, batch_tokens, body

    def batches(self, requests: Sequence[Request]) -> list[Sequence[Request]]:
        """The requests in their order, in parts that `measure` computes at once."""
        tokens = [request.tokens for request in requests]
        return [requests[part] for part in batches(tokens, self.batch_tokens)]

    def measure(self, requests: Sequence[Request]) -> list[Result]:
        """The result of each request. Collective where the weights are partitioned."""
        documents = [ids for request in requests for ids in _documents(request)]
        with evaluating(self.model):
            nll, hits = self._pass(documents)
        ends = np.cumsum([len(ids) for ids in documents])[:-1]
        parts = iter(zip(np.split(nll, ends), np.split(hits, ends), strict=True))
        return [_result(request, parts) for request in requests]

    def _pass(self, documents: Sequence[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
        """Loss of the next token, and whether it is the likeliest, at each place: (S,)."""
        row = collate([concatenate([ids], len(ids)) for ids in documents])
        labels = torch.from_numpy(row.labels).to(self.model.device)
        hidden = hidden_states(self.model, row, self.body)
        nll, hits = losses_and_hits(self.model, hidden, labels)
        return nll.float().cpu().numpy(), hits.cpu().numpy()


def _documents(request: Request) -> list[np.ndarray]:
    if isinstance(request, Text):
        return [request.ids]
    return [np.concatenate([prompt.ids, prompt.answer]) for prompt in request.prompts]


def _result(request: Request, parts: Iterator[tuple[np.ndarray, np.ndarray]]) -> Result:
    """The result of a request, whose documents are the next of `parts`."""
    if isinstance(request, Text):
        nll, _ = next(parts)
        return nll[request.first - 1 : -1]
    return tuple(_reply(prompt, *next(parts)) for prompt in request.prompts)


def _reply(prompt: Prompt, nll: np.ndarray, hits: np.ndarray) -> Reply:
    """Greedy decoding gives the answer as far as each token is the likeliest after those before."""
    span = slice(len(prompt.ids) - 1, len(prompt.ids) - 1 + len(prompt.answer))
    return Reply(int(np.cumprod(hits[span]).sum()), float(nll[span].sum(dtype=np.float64)))


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
