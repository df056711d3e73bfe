"""A search asks for equal steps again: each is traced once."""

from dataclasses import replace
from typing import Any

import pytest
import trace_models

from ropewalk.launch.plan import traces
from ropewalk.train.trace.layers import Subject
from ropewalk.train.trace.plan import StepPlan
from ropewalk.train.trace.step import train_config

GIB = 2**30


def subject(plan: StepPlan) -> Subject:
    return Subject(plan, train_config(plan))


def plan(**train: Any) -> StepPlan:
    values = {"precision": "bf16", "zero_stage": 2, **train}
    memory = {"device_bytes": GIB, "host_bytes": GIB}
    return StepPlan(trace_models.llama(4), (8192,), values, 2, **memory)


@pytest.fixture
def traced(monkeypatch: pytest.MonkeyPatch) -> list[StepPlan]:
    """The plans that were traced, in place of their traces."""
    made: list[StepPlan] = []
    monkeypatch.setattr(traces, "_traces", {})
    monkeypatch.setattr(traces, "trace_step", made.append)
    return made


def test_what_changes_nothing_in_a_step_is_traced_once(traced: list[StepPlan]) -> None:
    first = plan()  # attention does not fit a GiB, and is not kept
    traces.of(subject(first))
    traces.of(subject(replace(first, device_bytes=GIB // 2)))
    traces.of(subject(plan(memory={"keep_attention": False})))
    assert traced == [first]


@pytest.mark.parametrize(
    "other",
    [
        plan(zero_stage=3),
        plan(memory={"keep_attention": True}),
        plan(memory={"tile_mlp_tokens": 1024}),
        replace(plan(), documents=(4096, 4096)),
        replace(plan(), world_size=4),
        replace(plan(), micro_batches=2),
        replace(plan(), model=trace_models.llama(8)),
        replace(plan(), device_bytes=640 * GIB),
    ],
    ids=["stage", "attention kept", "tiles", "documents", "ranks", "batches", "depth", "room"],
)
def test_another_step_is_traced_anew(traced: list[StepPlan], other: StepPlan) -> None:
    traces.of(subject(plan()))
    traces.of(subject(other))
    assert len(traced) == 2
