"""What a ZeRO stage holds, by hand and in DeepSpeed's engines; when another is suggested."""

from dataclasses import replace

import pytest
import ranks
import state_bytes_ranks
from models import tiny_model
from train_settings import changed

from ropewalk.conf.schema import Config
from ropewalk.launch.config.compose import compose
from ropewalk.train.cost.traffic import ModelSizes, ParallelLayout, collectives, model_sizes
from ropewalk.train.cost.zero_stage import (
    StageCost,
    advice,
    layer_inputs,
    layout_of,
    stage_cost,
    suggested_stage,
)
from ropewalk.train.zero.buffer_sizes import LARGEST_BUCKET
from ropewalk.train.zero.mesh import Mesh

N = 8_000_000_000
SIZES = ModelSizes(
    parameters=N,
    trainable=N,
    matrices=N,
    operands=0,
    hidden=4096,
    vocabulary=128_256,
    layers=32,
    heads=32,
    kv_heads=8,
    head_dim=128,
)
"""Llama-3-8B in round numbers."""


def layout(stage: int, ranks: int = 8, accumulated: int = 1) -> ParallelLayout:
    return ParallelLayout(1, ranks, stage, accumulated, tokens=1 << 17)


def costs(ranks: int = 8, accumulated: int = 1) -> dict[int, StageCost]:
    return {s: stage_cost(SIZES, layout(s, ranks, accumulated)) for s in (1, 2, 3)}


def test_eight_billion_parameters_on_eight_ranks_by_hand() -> None:
    """In GB: 2 bytes of a weight, 4 of a summed gradient, 4 + 8 of AdamW; fp32 over the network."""
    by_stage = {
        stage: (c.weights / 1e9, c.gradients / 1e9, c.optimizer / 1e9, c.sent / 1e9)
        for stage, c in costs().items()
    }
    assert by_stage[1] == (16, 32 + 4, 12, 7 / 8 * (2 * 32 + 16))
    assert by_stage[2] == (16, 4, 12, 7 / 8 * (2 * 32 + 16))
    assert by_stage[3] == (2, 4, 12, 7 / 8 * (2 * 16 + 32))
    # ZeRO 2 reduces in every micro-batch, ZeRO 1 once a step
    eight = costs(accumulated=8)
    assert eight[1].sent / 1e9 == 7 / 8 * (2 * 32 + 16)
    assert eight[2].sent / 1e9 == 7 / 8 * (8 * 2 * 32 + 16)
    # 131,072 tokens on 8 ranks, 32 layers of 4,096 in bf16
    assert layer_inputs(SIZES, layout(1)) == 16_384 * 32 * 4096 * 2


