"""What is refused without a trace does not fit by its trace either."""

from dataclasses import replace
from typing import Any

import pytest
import trace_models

from ropewalk.conf import hardware_file
from ropewalk.conf.hardware_file import Hardware
from ropewalk.launch.plan import bounds
from ropewalk.train.trace.child import traces_in_child
from ropewalk.train.trace.layers import Subject
from ropewalk.train.trace.plan import StepPlan, StepTrace
from ropewalk.train.trace.step import train_config

WORLD, TOKENS, LAYERS = 4, 16_384, 12
SETTINGS: dict[str, dict[str, Any]] = {
    "zero 1": {"zero_stage": 1},
    "zero 2": {"zero_stage": 2},
    "zero 3": {"zero_stage": 3},
    "nothing again": {"zero_stage": 3, "memory": {"activation_checkpointing": False}},
    "offloaded": {
        "zero_stage": 3,
        "memory": {"offload_activations": True, "offload_optimizer": True, "offload_params": True},
    },
}


def plan(name: str) -> StepPlan:
    train = {"precision": "bf16", **SETTINGS[name]}
    return StepPlan(trace_models.llama(LAYERS), (TOKENS,), train, WORLD)


def subject(name: str) -> Subject:
    return Subject(plan(name), train_config(plan(name)))


@pytest.fixture(scope="module")
def traces() -> dict[str, StepTrace]:
    results = traces_in_child([plan(name) for name in SETTINGS])
    assert all(isinstance(one, StepTrace) for one in results), results
    return dict(zip(SETTINGS, results, strict=True))  # type: ignore[arg-type]


@pytest.mark.parametrize("name", SETTINGS)
def test_the_least_is_below_the_peak_and_not_far(traces: dict[str, StepTrace], name: str) -> None:
    least, trace = bounds.least_device_bytes(subject(name)), traces[name]
    assert least <= trace.peak_bytes
    if name in ("zero 1", "zero 2", "zero 3"):
        assert least > 0.4 * trace.peak_bytes


def test_the_least_of_the_host_is_what_is_offloaded(traces: dict[str, StepTrace]) -> None:
    """Masters, moments and gradients in fp32, weights in bf16, each in four parts; and inputs."""
    hardware, offloaded = hardware_file.load("h100"), subject("offloaded")
    states = offloaded.sizes.parameters * (16 + 2)
    least = bounds.least_host_bytes(offloaded, hardware, WORLD)
    exact = states + WORLD * traces["offloaded"].offloaded_bytes
    assert 0.97 * exact < least <= exact + 64


def hardware(usable_mib: float, host_gib: float) -> Hardware:
    made = hardware_file.load("h100")
    memory = replace(made.memory_mib, value=usable_mib + made.context_mib.value)
    return replace(made, memory_mib=memory, host_ram_gib=replace(made.host_ram_gib, value=host_gib))


def test_hopeless_is_a_device_or_a_host_that_is_too_small() -> None:
    offloaded = subject("offloaded")
    device = bounds.least_device_bytes(offloaded) / 2**20
    host = bounds.least_host_bytes(offloaded, hardware(1, 1), WORLD) / 2**30
    for usable, ram, is_hopeless in (
        (device + 1, host * 1.01, False),
        (device + 1, host * 0.99, True),
    ):
        assert bounds.is_hopeless(offloaded, hardware(usable, ram), WORLD) is is_hopeless
    zero = subject("zero 1")
    needed = bounds.least_device_bytes(zero) / 2**20
    assert bounds.is_hopeless(zero, hardware(needed - 1, 2048), WORLD)
    assert not bounds.is_hopeless(zero, hardware(needed + 1, 2048), WORLD)
