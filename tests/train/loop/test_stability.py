"""Losses that are no number and losses that leap: what is judged, and that nothing of such a batch enters weights or moments."""

import math
from pathlib import Path
from typing import Any

import checkpoint_runs
import numpy as np
import pytest
import ranks
from checkpoint_runs import RunSpec

from ropewalk.conf.errors import RopewalkError
from ropewalk.conf.schema import Config
from ropewalk.conf.train import StabilityConfig
from ropewalk.launch.config.compose import compose
from ropewalk.train.loop.stability import StabilityPolicy, decide, is_spike

# -- pure --------------------------------------------------------------------------------------------------------------


def test_a_leap_is_counted_in_deviations_above_the_median() -> None:
    before = [1.0, 1.1, 0.9, 1.05, 0.95]
    # median 1, median deviation 0.05
    limit = 1 + 3 * 1.4826 * 0.05
    assert is_spike(limit + 1e-6, before, 3, 4) and not is_spike(limit - 1e-6, before, 3, 4)
    assert not is_spike(0.0, before, 3, 4)
    assert not is_spike(100.0, before, 3, 6)


def test_steps_that_do_not_differ_make_no_leap_of_a_rounding() -> None:
    assert not is_spike(1.0 + 1e-6, [1.0] * 10, 5, 4)
    assert is_spike(1.06, [1.0] * 10, 5, 4)


@pytest.mark.parametrize(
    ("loss", "norm"), [(math.nan, 1.0), (math.inf, 1.0), (1.0, math.inf), (1.0, math.nan)]
)
@pytest.mark.parametrize("action", ["stop", "skip", "rollback"])
def test_what_is_no_number_is_judged_by_on_nan(loss: float, norm: float, action: str) -> None:
    found = decide(loss, norm, [], [], StabilityConfig(on_nan=action))
    assert found.action == action and "must be finite" in found.reason


def test_leaps_are_judged_by_on_spike_for_the_loss_and_the_norm() -> None:
    rule, before = StabilityConfig(on_spike="skip", spike_window_steps=16), [1.0, 1.1, 0.9, 1.0]
    assert decide(1.0, 1.0, before, before, rule).action == "apply"
    assert (
        decide(9.0, 1.0, before, before, rule).reason
        == "loss is 9; the 4 before have a median of 1"
    )
    assert (
        decide(1.0, 9.0, before, before, rule).reason
        == "gradient norm is 9; the 4 before have a median of 1"
    )
    assert (
        decide(9.0, 9.0, before, before, StabilityConfig(spike_window_steps=16)).action == "apply"
    )


def test_what_was_left_out_is_not_what_a_leap_is_counted_from() -> None:
    state: dict[str, Any] = {}
    faults = StabilityPolicy(StabilityConfig(on_spike="skip", spike_window_steps=4), state)
    assert [
        faults.accept_step(step, loss, 1.0) for step, loss in enumerate([1.0, 50.0, 50.0, 1.0])
    ] == [
        True,
        False,
        False,
        True,
    ]
    assert state["losses"] == [1.0, 1.0] and sorted(state["left_out"]) == ["1", "2"]


def test_too_many_stop() -> None:
    faults = StabilityPolicy(StabilityConfig(on_nan="skip", max_skips=1), {})
    faults.accept_step(0, math.nan, 1.0)
    faults.refuse_to_continue(0)
    faults.accept_step(1, math.nan, 1.0)
    with pytest.raises(
        RopewalkError,
        match=r"2 batches are left out, the last at step 2 .*train.stability.max_skips is 1",
    ):
        faults.refuse_to_continue(1)


# -- by ranks ----------------------------------------------------------------------------------------------------------


def settings(*words: str) -> Config:
    small = [
        "data.seq_len=64",
        "train.global_batch_tokens=128",
        "train.precision=fp32",
        "train.metrics.wandb=off",
        "train.micro_batch_size=1",
    ]
    steps = [
        "train.steps=5",
        "train.checkpoint.interval_steps=2",
        "train.optimizer.lr=1e-2",
        "train.schedule.warmup_steps=0",
    ]
    return compose(["recipe=demo", *small, *steps, *words])


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Any:
    return checkpoint_runs.make_data(tmp_path_factory.mktemp("data"))


def spoiled(
    folder: Path, data: Any, times: float, *words: str, bad: int | None = None
) -> list[dict[str, Any]]:
    """Two ranks; the first sequence that step 4 reads is bad."""
    from ropewalk.data.loading.loader import global_batch

    config, count = settings(*words), len(data.sequences())
    assert count >= 10  # so that five steps of two read none twice
    first = global_batch(3 * 2, 2, seed=config.seed, count=count)[0].number
    folder.mkdir()
    options = {"bad": first if bad is None else bad, "times": times}
    work = RunSpec(folder, config, data, sabotage=checkpoint_runs.spoil_batch, options=options)
    return ranks.run(2, checkpoint_runs.train_spoiled, work)


