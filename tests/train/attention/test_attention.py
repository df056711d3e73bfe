"""Packed documents have the losses of each one alone under transformers' eager attention."""

import numpy as np
import packed_pass
import pytest
import torch
import torch.nn.functional as F
from models import documents, packed, tiny_model

from ropewalk.conf.errors import ConfigError
from ropewalk.data.dataset import collate, concatenate
from ropewalk.train import attention
from ropewalk.train.attention.sdpa import sdpa

LENGTHS = [13, 1, 20, 7, 7, 9]


def eager_losses(model, piece):
    """Plain transformers on one document: per-token loss."""
    model.set_attn_implementation("eager")
    ids = torch.from_numpy(piece)[None]
    with torch.no_grad():
        logits = model(input_ids=ids).logits[0, :-1]
    return F.cross_entropy(logits, ids[0, 1:], reduction="none")


def packed_losses(model, row):
    model.set_attn_implementation(attention.register("sdpa"))
    return packed_pass.losses(model, row)


def test_packed_documents_have_the_losses_of_each_alone():
    model = tiny_model()
    row, pieces = packed(LENGTHS, 64)
    nll = packed_losses(model, row)
    for piece, start in zip(pieces, np.cumsum([0, *LENGTHS]), strict=False):
        if len(piece) > 1:
            torch.testing.assert_close(
                nll[start : start + len(piece) - 1],
                eager_losses(model, piece),
                atol=1e-5,
                rtol=1e-5,
            )


def test_one_long_document_equals_eager_attention():
    model = tiny_model(num_key_value_heads=1)
    (piece,) = documents([60])
    nll = packed_losses(model, concatenate([piece], 60))
    torch.testing.assert_close(nll[:-1], eager_losses(model, piece), atol=1e-5, rtol=1e-5)


def test_changed_token_in_one_document_changes_nothing_in_the_next():
    model = tiny_model()
    row, pieces = packed([20, 30], 50)
    changed = [pieces[0].copy(), pieces[1]]
    changed[0][5] = (changed[0][5] + 1) % 97
    original_nll = packed_losses(model, row)
    changed_nll = packed_losses(model, concatenate(changed, 50))
    assert torch.equal(original_nll[20:], changed_nll[20:])
    assert not torch.equal(original_nll[5:19], changed_nll[5:19])


def test_without_document_mask_the_next_document_does_change():
    """The test above can fail."""
    model = tiny_model()
    pieces = documents([20, 30])
    row = concatenate(pieces, 50, document_mask=False, restart_positions=False)
    pieces[0][5] = (pieces[0][5] + 1) % 97
    changed = concatenate(pieces, 50, document_mask=False, restart_positions=False)
    assert not torch.equal(packed_losses(model, row)[20:], packed_losses(model, changed)[20:])


def test_sequences_of_a_micro_batch_do_not_see_each_other():
    model = tiny_model()
    rows = [packed([10, 22], 32, seed)[0] for seed in (1, 2)]
    together = packed_losses(model, collate(rows))
    alone = torch.cat([packed_losses(model, row) for row in rows])
    torch.testing.assert_close(together, alone, atol=1e-6, rtol=1e-6)


def test_gradients_of_packed_documents_equal_the_dense_mask():
    """Gradients of a block-causal boolean mask given to torch's SDPA are the reference."""
    torch.manual_seed(0)
    q, k, v = (torch.randn(1, h, 40, 8, requires_grad=True) for h in (4, 2, 2))
    ends = (0, 15, 20, 25, 40)
    mask = torch.zeros(40, 40, dtype=torch.bool)
    for a, b in zip(ends, ends[1:], strict=False):
        mask[a:b, a:b] = torch.ones(b - a, b - a).tril().bool()
    weight = torch.randn(1, 40, 4, 8)
    dense = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, enable_gqa=True).transpose(1, 2)
    expected = torch.autograd.grad((dense * weight).sum(), (q, k, v))
    output, _ = sdpa(None, q, k, v, None, document_ends=ends)
    torch.testing.assert_close(output, dense, atol=1e-5, rtol=1e-5)
    for gradient, reference in zip(
        torch.autograd.grad((output * weight).sum(), (q, k, v)), expected, strict=True
    ):
        torch.testing.assert_close(gradient, reference, atol=1e-5, rtol=1e-5)


def test_no_mask_is_built(monkeypatch):
    """An (S, S) mask would have 16 million elements; the largest tensor is linear in S."""
    from torch.utils._python_dispatch import TorchDispatchMode

    largest = 0

    class Largest(TorchDispatchMode):
        def __torch_dispatch__(self, func, types_, args=(), kwargs=None):
            nonlocal largest
            result = func(*args, **(kwargs or {}))
            for tensor in result if isinstance(result, (tuple, list)) else (result,):
                if isinstance(tensor, torch.Tensor):
                    largest = max(largest, tensor.numel())
            return result

    model = tiny_model(max_position_embeddings=4096)
    row, _ = packed([1000, 1048, 2048], 4096)
    with Largest():
        packed_losses(model, row)
    assert largest <= max(4096 * 97, 4096 * 64)


def test_unsupported_arguments_are_refused():
    q = torch.randn(1, 2, 4, 8)
    with pytest.raises(ConfigError, match="attention_dropout is 0.1"):
        sdpa(None, q, q, q, None, dropout=0.1)
    with pytest.raises(ConfigError, match="soft-caps its attention scores"):
        sdpa(None, q, q, q, None, softcap=50.0)
    with pytest.raises(ConfigError, match="looks ahead"):
        sdpa(None, q, q, q, None, is_causal=False)
    with pytest.raises(ValueError, match="batch is 2"):
        sdpa(None, q.expand(2, -1, -1, -1), q, q, None)
    with pytest.raises(
        ValueError, match="query has 4 tokens, key 4 and the documents 6; they must be one sequence"
    ):
        sdpa(None, q, q, q, None, document_ends=(0, 6))
