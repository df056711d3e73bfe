"""The traced step against arithmetic, against a real step under torch's counters, and with faults.

P elements of the model   S tokens   L layers   W ranks
"""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import trace_faults
import trace_models

from ropewalk.train.trace.child import ENVIRONMENT, trace_in_child, traces_in_child
from ropewalk.train.trace.plan import StepPlan, StepTrace, TraceError

WORLD, DOCUMENTS = 8, (8192, 6144, 2048)
S = sum(DOCUMENTS)
HELPERS = Path(__file__).parents[2] / "helpers"
MODELS = {
    "llama": trace_models.llama,
    "qwen3": trace_models.qwen3,
    "gemma3": trace_models.gemma3,
    "qwen3_moe": trace_models.qwen3_moe,
}
DEPTHS = {"llama": 32, "qwen3": 36, "gemma3": 48, "qwen3_moe": 48}
RECOMPUTE_ENDS_BEFORE_DOWN = ("llama", "qwen3")
"""A checkpoint is recomputed up to the last tensor that is saved: where nothing follows the MLP's
last product but a sum, that product is left out."""


def plan(name: str, layers: int, **memory: Any) -> StepPlan:
    train = {"precision": "bf16", "zero_stage": 2, "memory": memory}
    return StepPlan(MODELS[name](layers), DOCUMENTS, train, world_size=WORLD)


def program(name: str) -> str:
    """What a program of tests/helpers prints, in a process like the engine's own."""
    environment = os.environ | ENVIRONMENT | {"PYTHONPATH": str(HELPERS)}
    child = subprocess.run(
        [sys.executable, str(HELPERS / name)], env=environment, capture_output=True, text=True
    )
    assert not child.returncode, child.stderr
    return child.stdout


