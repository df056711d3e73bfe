"""From the events of two steps to what is told of the second."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from ropewalk.train.cost import traffic
from ropewalk.train.cost.zero_stage import stage_cost
from ropewalk.train.memory.attention_budget import MOMENT_BYTES
from ropewalk.train.trace.allocator import reserved_peak
from ropewalk.train.trace.events import Event, counted, usage
from ropewalk.train.trace.layers import Subject
from ropewalk.train.trace.plan import StepTrace
from ropewalk.train.trace.tracer import Tracer
from ropewalk.train.trace.zero_events import Engine, with_engine
from ropewalk.train.zero.buffer_sizes import buffer_settings, part_sizes


def of(
    subject: Subject, traced: Sequence[Event], tracer: Tracer, layers: int, seconds: float
) -> StepTrace:
    """The second step of `traced`, which has all layers."""
    events = with_engine(traced, engine(subject)) if subject.train.zero_stage else list(traced)
    second = [number for number, event in enumerate(events) if event[:2] == ("mark", "step")][1]
    used = usage(events, second)
    counts = counted(events, second)
    return StepTrace(
        parameters=subject.sizes.parameters,
        operations=counts["operations"],
        allocations=counts["allocations"],
        peak_bytes=used.peak,
        peak_phase=used.phase,
        bytes_at_peak=used.at_peak,
        bytes_at_rest=used.at_rest,
        reserved={
            "native": reserved_peak(events, expandable=False),
            "expandable": reserved_peak(events, expandable=True),
        },
        offloaded_bytes=used.host_peak,
        curve=used.curve,
        kept_ops=sorted(subject.kept_ops),
        traced_layers=layers,
        product_flops=counts["product_flops"],
        attention_flops=counts["attention_flops"],
        waits=dict(tracer.waits),
        large=dict(tracer.large),
        gathers=_gathers(events, second),
        collectives=_collectives(subject),
        exchanges=[
            {"operation": key[0], "bytes": key[1], "times": times}
            for key, times in counts.items()
            if isinstance(key, tuple)
        ],
        host_bytes=counts["host_bytes"],
        seconds=seconds,
    )


def _gathers(events: Sequence[Event], start: int) -> dict[str, int]:
    """How often ZeRO 3 gathers weights that are needed at once, and ahead of their use."""
    kinds = Counter(event[1] for event in events[start:] if event[0] == "gather")
    return {kind: kinds[kind] for kind in ("on demand", "ahead") if kinds[kind]}


def engine(subject: Subject) -> Engine:
    """DeepSpeed's engine for the whole model. Raises: ConfigError as `buffer_settings`."""
    train, layout, memory = subject.train, subject.layout, subject.train.memory
    settings = buffer_settings(train, part_sizes(subject.full), layout.world_size)
    sizes = {key: parameter.numel() for key, parameter in subject.parameters.items()}
    threshold = settings.get("stage3_param_persistence_threshold", 0)
    persistent = frozenset(key for key, size in sizes.items() if size <= threshold)
    moments = MOMENT_BYTES[train.optimizer.name]
    cost = stage_cost(subject.sizes, layout, moments, memory.offload_optimizer)
    weights = 0 if memory.offload_params else cost.weights
    if train.zero_stage == 3:
        weights += sum(sizes[key] for key in persistent) * layout.element_bytes
    return Engine(
        stage=train.zero_stage,
        world_size=layout.world_size,
        element_bytes=layout.element_bytes,
        sizes=sizes,
        share=-(-subject.sizes.trainable // layout.world_size),
        states={"parameters": weights, "optimizer": cost.optimizer},
        settings=settings,
        offloads_optimizer=memory.offload_optimizer,
        micro_batches=subject.plan.micro_batches,
        persistent=persistent,
    )


def _collectives(subject: Subject) -> list[dict[str, Any]]:
    layout = replace(subject.layout, keeps_exchange=subject.keeps_exchange)
    return [vars(collective) for collective in traffic.collectives(subject.sizes, layout)]
