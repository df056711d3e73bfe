"""What a kernel allocates inside, against the sizes that FlashAttention's source states.

Source: csrc/flash_attn/flash_api.cpp of FlashAttention 2, `mha_varlen_bwd`: `softmax_d` and
`dq_accum` have `total_q + 128 * batch_size` rows, `dk_expanded` and `dv_expanded` have `total_k`.
"""

import pytest
import torch
import torch.nn.attention.varlen  # registers torch_attn's operators

from ropewalk.train.trace.flops import workspace

VARLEN = torch.ops.torch_attn


def arguments(heads: int, key_heads: int, documents: int) -> tuple[torch.Tensor | None, ...]:
    """Of a backward pass of 1,000 tokens, head size 64."""
    query = torch.empty(1000, heads, 64, dtype=torch.bfloat16, device="meta")
    key = torch.empty(1000, key_heads, 64, dtype=torch.bfloat16, device="meta")
    borders = torch.empty(documents + 1, dtype=torch.int32, device="meta")
    return (query, query, key, key, query, None, borders, borders)


@pytest.mark.parametrize(("documents", "rows"), [(1, 1128), (7, 1896)])
def test_the_queries_gradient_is_summed_in_fp32_with_128_rows_a_document(
    documents: int, rows: int
) -> None:
    backward = VARLEN._varlen_attn_backward.default
    assert workspace(backward, arguments(8, 8, documents)) == [rows * 8 * 4, rows * 8 * 64 * 4]


def test_shared_keys_have_a_gradient_for_each_query_head() -> None:
    backward = VARLEN._varlen_attn_backward.default
    expanded = 1000 * 8 * 64 * 2
    assert workspace(backward, arguments(8, 2, 1))[2:] == [expanded, expanded]


def test_a_forward_pass_allocates_nothing_inside() -> None:
    assert workspace(VARLEN._varlen_attn.default, arguments(8, 2, 1)) == []
