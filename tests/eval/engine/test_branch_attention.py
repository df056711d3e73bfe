"""Attention of decoding steps over a long trunk and a branch, against a dense softmax in fp64."""

from types import SimpleNamespace
from typing import Any

import pytest
import torch

from ropewalk.eval.engine.branch_attention import PIECE_TOKENS, PIECES, attend_branches
from ropewalk.eval.engine.branches import Branch, BranchCache
from ropewalk.eval.engine.cache import AppendCache

LONGEST = 2 * PIECES * PIECE_TOKENS + 3


@pytest.mark.parametrize(
    "tokens", [1, PIECE_TOKENS, 2 * PIECE_TOKENS - 1, 2 * PIECE_TOKENS + 1, LONGEST]
)
@pytest.mark.parametrize("window", [None, 100])
def test_a_trunk_in_pieces_is_attended_to_as_in_one(tokens: int, window: int | None) -> None:
    generator = torch.Generator().manual_seed(tokens)

    def normal(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator)

    trunk = AppendCache(1, tokens + 2)
    keys, values = normal(1, 3, tokens + 2, 16), normal(1, 3, tokens + 2, 16)
    trunk.update(keys, values, 0)
    own = 2 * [Branch.of(trunk, tokens, tokens + 2)]
    branches = BranchCache(own, steps=1)
    key, value, query = normal(2, 3, 1, 16), normal(2, 3, 1, 16), 3 * normal(2, 6, 1, 16)
    layer: Any = SimpleNamespace(layer_idx=0)
    with torch.no_grad():
        kept = branches.update(key, value, 0)
        output, _ = attend_branches(
            layer, query, *kept, None, branches=branches, sliding_window=window
        )
    for row in range(2):
        k, v = (torch.cat([x[0], y[row]], dim=1) for x, y in ((keys, key), (values, value)))
        expected = _dense(query[row, :, 0], k, v, window)
        torch.testing.assert_close(output[row, 0].double(), expected, atol=1e-6, rtol=1e-5)


def _dense(
    query: torch.Tensor, keys: torch.Tensor, values: torch.Tensor, window: int | None
) -> torch.Tensor:
    """query (H, D), keys and values (K, U, D) -> (H, D)."""
    keys, values = (x.double().repeat_interleave(2, 0)[:, -(window or 0) :] for x in (keys, values))
    scores = (query.double()[:, None] @ keys.mT) * query.shape[1] ** -0.5
    return (scores.softmax(-1) @ values)[:, 0]