def matrices(config: dict[str, Any]) -> tuple[int, int]:
    """Elements of a layer's matrices that a token passes, and those of the last of them."""
    hidden, heads = config["hidden_size"], config["num_attention_heads"]
    size = config.get("head_dim", hidden // heads)
    attention = hidden * size * 2 * (heads + config["num_key_value_heads"])
    if "num_experts" in config:
        expert = hidden * config["moe_intermediate_size"]
        active = config["num_experts_per_tok"] * expert
        return attention + 3 * active + hidden * config["num_experts"], active
    down = hidden * config["intermediate_size"]
    return attention + 3 * down, down


def visible_pairs(window: int | None) -> int:
    """Pairs of a query and a key that it sees, counted query by query."""
    return sum(min(i + 1, window or i + 1) for n in DOCUMENTS for i in range(n))


@pytest.fixture(scope="module")
def traces() -> dict[str, StepTrace]:
    """Two layers of each model; four and six of Llama, whose peak is at one place; with attention
    kept."""
    plans = {name: plan(name, 2) for name in MODELS}
    plans["kept"] = plan("llama", 2, keep_attention=True)
    for layers in (4, 6):
        plans[f"{layers} layers"] = plan("llama", layers)
        plans[f"{layers} layers, kept"] = plan("llama", layers, keep_attention=True)
    results = traces_in_child(list(plans.values()))
    assert not any(isinstance(result, TraceError) for result in results), results
    return dict(zip(plans, results, strict=True))  # type: ignore[arg-type]


@pytest.mark.parametrize("name", MODELS)
def test_products_are_those_of_the_matrices(traces: dict[str, StepTrace], name: str) -> None:
    config = MODELS[name](2)
    elements, last = matrices(config)
    left_out = last if name in RECOMPUTE_ENDS_BEFORE_DOWN else 0
    layers = 2 * S * 2 * (4 * elements - left_out)  # forward, recomputed, and two backward
    head = 3 * 2 * S * config["vocab_size"] * config["hidden_size"]
    router = 2 * 2 * S * config.get("num_experts", 0)  # of its loss: sums weighted by the tokens
    assert layers + head <= traces[name].product_flops <= layers + head + 4 * router


@pytest.mark.parametrize("name", MODELS)
def test_attention_counts_the_pairs_that_see_one_another(
    traces: dict[str, StepTrace], name: str
) -> None:
    config = MODELS[name](2)
    size = config.get("head_dim", 128)
    pairs = visible_pairs(config.get("sliding_window")) + visible_pairs(None)
    forward = 2 * config["num_attention_heads"] * 2 * size * pairs
    assert traces[name].attention_flops == 4.5 * forward  # forward, recomputed, 2.5 backward


@pytest.mark.parametrize("name", MODELS)
def test_states_are_those_of_zero_two(traces: dict[str, StepTrace], name: str) -> None:
    """bf16 weights, and of an eighth fp32 masters, two moments and the sums of gradients."""
    trace = traces[name]
    expected = {
        "parameters": 2 * trace.parameters,
        "optimizer": 12 * trace.parameters / WORLD,
        "gradients": 4 * trace.parameters / WORLD,
    }
    for component, size in expected.items():
        assert trace.bytes_at_peak[component] == pytest.approx(size, rel=1e-4), component
    assert trace.peak_phase == "backward" and "gradients" not in trace.bytes_at_rest


@pytest.mark.parametrize("name", MODELS)
def test_the_host_waits_once_a_step_and_never_in_a_pass(
    traces: dict[str, StepTrace], name: str
) -> None:
    assert sum(traces[name].waits.values()) == 1


def test_a_layer_more_adds_its_states_and_its_checkpoint_to_the_peak(
    traces: dict[str, StepTrace],
) -> None:
    config = MODELS["llama"](1)
    parameters = matrices(config)[0] + 2 * config["hidden_size"]
    checkpoint = 2 * S * config["hidden_size"]
    added = traces["6 layers"].peak_bytes - traces["4 layers"].peak_bytes
    per_layer = parameters * (2 + (12 + 4) / WORLD) + checkpoint
    assert added == pytest.approx(2 * per_layer, rel=1e-5)


def test_kept_attention_is_computed_twice_less_and_held(traces: dict[str, StepTrace]) -> None:
    """Not recomputed; a layer more holds its output in bf16, and a log-sum-exp for each head."""
    config, kept = MODELS["llama"](1), traces["kept"]
    assert kept.attention_flops == traces["llama"].attention_flops * 3.5 / 4.5
    added = traces["6 layers, kept"].peak_bytes - traces["4 layers, kept"].peak_bytes
    without = traces["6 layers"].peak_bytes - traces["4 layers"].peak_bytes
    held = S * (2 * config["hidden_size"] + 4 * config["num_attention_heads"])
    assert added - without == pytest.approx(2 * held, rel=1e-4)


def test_ranks_that_share_a_row_exchange_each_head_in_each_pass() -> None:
    """Forward, recomputed and backward, a rank sends its tokens of all heads, keys' and values'."""
    shared = StepPlan(
        MODELS["llama"](2), (65536, 65536), {"precision": "bf16", "sp_size": 8}, world_size=8
    )
    trace = trace_in_child(shared)
    tokens, heads = 131072 // 8, 2 * (32 + 8)  # queries and outputs, keys and values
    sent = sum(exchange["bytes"] * exchange["times"] for exchange in trace.exchanges)
    assert sent == 3 * 2 * heads * 128 * tokens * 2
    assert {exchange["operation"] for exchange in trace.exchanges} == {
        "deepspeed::dim_zero_all_to_all"
    }
    arithmetic = [x for x in trace.collectives if x["kind"] == "all_to_all"]
    assert sent == sum(x["times"] * x["bytes"] for x in arithmetic)
    forward = 2 * 2 * (32 // 8) * 2 * 128 * 65536 * 65537  # of two layers and two documents
    assert trace.attention_flops == 4.5 * forward


def test_heads_that_the_ranks_do_not_divide_are_exchanged_without_a_wait() -> None:
    """Qwen2.5-7B's 28 heads on 8 ranks: rank 0 has 7 of them, and attends for the first and the
    last quarter of each of two documents. Its tokens are of the first quarters, which both parts
    see.
    """
    sizes = {"hidden_size": 28 * 128, "num_attention_heads": 28, "num_key_value_heads": 4}
    train = {"precision": "bf16", "sp_size": 8}
    model = MODELS["llama"](2) | sizes
    trace = trace_in_child(StepPlan(model, (65536, 65536), train, world_size=8))
    sent = {
        exchange["bytes"]: exchange["times"]
        for exchange in trace.exchanges
        if exchange["operation"] == "_c10d_functional::all_to_all_single"
    }
    head = 131072 // 8 * 128 * 2  # of a rank's tokens; queries go to one rank and keys to two
    assert sent == {28 * head: 3 * 2 * 2, 4 * 2 * head: 3 * 2 * 2}
    arithmetic = [x for x in trace.collectives if x["kind"] == "all_to_all"]
    # of each document the second part sees three quarters: on average a rank sends keys 7/4 times
    assert [x["bytes"] / head for x in arithmetic] == [28, 7, 7, 28]
    quarter = 65536 // 4
    pairs = 2 * (quarter * 3 * quarter + 2 * quarter * (quarter + 1) // 2)
    assert trace.attention_flops == 4.5 * 2 * 7 * 4 * 128 * pairs
    assert sum(trace.waits.values()) == 1  # the step's own reading of its loss and norm


def test_peak_and_products_are_those_that_torch_counts_in_a_real_step() -> None:
    """MemTracker and FlopCounterMode on the same step, computed on a CPU."""
    result = json.loads(program("trace_oracle.py").splitlines()[-1])
    traced, real = result["traced"], result["real"]
    assert traced["flops"] == real["flops"]
    assert traced["peak"] == pytest.approx(real["peak"], rel=2e-3)


@pytest.fixture(scope="module")
def outcomes() -> dict[str, tuple[str, str]]:
    lines = [json.loads(line) for line in program("trace_faults.py").splitlines()]
    return {fault: (kind, message) for fault, kind, message in lines}


MIXES = (trace_faults.host_tensor, trace_faults.host_cu_seqlens)


@pytest.mark.parametrize("fault", [f for f in trace_faults.FAULTS if f is not trace_faults.none])
def test_a_fault_in_a_layer_is_refused_with_its_place(
    outcomes: dict[str, tuple[str, str]], fault: Callable[..., Any]
) -> None:
    kind, message = outcomes[fault.__name__]
    assert kind == ("MixedDevicesError" if fault in MIXES else "HostWaitError")
    first = fault.__code__.co_firstlineno
    line = int(message.split("trace_faults.py:")[1].split()[0])
    assert first < line < first + 10


def test_without_a_fault_the_step_is_traced(outcomes: dict[str, tuple[str, str]]) -> None:
    assert outcomes["none"] == ("", "")


OFFLOADED = {"offload_activations": True, "keep_attention": True}


@pytest.mark.parametrize(
    "memory",
    [pytest.param({}, id="usual"), pytest.param(OFFLOADED, id="offloaded", marks=pytest.mark.slow)],
)
def test_few_layers_stand_for_all_to_the_byte(memory: dict[str, Any]) -> None:
    """Peak, what the allocator holds, operations and FLOPs, with the engine's gathers around."""
    train = {"precision": "bf16", "zero_stage": 3, "memory": memory}
    few = StepPlan(MODELS["llama"](9), DOCUMENTS, train, world_size=WORLD)
    some, every = traces_in_child([few, replace(few, every_layer=True)])
    assert isinstance(some, StepTrace) and isinstance(every, StepTrace)
    assert some.traced_layers < every.traced_layers == 9
    own = {"traced_layers": 0, "seconds": 0.0}
    assert replace(some, **own) == replace(every, **own)


@pytest.mark.slow
@pytest.mark.parametrize("name", MODELS)
def test_few_layers_stand_for_all_at_full_depth(name: str) -> None:
    full = plan(name, DEPTHS[name])
    some, every = (trace_in_child(replace(full, every_layer=each)) for each in (False, True))
    own = {"traced_layers": 0, "seconds": 0.0}
    assert replace(some, **own) == replace(every, **own)
    assert sum(every.waits.values()) == 1