def test_offloaded_and_eight_bit_states_by_hand() -> None:
    offloaded = {s: stage_cost(SIZES, layout(s), offload=True) for s in (1, 2, 3)}
    on_device = {s: (c.gradients / 1e9, c.optimizer, c.host / 1e9) for s, c in offloaded.items()}
    assert on_device == {1: (36, 0, 16), 2: (4, 0, 16), 3: (0, 0, 16)}
    assert stage_cost(SIZES, layout(2), moment_bytes=2).optimizer == 6 * 10**9
    frozen = replace(SIZES, trainable=N // 100)
    assert stage_cost(frozen, layout(1)).gradients == 4 * N // 100 + 4 * N // 800


def test_deepspeed_s_engines_hold_what_the_arithmetic_says() -> None:
    """Up to the padding of a group of parameters to equal parts."""
    sizes = model_sizes(tiny_model(**state_bytes_ranks.SHAPE))
    cases = [{"zero_stage": stage} for stage in (1, 2, 3)]
    for rank in ranks.run(2, state_bytes_ranks.held_bytes, cases):
        for case, held in zip(cases, rank, strict=True):
            cost = stage_cost(sizes, layout(case["zero_stage"], ranks=2))
            for name, count in held.items():
                expected = getattr(cost, name)
                assert expected <= count <= expected + 256, (case, name, count, expected)


def test_a_stage_that_does_not_fit_gets_the_one_that_fits_and_sends_least() -> None:
    device = 80_000_000_000
    inputs = layer_inputs(SIZES, layout(1))
    # 64 GB and 4.3 of layer inputs fit, and send 25% more than ZeRO 3: not worth a change
    assert suggested_stage(1, costs(), inputs, device) is None
    # 68 GB do not leave room for 17 of layer inputs on 2 sequence ranks
    assert suggested_stage(1, costs(), 4 * inputs, device) == 3
    assert suggested_stage(1, costs(accumulated=8), 4 * inputs, device) == 3
    # where ZeRO 1 fits, ZeRO 2 and 3 send 6 times as much over 8 micro-batches
    assert suggested_stage(2, costs(accumulated=8), inputs, device) == 1
    assert suggested_stage(3, costs(accumulated=8), inputs, device) == 1
    assert suggested_stage(1, costs(), inputs, 10_000_000_000) is None  # nothing fits


def config(**train: object) -> Config:
    overrides = ["recipe=demo", "train.precision=bf16", "train.zero_stage=1"]
    composed = compose(overrides)
    return replace(composed, train=changed(composed.train, **train))


@pytest.mark.parametrize(
    ("tokens", "device_gb", "parts"),
    [
        (1 << 17, 80, []),
        (1 << 20, 80, ["16.0 GB of weights, 36.0 of gradients, 12.0", "train.zero_stage=3"]),
        (1 << 17, 15, ["no stage fits", "start more ranks at train.zero_stage=3"]),
        (1 << 21, 80, ["no stage fits", "train.memory.offload_activations=true"]),
    ],
)
def test_the_advice_is_one_line_with_numbers(tokens: int, device_gb: int, parts: list[str]) -> None:
    settings = config(memory__activation_checkpointing=True)
    line = advice(SIZES, replace(layout(1), tokens=tokens), settings, device_gb * 10**9)
    assert (line is None) == (not parts)
    for part in parts:
        assert line is not None and "\n" not in line and part in line


def test_offloading_and_quantisation_are_seen() -> None:
    long = replace(layout(1), tokens=1 << 20)
    settings = config(memory__offload_activations=True, memory__activation_checkpointing=True)
    assert advice(SIZES, long, settings, 80 * 10**9) is None
    assert advice(SIZES, long, config(lora__quantize="nf4"), 10**9) is None


def test_the_layout_of_a_run() -> None:
    settings = config(sp_size=2, micro_batch_size=2)
    expected = ParallelLayout(4, 2, 1, 3, tokens=settings.micro_batch_tokens, checkpointing=False)
    result = layout_of(settings, Mesh(0, 8, 2), 3)
    assert replace(result, checkpointing=False) == expected


def test_without_zero_every_rank_has_weights_gradients_and_moments_whole() -> None:
    """bf16 of two bytes; both moments in fp32, without a copy of the weights."""
    half = replace(SIZES, trainable=N // 2)
    cost = stage_cost(half, layout(0))
    assert (cost.weights, cost.gradients, cost.optimizer) == (2 * N, N, 4 * N)
    assert (cost.host, cost.device) == (0, 7 * N)
    fp32 = stage_cost(half, replace(layout(0), element_bytes=4), moment_bytes=2)
    assert (fp32.weights, fp32.gradients, fp32.optimizer) == (4 * N, 2 * N, N)
    assert stage_cost(half, layout(0), offload=True) == cost


def test_tensors_are_sent_in_as_many_messages_as_deepspeed_makes() -> None:
    """Buckets of a layer's gradients, 250M elements; weights in parts of 500M, or by layer."""
    whole = ParallelLayout(8, 1, 0, 3, tokens=1 << 17)
    by_stage = {stage: collectives(SIZES, replace(whole, zero_stage=stage)) for stage in range(4)}
    rows = {
        stage: [(c.kind, c.times, c.bytes, c.messages) for c in made]
        for stage, made in by_stage.items()
    }
    buckets = -(-N // min(N // 32, LARGEST_BUCKET))
    gathered = ("all_gather", 1, 2 * N, 16)
    assert rows[0] == [("all_reduce", 1, 4 * N, buckets)]
    assert rows[1] == [("all_reduce", 1, 4 * N, buckets), gathered]
    assert rows[2] == [("all_reduce", 3, 4 * N, buckets), gathered]
    assert rows[3] == [
        ("all_gather", 6, 2 * N, 32),
        ("reduce_scatter", 3, 4 * N, buckets),
    ]
    once, back = by_stage[1]
    assert once.message_bytes == 4 * N / buckets and back.payload == 2 * N
    assert (once.rounds, back.rounds) == (2, 1) and once.bytes_sent == 2 * 4 * N * 7 / 8
    assert collectives(SIZES, replace(whole, dp_size=1, zero_stage=1)) == []
    small = replace(SIZES, trainable=10, matrices=32)
    assert collectives(small, layout(1))[0].messages == 1
    assert collectives(small, layout(1))[1].messages == 1


def test_heads_are_exchanged_again_where_layers_are_computed_again() -> None:
    """On 4 ranks each puts in 32 query and 8 key heads of 128 for a quarter of 1,024 tokens."""
    kept = ParallelLayout(1, 4, 0, 2, tokens=1024, checkpointing=False)
    expected = {"queries": 32, "keys": 8, "values": 8, "attended": 32}
    for one, passes in (
        (kept, 2),
        (replace(kept, checkpointing=True), 3),
        (replace(kept, checkpointing=True, keeps_exchange=True), 2),
    ):
        made = [c for c in collectives(SIZES, one) if c.kind == "all_to_all"]
        assert {c.tensor: c.bytes for c in made} == {
            name: heads * 256 * 128 * 2 for name, heads in expected.items()
        }
        assert {(c.times, c.ranks) for c in made} == {(2 * 32 * passes, 4)}


def test_states_of_eight_bits_and_plans_without_zero_are_weighed() -> None:
    """20 GB: ZeRO 1 to 3 hold 64, 32 and 18 GB; with moments of two bytes 6 fewer a rank."""
    fits = 8 * 10**9
    assert advice(SIZES, layout(1), config(), fits) is not None
    line = advice(SIZES, layout(1), config(), 20 * 10**9)
    assert line is not None and "consider train.zero_stage=3" in line
    line = advice(SIZES, layout(1), config(optimizer__name="adamw_8bit"), 20 * 10**9)
    assert line is not None and "36.0 of gradients, 6.0 of optimizer states" in line
    line = advice(SIZES, layout(1), config(memory__compile=True), 20 * 10**9)
    assert line is not None and "no stage fits" in line  # ZeRO 3 is not compiled
    fp32 = replace(layout(0), element_bytes=4)
    line = advice(SIZES, fp32, config(precision="fp32"), 20 * 10**9)
    assert line is not None and line.startswith("train.zero_stage is 0; on each of 8 ranks")
    assert "32.0 GB of weights, 32.0 of gradients, 64.0 of optimizer states" in line
