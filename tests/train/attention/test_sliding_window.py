"""Per-document SDPA with sliding windows and sinks against transformers' eager attention under a dense mask."""

import pytest
import torch
from oracle import ENDS, cu_seqlens, eager, gradients, heads, visible

from ropewalk.train import attention
from ropewalk.train.attention import sliding_window
from ropewalk.train.attention.sdpa import sdpa

WINDOWS = [None, 1, 2, 3, 5, 7, 8, 24, 100]
"""Shorter and longer than documents of 1, 7, 15, 19 and 24 tokens; odd; as long as one."""


@pytest.mark.parametrize("sinks", [False, True], ids=["", "sinks"])
@pytest.mark.parametrize(
    "shape", [(4, 4, 8, 8), (6, 2, 8, 8), (4, 1, 16, 8)], ids=["all heads", "gqa", "narrow values"]
)
@pytest.mark.parametrize("window", WINDOWS)
def test_forward_and_backward_equal_eager_attention(
    window: int | None, shape: tuple[int, ...], sinks: bool
) -> None:
    h, k, d, e = shape
    given = heads(h, k, d, e=e)
    s_aux = torch.linspace(-2, 3, h).requires_grad_() if sinks else None
    of = [*given, *([s_aux] if s_aux is not None else [])]
    marks = attention.document_borders(cu_seqlens())
    found, _ = sdpa(None, *given, None, scaling=0.3, sliding_window=window, s_aux=s_aux, **marks)
    wanted = eager(*given, visible(ENDS, window), 0.3, s_aux)
    torch.testing.assert_close(found, wanted, atol=2e-6, rtol=1e-5)
    for ours, theirs in zip(gradients(found, of), gradients(wanted, of), strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("window", [None, 5])
def test_bf16_is_as_near_to_fp32_as_bf16_is(window: int | None) -> None:
    given = heads(4, 2, 8, dtype=torch.bfloat16)
    s_aux = torch.linspace(-2, 3, 4).bfloat16()
    marks = attention.document_borders(cu_seqlens())
    found, _ = sdpa(
        None, *given, None, scaling=8**-0.5, sliding_window=window, s_aux=s_aux, **marks
    )
    wanted = eager(*given, visible(ENDS, window), 8**-0.5, s_aux.float())
    assert found.dtype == torch.bfloat16
    torch.testing.assert_close(found.float(), wanted, atol=2e-2, rtol=2e-2)


def test_recomputed_layer_is_bitwise_the_same() -> None:
    """Activation checkpointing computes it twice."""
    given = heads(4, 2, 8)
    marks = attention.document_borders(cu_seqlens())
    once, again = (sdpa(None, *given, None, sliding_window=5, **marks)[0] for _ in range(2))
    assert torch.equal(once, again)
    one, two = gradients(once, given), gradients(again, given)
    assert all(torch.equal(a, b) for a, b in zip(one, two, strict=True))


def test_structure_is_derived_once_for_all_layers() -> None:
    marks = attention.document_borders(cu_seqlens())
    sliding_window.segmentation.cache_clear()
    for _ in range(3):
        sdpa(None, *heads(2, 2, 8), None, sliding_window=5, **marks)
    assert (
        sliding_window.segmentation.cache_info().misses,
        sliding_window.segmentation.cache_info().hits,
    ) == (
        1,
        2,
    )


@pytest.mark.parametrize("window", [64, 512])
def test_no_tensor_is_larger_than_what_grows_as_the_sequence(window: int) -> None:
    """Scores of one head alone would be 8192 x 8192 numbers; a window's keys are copied three times."""
    from torch.utils._python_dispatch import TorchDispatchMode

    largest = 0

    class Largest(TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            nonlocal largest
            out = func(*args, **(kwargs or {}))
            for tensor in out if isinstance(out, (tuple, list)) else (out,):
                if isinstance(tensor, torch.Tensor):
                    largest = max(largest, tensor.numel())
            return out

    ends = (0, 100, 5000, 8192)
    marks = attention.document_borders(cu_seqlens(ends))
    given = heads(4, 2, 16, s=8192)
    with Largest():
        out, _ = sdpa(None, *given, None, sliding_window=window, **marks)
        out.sum().backward()
    block = sliding_window.block_size(window)
    assert largest <= max(4 * 8192 * 16 * 3, 2 * block * (window + block))
