"""Forward passes of the eval stage, and the head where it is asked for.

B rows   S tokens of one pass   E hidden size   V vocabulary
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from transformers import PreTrainedModel

from ropewalk.data.dataset import IGNORE, collate, concatenate
from ropewalk.eval.engine.branches import BranchCache
from ropewalk.eval.engine.cache import AppendCache
from ropewalk.train.attention import document_borders
from ropewalk.train.loss import chunk_tokens

Inputs = Mapping[str, Any]
"""Keyword arguments of the model without its head."""


@dataclass(frozen=True, eq=False)
class Scores:
    """Of rows of hidden states, after the head."""

    nll: np.ndarray
    """Loss of the label in nats, float32: (S,)."""
    tokens: np.ndarray
    """The likeliest next token; -1 where a logit is NaN or infinite: (S,) int64."""

    @property
    def finite(self) -> bool:
        return bool(np.isfinite(self.nll).all() and (self.tokens >= 0).all())

    def split(self, sizes: Sequence[int]) -> list["Scores"]:
        ends = np.cumsum(sizes)[:-1]
        pairs = zip(np.split(self.nll, ends), np.split(self.tokens, ends), strict=True)
        return [Scores(nll, tokens) for nll, tokens in pairs]


def packed(documents: Sequence[np.ndarray], device: torch.device) -> Inputs:
    """Documents laid end to end, each alone, without a cache."""
    row = collate([concatenate([ids], len(ids)) for ids in documents])
    arrays = (row.input_ids, row.position_ids)
    ids, positions = (torch.from_numpy(array)[None].to(device) for array in arrays)
    borders = document_borders(torch.from_numpy(row.cu_seqlens), device)
    return {"input_ids": ids, "position_ids": positions, "use_cache": False, **borders}


def chunk(ids: np.ndarray, start: int, cache: AppendCache, device: torch.device) -> Inputs:
    """Tokens of a document from `start` on, all before which the cache has."""
    end = start + len(ids)
    inputs = {
        "input_ids": torch.from_numpy(ids)[None].to(device),
        "position_ids": torch.arange(start, end, device=device)[None],
        "past_key_values": cache,
        "use_cache": True,
        **_one_document(len(ids), device),
    }
    return inputs | ({"key_borders": _one_document(end, device)} if start else {})


def _one_document(length: int, device: torch.device) -> Any:
    return document_borders(torch.tensor([0, length], dtype=torch.int32), device)


def step(tokens: Sequence[int], branches: BranchCache) -> Inputs:
    """One token after each branch."""
    return {
        "input_ids": torch.tensor(tokens, device=branches.lengths.device)[:, None],
        "position_ids": branches.positions[:, None],
        "past_key_values": branches,
        "use_cache": True,
        "branches": branches,
    }


def head(model: PreTrainedModel) -> torch.Tensor:
    """Weight of the output embedding: (V, E)."""
    return model.get_output_embeddings().weight  # type: ignore[union-attr,return-value]


def scores(hidden: torch.Tensor, weight: torch.Tensor, labels: torch.Tensor) -> Scores:
    """hidden (S, E), weight of the head (V, E), labels (S,), -100 where there is none."""
    nll, tokens = [], []
    size = chunk_tokens(weight.shape[0], weight.device.type)
    for part, targets in zip(hidden.split(size), labels.split(size), strict=True):
        logits = (part @ weight.T).float()
        nll.append(F.cross_entropy(logits, targets, ignore_index=IGNORE, reduction="none"))
        largest, likeliest = logits.max(-1)
        tokens.append(likeliest.masked_fill(~largest.isfinite(), -1))
    return Scores(torch.cat(nll).cpu().numpy(), torch.cat(tokens).cpu().numpy())
