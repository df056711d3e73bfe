"""S2-Attn against a dense mask of each head, and against the paper's own rolling of heads.

The paper's heads wrap around in the first half group, which is left out of the comparison.
"""

import sys
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from architectures import small_model
from oracle import ENDS, cu_seqlens, eager, gradients, heads, visible
from stand_ins import Calls

from ropewalk.conf.errors import ConfigError
from ropewalk.train import attention
from ropewalk.train.attention import s2_attn
from ropewalk.train.attention.flash import flash
from ropewalk.train.attention.sdpa import sdpa

TRAINS: Any = SimpleNamespace(training=True)
GROUP = 6


def visible_in_groups(h: int) -> torch.Tensor:
    """(1, H, S, S): as `visible`, inside a group.

    Groups are counted from a document's start, in shifted heads from half a group before it.
    """
    positions = torch.cat([torch.arange(b - a) for a, b in zip(ENDS, ENDS[1:], strict=False)])
    groups = [(positions + (GROUP // 2 if n >= h // 2 else 0)) // GROUP for n in range(h)]
    return torch.stack([visible(ENDS, None) & (g[:, None] == g[None, :]) for g in groups])[None]


@pytest.mark.parametrize(
    "shape", [(4, 4), (4, 2), (4, 1), (9, 3)], ids=["all heads", "gqa", "one key", "odd"]
)
def test_forward_and_backward_equal_eager_attention_of_the_groups(shape: tuple[int, int]) -> None:
    h, k = shape
    inputs = heads(h, k, 8)
    borders = attention.document_borders(cu_seqlens())
    output, _ = s2_attn.s2_attention(sdpa, GROUP)(TRAINS, *inputs, None, scaling=0.3, **borders)
    expected = eager(*inputs, visible_in_groups(h), 0.3)
    torch.testing.assert_close(output, expected, atol=2e-6, rtol=1e-5)
    for gradient, expected_gradient in zip(
        gradients(output, inputs), gradients(expected, inputs), strict=True
    ):
        torch.testing.assert_close(gradient, expected_gradient, atol=1e-5, rtol=1e-5)


def test_it_equals_the_papers_rolling_where_that_does_not_wrap_around() -> None:
    """Algorithm 1 of arXiv 2309.12307: half of the heads are rolled by half a group and back."""
    h, s, d = 4, 48, 8
    q, k, v = (x.detach() for x in heads(h, h, d, s=s))

    def roll(x: torch.Tensor, shift: int) -> torch.Tensor:
        fixed, shifted = x.chunk(2, dim=1)
        return torch.cat([fixed, shifted.roll(shift, dims=2)], dim=1)

    def grouped(x: torch.Tensor) -> torch.Tensor:
        return roll(x, -GROUP // 2)[0].unflatten(1, (s // GROUP, GROUP)).transpose(0, 1)

    rolled = F.scaled_dot_product_attention(grouped(q), grouped(k), grouped(v), is_causal=True)
    paper = roll(rolled.transpose(0, 1).flatten(1, 2)[None], GROUP // 2).transpose(1, 2)
    output, _ = s2_attn.s2_attention(sdpa, GROUP)(TRAINS, q, k, v, None)
    torch.testing.assert_close(
        output[:, GROUP // 2 :], paper[:, GROUP // 2 :], atol=1e-6, rtol=1e-5
    )
    wrapped = (output - paper)[0, : GROUP // 2].abs().amax(dim=(0, 2))
    assert (wrapped[: h // 2] < 1e-6).all() and (wrapped[h // 2 :] > 1e-2).all(), (
        "there it sees the sequence's end"
    )


def test_kernels_with_document_borders_get_the_groups_as_borders(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    calls = Calls()
    for name, module in calls.modules().items():
        monkeypatch.setitem(sys.modules, name, module)
    inputs = heads(4, 2, 8, dtype=torch.bfloat16)
    borders = attention.document_borders(cu_seqlens())
    output, _ = s2_attn.s2_attention(flash, GROUP)(TRAINS, *inputs, None, scaling=0.3, **borders)
    torch.testing.assert_close(
        output.float(), eager(*inputs, visible_in_groups(4), 0.3), atol=1e-2, rtol=1e-2
    )
    assert [call.longest for call in calls.recorded] == [GROUP, GROUP]
    assert [call.q.shape[1] for call in calls.recorded] == [2, 2]
    assert calls.recorded[1].cu[:6].tolist() == [0, 3, 9, 15, 16, 19]


def test_a_model_in_eval_mode_attends_in_full() -> None:
    """Held-out losses are measured on the model as it is served."""
    model = small_model("Llama", {})
    ids = torch.arange(1, 41)[None]
    logits = {}
    for kernel, group in (("full", None), ("s2", GROUP)):
        model.set_attn_implementation(attention.register("sdpa", s2_group=group))
        for training in (True, False):
            model.train(training)
            logits[kernel, training] = model(input_ids=ids, use_cache=False).logits.detach()
    assert torch.equal(logits["s2", False], logits["full", False])
    assert not torch.allclose(logits["s2", True], logits["full", True])


def test_sliding_windows_are_refused() -> None:
    q, k, v = heads(4, 4, 8)
    attend = s2_attn.s2_attention(sdpa, GROUP)
    with pytest.raises(
        ConfigError,
        match="train.attention.s2_group is 6; S2-Attn does not go with the model's sliding_window",
    ):
        attend(TRAINS, q, k, v, None, sliding_window=4)
    mistral = small_model("Mistral", {"sliding_window": 6})
    with pytest.raises(
        ConfigError,
        match="train.attention.s2_group is 6; mistral has sliding-window layers already",
    ):
        attention.refuse_unsupported(mistral.config, "the-model", GROUP)


def test_a_kernel_in_groups_has_its_own_name_and_description() -> None:
    name = attention.register("sdpa", s2_group=2048)
    assert name != attention.register("sdpa")
    assert attention.describe(name) == "sdpa in S2 groups of 2,048"


def test_borders_cached_by_an_evaluation_serve_training() -> None:
    """autograd refuses to save tensors that were made in inference mode."""
    with torch.inference_mode():
        arguments = s2_attn.group_border_arguments((0, 31), 7, 3, torch.device("cpu"))
    tensors = [value for value in arguments.values() if isinstance(value, torch.Tensor)]
    assert tensors and not any(tensor.is_inference() for tensor in tensors)


@pytest.mark.parametrize("parts", [2, 4])
def test_ranks_that_share_the_heads_compute_the_heads_of_one(parts: int) -> None:
    q, k, v = heads(4, 4, 8)
    borders = attention.document_borders(cu_seqlens())
    attend = s2_attn.s2_attention(sdpa, GROUP)
    expected, _ = attend(TRAINS, q, k, v, None, scaling=0.3, **borders)
    shares = zip(*(x.chunk(parts, dim=1) for x in (q, k, v)), strict=True)
    outputs = [
        attend(TRAINS, *share, None, scaling=0.3, part=(rank, parts), **borders)[0]
        for rank, share in enumerate(shares)
    ]
    torch.testing.assert_close(torch.cat(outputs, dim=2), expected, atol=1e-6, rtol=1e-5)
