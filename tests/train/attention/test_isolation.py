"""The leak probe for each form of the kernels, bitwise: what one changed token of one document changes, and what it does not."""

import sys
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from oracle import ENDS, cu_seqlens, heads
from stand_ins import Calls

from ropewalk.train import attention
from ropewalk.train.attention import s2_attn
from ropewalk.train.attention.flash import flash, flash3, flash4, varlen
from ropewalk.train.attention.sdpa import sdpa

KERNELS = {k.__name__: k for k in (sdpa, flash, flash3, flash4, varlen)}
FORMS = [
    (n, w, s)
    for n in KERNELS
    for w in (None, 5)
    for s in ((False, True) if n == "sdpa" else (False,))
]
TRAINS: Any = SimpleNamespace(training=True)


@pytest.fixture(autouse=True)
def stand_ins(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, module in Calls().modules().items():
        monkeypatch.setitem(sys.modules, name, module)


def changed(kernel: Any, token: int, **kwargs: Any) -> list[int]:
    """Places whose output differs in any bit after the key and value of `token` are changed."""
    q, k, v = (x.detach() for x in heads(4, 2, 8, dtype=torch.bfloat16))
    outputs = []
    for by in (0, 1):
        key, value = k.clone(), v.clone()
        key[:, :, token] += by
        value[:, :, token] += by
        outputs.append(kernel(TRAINS, q, key, value, None, **kwargs)[0][0])
    return (outputs[0] != outputs[1]).flatten(1).any(dim=1).nonzero().flatten().tolist()  # type: ignore[no-any-return]


def end_of(token: int) -> int:
    return min(e for e in ENDS if e > token)


@pytest.mark.parametrize("token", [0, 3, 14, 15, 16, 20, 39, 60])
@pytest.mark.parametrize(("name", "window", "sinks"), FORMS)
def test_a_token_is_seen_inside_its_document_and_its_window_only(
    name: str, window: int | None, sinks: bool, token: int
) -> None:
    kwargs = {"sliding_window": window, "s_aux": torch.zeros(4) if sinks else None}
    differs = changed(KERNELS[name], token, **kwargs, **attention.document_borders(cu_seqlens()))
    reach = range(token, min(end_of(token), token + (window or 1000)))
    assert set(differs) <= set(reach)
    # a far token's share may be too small for bf16
    assert token in differs and len(differs) > len(reach) // 2


def test_the_probe_finds_a_leak() -> None:
    differs = changed(sdpa, 3, **attention.document_borders(cu_seqlens((0, ENDS[-1]))))
    assert max(differs) > end_of(3)


@pytest.mark.parametrize("token", [0, 14, 16, 22, 39, 60])
@pytest.mark.parametrize("name", KERNELS)
def test_shifted_groups_leak_neither(name: str, token: int) -> None:
    """Nothing before it either: no group wraps around to the document's start, or the sequence's."""
    differs = changed(
        s2_attn.s2_attention(KERNELS[name], 6), token, **attention.document_borders(cu_seqlens())
    )
    assert token in differs and set(differs) <= set(range(token, min(end_of(token), token + 6)))
