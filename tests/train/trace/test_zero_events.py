"""The engine's allocations by hand, from DeepSpeed's sources, for a model of three layers.

W ranks   P trained elements
"""

from collections import Counter
from typing import Any

import pytest

from ropewalk.train.trace.events import GATHER, Event, Parameter, usage
from ropewalk.train.trace.zero_events import Engine, with_engine

W, MIB = 4, 1 << 20
LAYER, HEAD, NORM = 8 * MIB, 32 * MIB, 512
PARAMETERS: dict[Parameter, int] = {
    **{(n, part): LAYER // 2 for n in range(3) for part in ("a", "b")},
    (None, "head"): HEAD,
    (None, "norm"): NORM,
}
P = sum(PARAMETERS.values())
ORDER: list[Parameter] = [*((n, part) for n in range(3) for part in ("a", "b")), (None, "norm")]
SETTINGS = {
    "overlap_comm": True,
    "reduce_bucket_size": LAYER,
    "stage3_prefetch_bucket_size": LAYER,
    "stage3_max_live_parameters": LAYER + HEAD,
    "stage3_max_reuse_distance": 2 * LAYER,
}


def engine(stage: int, **changes: Any) -> Engine:
    weights = 2 * P // W if stage == 3 else 2 * P
    values: dict[str, Any] = {
        "stage": stage,
        "world_size": W,
        "element_bytes": 2,
        "sizes": PARAMETERS,
        "share": P // W,
        "states": {"parameters": weights, "optimizer": 12 * P // W},
        "settings": SETTINGS,
        "persistent": frozenset({(None, "norm")}),
    }
    return Engine(**values | changes)


def steps(micro_batches: int = 1) -> list[Event]:
    """Two steps whose own tensors are nothing."""
    events: list[Event] = []
    for _ in range(2):
        events.append(("mark", "step", None))
        for _ in range(micro_batches):
            events.append(("mark", "batch", None))
            events += [("use", one) for one in ORDER]
            events += [("mark", "loss", None), ("use", (None, "head"))]
            events.append(("gradient", (None, "head")))
            for layer in (2, 1, 0):
                events.append(("mark", "backward", layer))
                for part in ("b", "a"):
                    events += [("use", (layer, part)), ("gradient", (layer, part))]
            events.append(("gradient", (None, "norm")))
        events += [("mark", "optimizer", None), ("mark", "end", None)]
    return events


def peaks(events: list[Event]) -> Counter[str]:
    """The most of each component at any time."""
    alive: dict[object, Event] = {}
    now: Counter[str] = Counter()
    most: Counter[str] = Counter()
    for event in events:
        if event[0] == "alloc":
            alive[event[1]] = event
            now[event[3]] += event[2]
            most[event[3]] = max(most[event[3]], now[event[3]])
        elif event[0] == "free":
            gone = alive.pop(event[1])
            now[gone[3]] -= gone[2]
    return most


@pytest.mark.parametrize("stage", [1, 2, 3])
@pytest.mark.parametrize("micro_batches", [1, 2])
def test_gradients_are_those_that_deepspeed_holds(stage: int, micro_batches: int) -> None:
    """In fp32: at stage 1 whole until the step, and then this rank's part beside them; at 2 the
    part; at 3 the part, and a flat copy of it in the step."""
    most = peaks(with_engine(steps(micro_batches), engine(stage, micro_batches=micro_batches)))
    expected = {1: 4 * P + P, 2: P, 3: 2 * P}[stage]
    assert most["gradients"] == pytest.approx(expected, rel=1e-3)
    assert most["optimizer"] == pytest.approx(12 * P / W, rel=1e-4)


@pytest.mark.parametrize("stage", [1, 2, 3])
def test_what_a_step_takes_it_gives_back(stage: int) -> None:
    events = with_engine(steps(), engine(stage))
    first = usage(events[: [e[:2] for e in events].index(("mark", "end")) + 1]).at_rest
    assert usage(events).at_rest == first


def test_buckets_of_stage_three() -> None:
    """A buffer in fp32 for good. The head fits none: its gradient, and its copy in fp32, which is
    reduced in place. A layer's are beside the buffer once more, as rows for each rank."""
    most = peaks(with_engine(steps(), engine(3)))
    assert most["gradient buckets"] == pytest.approx(4 * LAYER + (2 + 4) * HEAD, rel=1e-3)
    small = {key: size for key, size in PARAMETERS.items() if key != (None, "head")}
    events = [e for e in steps() if e[:2] != ("gradient", (None, "head"))]
    most = peaks(with_engine(events, engine(3, sizes=small | {(None, "head"): 1})))
    assert most["gradient buckets"] == pytest.approx(2 * 4 * LAYER, rel=1e-3)


def test_buckets_of_stage_two_are_two_where_reductions_overlap() -> None:
    settings = SETTINGS | {"reduce_bucket_size": HEAD}
    both, one = (
        peaks(with_engine(steps(), engine(2, settings=settings | {"overlap_comm": overlap})))
        for overlap in (True, False)
    )
    assert both["gradient buckets"] - one["gradient buckets"] == 2 * HEAD


def test_offloaded_states_are_not_on_the_device() -> None:
    states = {"parameters": 2 * P // W, "optimizer": 0}
    most = peaks(with_engine(steps(), engine(3, states=states, offloads_optimizer=True)))
    assert not most["optimizer"] and not most["gradients"]


def gathers(events: list[Event]) -> list[int]:
    return [e[2] for e in events if e[0] == "alloc" and e[4] == GATHER]


def test_weights_are_gathered_for_each_pass_and_persistent_ones_never() -> None:
    settings = SETTINGS | {"stage3_prefetch_bucket_size": 0, "stage3_max_reuse_distance": 0}
    events = with_engine(steps(), engine(3, settings=settings))
    layers = [2 * LAYER // 2] * 6
    assert gathers(events) == [*layers, 2 * HEAD, *layers] * 2
    assert peaks(events)["gathered weights"] == 2 * HEAD


def test_a_layer_is_gathered_ahead_and_cut_into_its_weights() -> None:
    """The flat buffer of the prefetch stands beside the weights until they are cut out of it."""
    most = peaks(with_engine(steps(), engine(3)))["gathered weights"]
    assert 2 * 2 * LAYER <= most <= 2 * (2 * HEAD + 2 * LAYER)


@pytest.mark.parametrize(("distance", "times"), [(2 * LAYER, 2), (0, 4)])
def test_a_layer_stays_from_its_recomputation_to_its_backward_pass(
    distance: int, times: int
) -> None:
    """Within the reuse distance; else each of its weights is gathered for each use."""
    first, second = (0, "a"), (0, "b")
    uses = [first, second, second, first]
    events: list[Event] = [("mark", "step", None), ("mark", "batch", None)]
    events += [("use", one) for one in uses] + [("mark", "optimizer", None), ("mark", "end", None)]
    settings = SETTINGS | {"stage3_prefetch_bucket_size": 0, "stage3_max_reuse_distance": distance}
    gathered = gathers(with_engine(events, engine(3, settings=settings)))
    assert gathered == [LAYER] * times


def test_no_prefetch_goes_above_the_live_limit() -> None:
    settings = SETTINGS | {"stage3_max_live_parameters": LAYER, "stage3_max_reuse_distance": 0}
    most = peaks(with_engine(steps(), engine(3, settings=settings)))["gathered weights"]
    assert most <= 2 * (HEAD + LAYER)
