"""The attention of decoding steps: each row's one query sees its trunk, then its own branch.

Both are attended to apart and joined by the logarithms of their sums, so the result is that of one
sequence.

    B prompts (rows)   R rows of one trunk   H query heads   K key/value heads   G = H / K
    T tokens of a trunk   N tokens of a branch   D head size   E head size of values
"""

from typing import Any

import torch
from torch import nn

from ropewalk.eval.engine.branches import BranchCache, Pair
from ropewalk.train.attention.prefix import attend_with_sums, joined

NAME = "ropewalk_branches"
PIECES, PIECE_TOKENS = 8, 512
"""A trunk is cut into this many pieces at most, of this many tokens at least."""


def attend_branches(
    module: nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: None,
    *,
    branches: BranchCache,
    scaling: float | None = None,
    sliding_window: int | None = None,
    s_aux: torch.Tensor | None = None,
    **kwargs: Any,
) -> tuple[torch.Tensor, None]:
    """An attention kernel. query (B, H, 1, D), key (B, K, N, D), value (B, K, N, E), s_aux (H,)
    -> (B, 1, H, E)."""
    scale = query.shape[3] ** -0.5 if scaling is None else scaling
    queries = query[:, :, 0].unflatten(1, (key.shape[1], -1))  # (B, K, G, D)
    sinks = None if s_aux is None else s_aux.float().view(key.shape[1], -1, 1)
    layer, outputs = int(module.layer_idx), []  # type: ignore[arg-type]
    for trunk, length, rows in branches.trunks():
        lengths = branches.lengths[rows]
        q = queries[rows]
        output = _over_branch(q, (key[rows], value[rows]), lengths, sliding_window, scale, sinks)
        first = branches.first_visible(length, rows, sliding_window)
        if first < length:
            span = trunk.layers[layer].span(first, length)
            distances = None if sliding_window is None else lengths + (length - first)
            before = _over_trunk(q, span, distances, sliding_window, scale)
            outputs.append(joined(before, output))
        else:
            outputs.append(output[0])
    return torch.cat(outputs).flatten(1, 2)[:, None], None


def _over_branch(
    q: torch.Tensor,
    branch: Pair,
    lengths: torch.Tensor,
    window: int | None,
    scale: float,
    sinks: torch.Tensor | None,
) -> Pair:
    """Over its own tokens, the last of which is the query's, and a sink (K, G, 1).

    q (R, K, G, D), branch (R, K, N, D), lengths (R,): its place -> (R, K, G, E), (R, K, G).
    """
    keys, values = branch
    scores = (q @ keys.mT).float() * scale
    scores = _masked(scores, lengths, window)
    sums = scores.logsumexp(3)
    if sinks is not None:
        sums = torch.logaddexp(sums, sinks[..., 0])
    return (scores - sums[..., None]).exp().to(values.dtype) @ values, sums


def _over_trunk(
    q: torch.Tensor,
    trunk: Pair,
    distances: torch.Tensor | None,
    window: int | None,
    scale: float,
) -> Pair:
    """Over keys and values (K, T, D) that are read where they lie.

    q (R, K, G, D) -> (R, K, G, E), (R, K, G). `distances` (R,): of the query to the first key,
    where a window hides some.
    """
    keys, values = trunk
    rows = q.transpose(0, 1).flatten(1, 2)  # (K, R * G, D)
    shape = (q.shape[0], q.shape[2])
    if distances is None and q.device.type == "cpu" and keys.shape == values.shape:
        output, sums = _over_pieces(rows, trunk, scale)
        return _by_row(output, shape), sums.unflatten(1, shape).transpose(0, 1)
    scores = _by_row(rows @ keys.mT, shape).float() * scale
    if distances is not None:
        scores = _masked(scores, distances, window)
    sums = scores.logsumexp(3)
    weights = (scores - sums.nan_to_num(neginf=0.0)[..., None]).exp().to(values.dtype)
    return _by_row(weights.transpose(0, 1).flatten(1, 2) @ values, shape), sums


def _over_pieces(rows: torch.Tensor, trunk: Pair, scale: float) -> Pair:
    """rows (K, N, D), keys and values (K, T, D) -> (K, N, D), (K, N), on a CPU.

    The kernel gives a thread whole heads, which are few: long keys are cut into pieces.
    """
    pieces = max(1, min(PIECES, trunk[0].shape[1] // PIECE_TOKENS))
    ends = pieces * (trunk[0].shape[1] // pieces)
    keys, values = (x[:, :ends].unflatten(1, (pieces, -1)).transpose(0, 1) for x in trunk)
    parts = [attend_with_sums(rows.expand(pieces, -1, -1, -1), keys, values, scale)]
    if ends < trunk[0].shape[1]:
        keys, values = (x[None, :, ends:] for x in trunk)
        parts.append(attend_with_sums(rows[None], keys, values, scale))
    outputs, sums = (torch.cat(part) for part in zip(*parts, strict=True))
    output = (sums.softmax(0)[..., None] * outputs).sum(0)  # in fp32, as the sums are
    return output.to(outputs.dtype), sums.logsumexp(0)


def _by_row(x: torch.Tensor, shape: tuple[int, int]) -> torch.Tensor:
    """(K, R * G, E) -> (R, K, G, E)."""
    return x.unflatten(1, shape).transpose(0, 1)


def _masked(scores: torch.Tensor, places: torch.Tensor, window: int | None) -> torch.Tensor:
    """Scores (R, K, G, N) without the keys that a query at this place (R,) does not see."""
    distances = places[:, None] - torch.arange(scores.shape[3], device=scores.device)
    hidden = distances < 0
    if window is not None:
        hidden |= distances >= window
    return scores.masked_fill(hidden[:, None, None], -torch.inf)
