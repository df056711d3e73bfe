"""Queries that see keys before them, against rows of transformers' eager attention."""

import sys
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from oracle import eager, gradients, heads, visible
from stand_ins import Calls

from ropewalk.conf.errors import ConfigError
from ropewalk.train import attention
from ropewalk.train.attention import prefix
from ropewalk.train.attention.backend import GPU_KERNELS
from ropewalk.train.attention.s2_attn import s2_attention
from ropewalk.train.attention.sdpa import sdpa

ENDS = (0, 15, 16, 40, 59)
ROWS = [(11, 15), (15, 16), (16, 30), (50, 59)]
"""The queries of each document: its last four, its only one, its first ones, its last nine."""
KEYS = [(0, 15), (15, 16), (16, 30), (40, 59)]


def borders(spans: list[tuple[int, int]]) -> attention.borders.DocumentBorders:
    lengths = torch.tensor([0, *(high - low for low, high in spans)])
    return attention.document_borders(lengths.cumsum(0).to(torch.int32))


def rows(x: torch.Tensor, spans: list[tuple[int, int]], dim: int) -> torch.Tensor:
    return torch.cat([x.narrow(dim, low, high - low) for low, high in spans], dim)


def attend(kernel: Any, inputs: Any, **options: Any) -> torch.Tensor:
    """(1, T, H, D) of the queries in ROWS."""
    q, k, v = (rows(x, s, 2) for x, s in zip(inputs, (ROWS, KEYS, KEYS), strict=True))
    output, _ = kernel(None, q, k, v, None, **borders(ROWS), key_borders=borders(KEYS), **options)
    return output  # type: ignore[no-any-return]


@pytest.mark.parametrize("block", [3, 512])
@pytest.mark.parametrize("sinks", [False, True], ids=["", "sinks"])
@pytest.mark.parametrize("window", [None, 1, 5, 17])
def test_sdpa_equals_rows_of_eager_attention(
    monkeypatch: pytest.MonkeyPatch, window: int | None, sinks: bool, block: int
) -> None:
    monkeypatch.setattr(prefix, "BLOCK", block)
    q, k, v = heads(6, 2, 8, s=ENDS[-1])
    s_aux = torch.linspace(-2, 3, 6, requires_grad=True) if sinks else None
    output = attend(sdpa, (q, k, v), scaling=0.3, sliding_window=window, s_aux=s_aux)
    expected = rows(eager(q, k, v, visible(ENDS, window), 0.3, s_aux), ROWS, 1)
    leaves = [q, k, v, *([] if s_aux is None else [s_aux])]
    torch.testing.assert_close(output, expected, atol=1e-6, rtol=1e-5)
    for actual, reference in zip(
        gradients(output, leaves), gradients(expected, leaves), strict=True
    ):
        torch.testing.assert_close(actual, reference, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("sinks", [False, True], ids=["", "sinks"])
def test_parts_that_are_joined_by_their_sums_equal_rows_of_eager_attention(sinks: bool) -> None:
    q, k, v = heads(6, 2, 8, s=ENDS[-1])
    s_aux = torch.linspace(-2, 3, 6) if sinks else None
    with torch.no_grad():
        output = attend(sdpa, (q, k, v), scaling=0.3, s_aux=s_aux)
        expected = rows(eager(q, k, v, visible(ENDS, None), 0.3, s_aux), ROWS, 1)
    torch.testing.assert_close(output, expected, atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("window", [None, 5])
@pytest.mark.parametrize("name", GPU_KERNELS)
def test_a_kernel_gets_the_borders_of_both(
    monkeypatch: pytest.MonkeyPatch, name: str, window: int | None
) -> None:
    for module, stand_in in Calls().modules().items():
        monkeypatch.setitem(sys.modules, module, stand_in)
    inputs = heads(4, 2, 16, s=ENDS[-1], dtype=torch.bfloat16)
    output = attend(GPU_KERNELS[name].function, inputs, scaling=0.3, sliding_window=window)
    expected = rows(eager(*inputs, visible(ENDS, window), 0.3), ROWS, 1)
    torch.testing.assert_close(output.float(), expected, atol=2e-2, rtol=2e-2)


def test_keys_that_do_not_fit_their_borders_are_refused() -> None:
    q, k, v = (rows(x, ROWS, 2) for x in heads(2, 2, 8, s=ENDS[-1]))
    with pytest.raises(ValueError, match="key 28 and the documents 28 and 49"):
        sdpa(None, q, k, v, None, **borders(ROWS), key_borders=borders(KEYS))


def test_shifted_groups_are_refused_by_name() -> None:
    module = SimpleNamespace(training=True)
    q, k, v = heads(2, 2, 8, s=ENDS[-1])
    with pytest.raises(ConfigError, match=r"s2_group is 8; .* set train.sp_size to a divisor"):
        s2_attention(sdpa, 8)(module, q, k, v, None, key_borders=borders(KEYS))


@pytest.mark.parametrize("window", [None, 5])
def test_one_document_alone_is_attended_to_after_its_prefix(window: int | None) -> None:
    """The last 4 of 15 tokens as queries."""
    q, k, v = heads(4, 2, 8, s=15)
    part = borders([(11, 15)]), borders([(0, 15)])
    ends = part[0]["document_ends"], part[1]["document_ends"]
    with torch.no_grad():
        actual = prefix.attend_after_prefix(q[:, :, 11:], k, v, ends, window, 0.3, None)
        expected = eager(q, k, v, visible((0, 15), window), 0.3)[:, 11:]
    torch.testing.assert_close(actual.transpose(1, 2), expected)
