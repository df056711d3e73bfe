"""A changed token changes outputs inside its document and window only, bitwise, in every kernel."""

import sys
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from oracle import ENDS, cu_seqlens, heads
from stand_ins import Calls

from ropewalk.train import attention
from ropewalk.train.attention import s2_attn
from ropewalk.train.attention.kernels import GPU_KERNELS
from ropewalk.train.attention.sdpa import sdpa

KERNELS = {"sdpa": sdpa, **{name: kernel.function for name, kernel in GPU_KERNELS.items()}}
FORMS = [
    (name, window, sinks)
    for name in KERNELS
    for window in (None, 5)
    for sinks in ((False, True) if name == "sdpa" else (False,))
]
TRAINS: Any = SimpleNamespace(training=True)


@pytest.fixture(autouse=True)
def stand_ins(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, module in Calls().modules().items():
        monkeypatch.setitem(sys.modules, name, module)


def changed(kernel: Any, token: int, **kwargs: Any) -> list[int]:
    """Positions whose output differs after the key and value of `token` are changed."""
    q, k, v = (x.detach() for x in heads(4, 2, 8, dtype=torch.bfloat16))
    outputs = []
    for change in (0, 1):
        key, value = k.clone(), v.clone()
        key[:, :, token] += change
        value[:, :, token] += change
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
    borders = attention.document_borders(cu_seqlens())
    positions = changed(KERNELS[name], token, **kwargs, **borders)
    reach = range(token, min(end_of(token), token + (window or 1000)))
    assert set(positions) <= set(reach)
    # a far token's share may be too small for bf16
    assert token in positions and len(positions) > len(reach) // 2


def test_the_probe_finds_a_leak() -> None:
    one_document = attention.document_borders(cu_seqlens((0, ENDS[-1])))
    assert max(changed(sdpa, 3, **one_document)) > end_of(3)


@pytest.mark.parametrize("token", [0, 14, 16, 22, 39, 60])
@pytest.mark.parametrize("name", KERNELS)
def test_a_token_is_not_seen_outside_its_shifted_group(name: str, token: int) -> None:
    """No earlier token sees it: no group wraps around to the start of a document or sequence."""
    kernel = s2_attn.s2_attention(KERNELS[name], 6)
    positions = changed(kernel, token, **attention.document_borders(cu_seqlens()))
    assert token in positions and set(positions) <= set(range(token, min(end_of(token), token + 6)))
