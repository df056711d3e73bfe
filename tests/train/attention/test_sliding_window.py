"""Per-document SDPA with sliding windows and sinks against eager attention under a dense mask."""

import pytest
import torch
from oracle import ENDS, cu_seqlens, eager, gradients, heads, visible

from ropewalk.train import attention
from ropewalk.train.attention import document_runs, sliding_window
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
    inputs = heads(h, k, d, e=e)
    s_aux = torch.linspace(-2, 3, h).requires_grad_() if sinks else None
    leaves = [*inputs, *([s_aux] if s_aux is not None else [])]
    borders = attention.document_borders(cu_seqlens())
    output, _ = sdpa(
        None, *inputs, None, scaling=0.3, sliding_window=window, s_aux=s_aux, **borders
    )
    expected = eager(*inputs, visible(ENDS, window), 0.3, s_aux)
    torch.testing.assert_close(output, expected, atol=2e-6, rtol=1e-5)
    for gradient, expected_gradient in zip(
        gradients(output, leaves), gradients(expected, leaves), strict=True
    ):
        torch.testing.assert_close(gradient, expected_gradient, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("window", [None, 5])
def test_bf16_differs_from_fp32_by_roundings_only(window: int | None) -> None:
    inputs = heads(4, 2, 8, dtype=torch.bfloat16)
    s_aux = torch.linspace(-2, 3, 4).bfloat16()
    borders = attention.document_borders(cu_seqlens())
    output, _ = sdpa(
        None, *inputs, None, scaling=8**-0.5, sliding_window=window, s_aux=s_aux, **borders
    )
    expected = eager(*inputs, visible(ENDS, window), 8**-0.5, s_aux.float())
    assert output.dtype == torch.bfloat16
    torch.testing.assert_close(output.float(), expected, atol=2e-2, rtol=2e-2)


def test_recomputed_layer_is_bitwise_the_same() -> None:
    """Activation checkpointing computes it twice."""
    inputs = heads(4, 2, 8)
    borders = attention.document_borders(cu_seqlens())
    once, again = (sdpa(None, *inputs, None, sliding_window=5, **borders)[0] for _ in range(2))
    assert torch.equal(once, again)
    first_gradients, second_gradients = gradients(once, inputs), gradients(again, inputs)
    assert all(torch.equal(a, b) for a, b in zip(first_gradients, second_gradients, strict=True))


def test_segmentation_is_computed_once_for_all_layers() -> None:
    borders = attention.document_borders(cu_seqlens())
    sliding_window.segmentation.cache_clear()
    for _ in range(3):
        sdpa(None, *heads(2, 2, 8), None, sliding_window=5, **borders)
    cache = sliding_window.segmentation.cache_info()
    assert (cache.misses, cache.hits) == (1, 2)


@pytest.mark.parametrize("window", [None, 5])
def test_a_batch_of_documents_is_bounded_by_cudas_grid(
    window: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(document_runs, "MAX_DOCUMENTS", 2)
    sliding_window.segmentation.cache_clear()
    ends = (0, 7, 14, 21, 28, 35, 40)
    cut = sliding_window.segmentation(ends, window)
    assert [len(group) for group in cut.prefix_groups] == (
        [2, 2, 1, 1] if window is None else [2] * 3
    )
    inputs = heads(4, 2, 8, s=40)
    borders = attention.document_borders(cu_seqlens(ends))
    output, _ = sdpa(None, *inputs, None, scaling=0.3, sliding_window=window, **borders)
    torch.testing.assert_close(
        output, eager(*inputs, visible(ends, window), 0.3), atol=2e-6, rtol=1e-5
    )
    sliding_window.segmentation.cache_clear()


@pytest.mark.parametrize("window", [64, 512])
def test_the_largest_tensor_grows_linearly_with_the_sequence(window: int) -> None:
    """Scores of one head would be 8192 x 8192 numbers; a window's keys are copied three times."""
    from torch.utils._python_dispatch import TorchDispatchMode

    largest = 0

    class Largest(TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            nonlocal largest
            result = func(*args, **(kwargs or {}))
            for tensor in result if isinstance(result, (tuple, list)) else (result,):
                if isinstance(tensor, torch.Tensor):
                    largest = max(largest, tensor.numel())
            return result

    ends = (0, 100, 5000, 8192)
    borders = attention.document_borders(cu_seqlens(ends))
    inputs = heads(4, 2, 16, s=8192)
    with Largest():
        result, _ = sdpa(None, *inputs, None, sliding_window=window, **borders)
        result.sum().backward()
    block = sliding_window.block_size(window)
    assert largest <= max(4 * 8192 * 16 * 3, 2 * block * (window + block))
