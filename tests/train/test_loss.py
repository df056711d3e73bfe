"""The chunked loss against torch's cross-entropy on whole logits."""

import pytest
import torch
import torch.nn.functional as F
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode

from ropewalk.train import loss


@pytest.fixture
def many_chunks(monkeypatch):
    monkeypatch.setattr(loss, "chunk_tokens", lambda *_: 64)


def example(tokens=200, hidden=16, vocab=50, ignored=30, dtype=torch.float32):
    torch.manual_seed(0)
    x = torch.randn(tokens, hidden, dtype=dtype, requires_grad=True)
    head = torch.randn(vocab, hidden, dtype=dtype, requires_grad=True)
    labels = torch.randint(0, vocab, (tokens,))
    labels[torch.randperm(tokens)[:ignored]] = -100
    return x, head, labels


@pytest.mark.parametrize("ignored", [0, 30, 200])
def test_value_and_gradients_equal_whole_logits(many_chunks, ignored):
    x, head, labels = example(ignored=ignored)
    expected = F.cross_entropy(x @ head.T, labels, ignore_index=-100, reduction="sum")
    reference = torch.autograd.grad(expected * 0.37, (x, head))
    result = loss.summed_cross_entropy(x, head, labels)
    torch.testing.assert_close(result, expected, rtol=1e-5, atol=1e-5)
    for ours, theirs in zip(torch.autograd.grad(result * 0.37, (x, head)), reference, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("ignored", [0, 30, 200])
def test_each_token_s_loss_comes_with_the_sum(many_chunks, ignored):
    x, head, labels = example(ignored=ignored)
    nll = torch.full((200,), 7.0)
    bare, result = (
        loss.summed_cross_entropy(x, head, labels),
        loss.summed_cross_entropy(x, head, labels, nll=nll),
    )
    expected = F.cross_entropy(x @ head.T, labels, ignore_index=-100, reduction="none").detach()
    torch.testing.assert_close(nll, expected, rtol=1e-5, atol=1e-5)
    assert torch.equal(bare, result) and not nll.requires_grad


@pytest.mark.parametrize("ignored", [0, 30, 200])
def test_hits_are_the_likeliest_tokens_of_full_logits(many_chunks, ignored):
    x, head, labels = example(ignored=ignored)
    likeliest = (x @ head.T).argmax(-1)
    labels[::3] = torch.where(labels[::3] == -100, -100, likeliest[::3])
    hits = torch.ones(200, dtype=torch.bool)
    loss.summed_objective(x, head, labels, 0.0, hits=hits)
    assert torch.equal(hits, likeliest == labels)
    assert ignored == 200 or 0 < hits.sum() < 200 - ignored


@pytest.mark.parametrize("ignored", [0, 30, 200])
def test_z_loss_and_its_gradients_equal_autograd_on_full_logits(many_chunks, ignored):
    x, head, labels = example(ignored=ignored)
    logits, counts = x @ head.T, labels != -100
    entropy = F.cross_entropy(logits, labels, ignore_index=-100, reduction="sum")
    expected = entropy + 0.01 * torch.logsumexp(logits[counts], -1).square().sum()
    reference = torch.autograd.grad(expected * 0.37, (x, head))
    result, cross_entropy = loss.summed_objective(x, head, labels, 0.01)
    torch.testing.assert_close(result, expected, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(cross_entropy, entropy.detach(), rtol=1e-5, atol=1e-5)
    assert not cross_entropy.requires_grad
    for ours, theirs in zip(torch.autograd.grad(result * 0.37, (x, head)), reference, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-6)


def test_tied_head_gets_both_gradients(many_chunks):
    embedding = torch.randn(50, 16, requires_grad=True)
    ids, labels = torch.randint(0, 50, (100,)), torch.randint(0, 50, (100,))
    ours = torch.autograd.grad(
        loss.summed_cross_entropy(embedding[ids], embedding, labels), embedding
    )[0]
    theirs = torch.autograd.grad(
        F.cross_entropy(embedding[ids] @ embedding.T, labels, reduction="sum"), embedding
    )[0]
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)


def test_bf16_stays_near_fp32(many_chunks):
    x, head, labels = example(dtype=torch.bfloat16)
    exact = F.cross_entropy(x.float() @ head.float().T, labels, ignore_index=-100, reduction="sum")
    assert loss.summed_cross_entropy(x, head, labels).item() == pytest.approx(
        exact.item(), rel=5e-3
    )


def test_in_bf16_a_scale_is_not_rounded_before_it_multiplies(many_chunks):
    """1.3 in bf16 is 1.2969: every gradient would be too small by the same 0.24%."""
    x, head, labels = example(tokens=2000, hidden=64, vocab=500, ignored=0, dtype=torch.bfloat16)
    unscaled, scaled = (
        torch.autograd.grad(loss.summed_cross_entropy(x, head, labels) * times, (x, head))
        for times in (1, 1.3)
    )
    for ours, once in zip(scaled, unscaled, strict=True):
        size = (ours.double() * once.double()).sum() / once.double().square().sum()
        assert size == pytest.approx(1.3, abs=3e-4)


def test_no_gradient_is_computed_under_no_grad(many_chunks):
    x, head, labels = example()
    with torch.no_grad():
        assert not loss.summed_cross_entropy(x, head, labels).requires_grad


def test_a_frozen_head_gets_no_gradient_and_changes_none(many_chunks):
    x, head, labels = example()
    expected = torch.autograd.grad(loss.summed_cross_entropy(x, head, labels), x)[0]
    result = loss.summed_cross_entropy(x, head.detach(), labels)
    assert result.grad_fn.saved_tensors[2] is None
    assert torch.equal(torch.autograd.grad(result, x)[0], expected)


def test_logits_are_never_whole():
    assert loss.chunk_tokens(151_936) * 151_936 * 4 <= 80 << 20
    assert loss.chunk_tokens(151_936, "cuda") * 151_936 * 4 <= 512 << 20


def test_on_a_device_a_product_is_added_in_one_operation():
    """With fake tensors: the operation of CUDA, into the same memory, and no other product."""
    ops = []

    class Ops(TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            ops.append((str(func), (kwargs or {}).get("out")))
            return func(*args, **(kwargs or {}))

    with FakeTensorMode():
        total = torch.zeros(50, 16, device="cuda")
        slope, x = (torch.zeros(8, n, device="cuda", dtype=torch.bfloat16) for n in (50, 16))
        with Ops():
            loss.add_product(total, slope.T, x)
    assert [name for name, _ in ops if "mm" in name or "add" in name] == ["aten.addmm.dtype_out"]
    assert ops[-1][1] is total
    total, (slope, x) = torch.ones(50, 16), (torch.randn(8, n).bfloat16() for n in (50, 16))
    loss.add_product(total, slope.T, x)
    expected = 1 + slope.T.double() @ x.double()
    torch.testing.assert_close(total.double(), expected, rtol=0, atol=0.05)


def test_torch_has_the_product_of_bf16_into_fp32_for_cuda_alone():
    assert torch._C._dispatch_has_kernel_for_dispatch_key("aten::addmm.dtype_out", "CUDA")
    assert not torch._C._dispatch_has_kernel_for_dispatch_key("aten::addmm.dtype_out", "CPU")
