"""Attention's output kept in activation checkpointing: no bit changes, and it is not silent."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import kept_ranks
import memory_runs
import numpy as np
import pytest
import ranks
import torch
from architectures import small_model
from kept_ranks import CountedOps
from models import packed, tiny_model
from torch import nn
from torch.distributed._tools.mem_tracker import MemTracker
from transformers import AttentionInterface

from ropewalk.conf.errors import ConfigError
from ropewalk.train import attention
from ropewalk.train.cost.traffic import ParallelLayout, model_sizes
from ropewalk.train.loop.micro_batches import to_device
from ropewalk.train.loss_model import LossModel
from ropewalk.train.memory import activation_checkpointing, tiled_mlp
from ropewalk.train.memory.attention_budget import kept_bytes
from ropewalk.train.memory.kept_attention import (
    ATTENTION_OPS,
    EXCHANGE_OPS,
    KeptAttention,
    keepable,
    noted,
)

LAYERS = 3


FORWARD_OP = "aten::_scaled_dot_product_flash_attention_for_cpu"


def checkpointed(kept: KeptAttention | None, offload: bool = False, **changes: Any) -> Any:
    return enabled(tiny_model(num_hidden_layers=LAYERS, **changes), kept, offload)


def enabled(model: Any, kept: KeptAttention | None, offload: bool = False) -> Any:
    """`model` in training, with checkpointed layers."""
    model.train().set_attn_implementation(attention.register("sdpa"))
    activation_checkpointing.enable(model, offload, kept)
    return model


def gradients(model: Any, lengths: tuple[int, ...] = (13, 1, 40, 40, 6)) -> dict[str, torch.Tensor]:
    row, _ = packed(list(lengths), sum(lengths))
    LossModel(model)(**to_device(row), total_labels=1).backward()
    return {name: p.grad for name, p in model.named_parameters() if p.grad is not None}


def assert_no_bit_differs(actual: dict[str, Any], expected: dict[str, Any]) -> None:
    assert actual.keys() == expected.keys()
    assert all(torch.equal(actual[name], expected[name]) for name in expected)


@pytest.mark.parametrize("offload", [False, True])
@pytest.mark.parametrize("kind", ["Llama", "Mistral", "Gemma3Text", "GptOss"])
def test_attention_runs_once_and_no_bit_changes(offload: bool, kind: str) -> None:
    """Beside a model without any checkpointing: full, windowed, in both kinds of layers, sinks."""
    changes = {
        "Mistral": {"sliding_window": 6},
        "GptOss": {"num_local_experts": 4, "num_experts_per_tok": 2},
    }
    reference, *models = (small_model(kind, changes.get(kind, {})) for _ in range(3))
    reference.train().set_attn_implementation(attention.register("sdpa"))
    counts = []
    for model, kept in zip(models, (None, KeptAttention()), strict=True):
        with CountedOps() as ops:
            actual = gradients(enabled(model, kept, offload))
        counts.append(ops.counts[FORWARD_OP])
    assert counts[0] == 2 * counts[1] > 0
    assert_no_bit_differs(actual, gradients(reference))


def test_with_tiles_and_frozen_weights_no_bit_changes() -> None:
    results = []
    for kept in (None, KeptAttention()):
        model = checkpointed(kept, offload=True)
        tiled_mlp.enable(model, 7)
        for name, parameter in model.named_parameters():
            parameter.requires_grad = "q_proj" in name or "norm" in name
        results.append(gradients(model))
    assert_no_bit_differs(results[1], results[0])


def test_two_calls_of_a_kernel_in_a_layer_are_both_kept() -> None:
    kept, calls = KeptAttention(), []

    def attend(x: torch.Tensor) -> torch.Tensor:
        calls.append(None)
        return nn.functional.scaled_dot_product_attention(x, x, x)

    def layer(x: torch.Tensor) -> torch.Tensor:
        return run(run(x * 2) + 1)

    run = keepable(attend)
    x = torch.randn(1, 2, 8, 16, requires_grad=True)
    (expected,) = torch.autograd.grad(layer(x).square().sum(), x)
    with CountedOps() as ops:
        output = torch.utils.checkpoint.checkpoint(
            layer, x, use_reentrant=False, context_fn=kept.contexts
        )
        (actual,) = torch.autograd.grad(output.square().sum(), x)
    assert torch.equal(actual, expected)
    assert ops.counts[FORWARD_OP] == 2


def by_hand(
    module: Any, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, *_: Any, **__: Any
) -> tuple[torch.Tensor, None]:
    """Attention by operations that are not known to be kept."""
    repeats = query.shape[1] // key.shape[1]
    key, value = (x.repeat_interleave(repeats, dim=1) for x in (key, value))
    scores = (query @ key.transpose(2, 3)).softmax(-1)
    return (scores @ value).transpose(1, 2).contiguous(), None


def test_a_kernel_of_unknown_operations_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """Kept attention without an effect would be a silent loss of 13% of a long step."""
    lines: list[str] = []
    monkeypatch.setattr("ropewalk.train.memory.kept_attention.log.warning", lines.append)
    for is_required in (True, False):
        model = checkpointed(KeptAttention(is_required=is_required))
        name = model.config._attn_implementation
        monkeypatch.setitem(AttentionInterface._global_mapping, name, keepable(noted(by_hand)))
        if is_required:
            with pytest.raises(ConfigError, match="this one runs: .*aten::_softmax.*; set train"):
                gradients(model)
    assert lines == []
    gradients(model)
    (line,) = lines  # once, not by layer
    assert "it is computed again in the backward pass" in line


def test_a_rank_without_queries_keeps_nothing_and_is_no_fault() -> None:
    """Fewer tokens than ranks: it takes part in the exchange, and runs no kernel."""
    kept = KeptAttention()
    with kept.contexts()[0]:
        keepable(lambda x: x * 2)(torch.zeros(1))
    assert kept.has_effect


def test_a_kernel_that_is_not_registered_as_keepable_is_told() -> None:
    model = checkpointed(KeptAttention())
    model.set_attn_implementation("sdpa")  # transformers' own
    with pytest.raises(ConfigError, match="runs: none that torch's dispatcher sees"):
        gradients(model)


def test_the_operations_of_torch_and_deepspeed_have_these_names() -> None:
    """Each returns its output first, and what its backward pass reads beside it."""
    import deepspeed.sequence.layer  # noqa: F401
    import torch.nn.attention.varlen  # noqa: F401

    schemas = {schema.name: schema for schema in torch._C._jit_get_all_schemas()}
    names = {name for name in ATTENTION_OPS if not name.startswith("flash_attn")}
    assert names | EXCHANGE_OPS <= schemas.keys()
    for name in names:
        assert len(schemas[name].returns) >= 2, name
        assert not any(argument.is_out for argument in schemas[name].arguments), name


@pytest.mark.parametrize("stage", [1, 3])
def test_through_the_engine_on_two_ranks_no_bit_changes(stage: int) -> None:
    """ZeRO 3 gathers weights in the second pass by other operations than in the first."""
    cases: list[dict[str, Any]] = [
        {"zero_stage": stage, "memory__keep_attention": on, "memory__offload_activations": offload}
        for on, offload in ((False, False), (True, False), (True, True))
    ]
    expected, *others = ranks.run(2, memory_runs.train_each, cases, 2)[0]
    for actual in others:
        assert actual["losses"] == expected["losses"]
        for key in ("gradients", "weights"):
            assert all((actual[key][n] == x).all() for n, x in expected[key].items()), key


def test_the_exchange_of_heads_is_kept_with_it() -> None:
    """Two layers of four exchanges: queries, keys, values, and the attended heads back."""
    both = ATTENTION_OPS | EXCHANGE_OPS
    for results in ranks.run(2, kept_ranks.exchanged, [ATTENTION_OPS, both]):
        (expected, _), *others = results
        assert all(np.array_equal(actual, expected) for actual, _ in others)
        (exchange,) = EXCHANGE_OPS
        # each is an operation of its own in the backward pass too
        assert [ops[exchange] for _, ops in results] == [8 * 3, 8 * 3, 8 * 2]
        assert [ops[FORWARD_OP] for _, ops in results] == [16, 8, 8]


def test_attention_is_kept_where_the_ranks_do_not_divide_the_heads() -> None:
    for (expected, again), (actual, kept) in ranks.run(2, kept_ranks.exchanged_over_three_heads):
        assert np.array_equal(actual, expected)
        assert again[FORWARD_OP] == 2 * kept[FORWARD_OP] > 0


@contextmanager
def tracked_peak(model: Any) -> Iterator[list[int]]:
    """Peak bytes of all tensors, by torch's own tracker."""
    tracker, result = MemTracker(), []
    tracker.track_external(model)
    with tracker:
        yield result
    snapshot = tracker.get_tracker_snapshot("peak")
    result.append(snapshot[torch.device("cpu")]["Total"])


def peak(is_kept: bool, tokens: int, **changes: Any) -> int:
    model = checkpointed(KeptAttention() if is_kept else None, **changes)
    with tracked_peak(model) as bytes_at_peak:
        gradients(model, (tokens,))
    return bytes_at_peak[0]


def assert_peak_grows_by_the_arithmetic(tokens: int, **changes: Any) -> None:
    """The last layer's is there anyway when its backward pass runs."""
    sizes = model_sizes(tiny_model(num_hidden_layers=LAYERS, **changes))
    layout = ParallelLayout(1, 1, 1, 1, tokens, element_bytes=4)
    expected = kept_bytes(sizes, layout).attention * (sizes.layers - 1) / sizes.layers
    measured = peak(True, tokens, **changes) - peak(False, tokens, **changes)
    assert measured == pytest.approx(expected, rel=0.1)


def test_the_peak_grows_by_the_arithmetic() -> None:
    assert_peak_grows_by_the_arithmetic(1024)


@pytest.mark.slow
def test_the_peak_of_16384_tokens_grows_by_the_arithmetic() -> None:
    assert_peak_grows_by_the_arithmetic(16384, hidden_size=64, intermediate_size=128)