def same(a: dict[str, Any], b: dict[str, Any]) -> bool:
    return a.keys() == b.keys() and all(np.array_equal(a[k], b[k]) for k in a)


@pytest.mark.parametrize(
    "stage", [pytest.param(n, marks=pytest.mark.slow) if n in (1, 2) else n for n in range(4)]
)
def test_a_batch_that_is_skipped_changes_no_weight_and_no_moment(
    tmp_path: Path, data: Any, stage: int
) -> None:
    found = spoiled(
        tmp_path / "skip",
        data,
        math.nan,
        f"train.zero_stage={stage}",
        "train.stability.on_nan=skip",
    )[0]
    seen = found["states"]  # before the first step, and after each
    changed = [
        any(not same(a[key], b[key]) for key in b if key in a)
        for a, b in zip(seen, seen[1:], strict=False)
    ]
    assert changed == [True, True, True, False, True]
    assert all(np.isfinite(w).all() for w in found["weights"].values())
    assert found["steps"] == [1, 2, 3, 5] and [line["step"] for line in found["events"]] == [4]
    assert found["events"][0]["event"] == "skip" and found["events"][0]["loss"] is None
    back = spoiled(
        tmp_path / "back",
        data,
        math.nan,
        f"train.zero_stage={stage}",
        "train.stability.on_nan=rollback",
    )[0]
    # the other way to the same end: from the checkpoint of step 2, without this batch
    assert same(back["weights"], found["weights"]) and back["losses"] == found["losses"]
    assert [(line["step"], line["event"]) for line in back["events"]] == [(4, "rollback")]


def test_a_leap_is_skipped(tmp_path: Path, data: Any) -> None:
    words = ["train.stability.on_spike=skip", "train.stability.spike_window_steps=8"]
    found = spoiled(tmp_path / "run", data, 100.0, *words)[0]
    assert found["steps"] == [1, 2, 3, 5]
    assert found["events"][0]["why"].startswith("loss is ") and found["events"][0]["loss"] > 100


def test_the_last_validation_comes_though_the_last_batch_is_left_out(
    tmp_path: Path, data: Any
) -> None:
    from ropewalk.data.loading.loader import global_batch

    config = settings("train.stability.on_nan=skip")
    last = global_batch(4 * 2, 2, seed=config.seed, count=len(data.sequences()))[0].number
    options = {"bad": last, "times": math.nan, "validation": checkpoint_runs.SlowValidation(1)}
    work = RunSpec(tmp_path, config, data, sabotage=checkpoint_runs.spoil_batch, options=options)
    (line,) = ranks.run(2, checkpoint_runs.train, work)[0]["events"]
    assert line["step"] == 5 and line["event"] == "skip" and line["validation"] == {"nll": 1.0}


def test_by_default_the_run_stops_before_the_step(tmp_path: Path, data: Any) -> None:
    with pytest.raises(
        AssertionError,
        match=r"RopewalkError: loss is nan; it must be finite, at step 4, which was not taken",
    ):
        spoiled(tmp_path / "run", data, math.nan)


@pytest.mark.parametrize(
    "stage", [pytest.param(1, marks=pytest.mark.slow), 2, pytest.param(3, marks=pytest.mark.slow)]
)
def test_nothing_of_a_skipped_batch_is_left_where_the_optimizer_is_offloaded(
    tmp_path: Path, data: Any, stage: int
) -> None:
    """In bf16, whose gradients are kept in fp32: the same run where the step is passed over from the start, by a rollback."""
    words = [
        "train.precision=bf16",
        f"train.zero_stage={stage}",
        "train.memory.offload_optimizer=true",
    ]
    found = spoiled(tmp_path / "skip", data, math.nan, *words, "train.stability.on_nan=skip")[0]
    back = spoiled(tmp_path / "back", data, math.nan, *words, "train.stability.on_nan=rollback")[0]
    assert found["steps"] == [1, 2, 3, 5] and all(math.isfinite(loss) for loss in found["losses"])
    assert all(np.isfinite(w).all() for w in found["weights"].values())
    assert same(back["weights"], found["weights"]) and back["losses"] == found["losses"]


@pytest.mark.slow
def test_a_rollback_with_no_checkpoint_yet_goes_to_the_start(tmp_path: Path, data: Any) -> None:
    words = ["train.checkpoint.interval_steps=0", "train.stability.on_nan=rollback"]
    found = spoiled(tmp_path / "run", data, math.nan, *words)[0]
    wanted = spoiled(tmp_path / "other", data, math.nan, "train.stability.on_nan=skip")[0]
    assert same(found["weights"], wanted["weights"]) and found["losses"] == wanted["losses"]
