"""NaN losses and loss spikes: the policy's decisions, and that a skipped batch changes nothing."""

import math
from pathlib import Path
from typing import Any

import checkpoint_runs
import numpy as np
import pytest
import ranks
import run_faults
from checkpoint_runs import RunSpec, equal_arrays

from ropewalk.conf.errors import RopewalkError
from ropewalk.conf.schema import Config
from ropewalk.conf.train import StabilityConfig
from ropewalk.data.loading.loader import global_batch
from ropewalk.train.loop.stability import StabilityPolicy, decide, is_spike

# -- the policy ------------------------------------------------------------------------------------


def test_a_spike_is_counted_in_deviations_above_the_median() -> None:
    history = [1.0, 1.1, 0.9, 1.05, 0.95]
    # median 1, median deviation 0.05
    limit = 1 + 3 * 1.4826 * 0.05
    assert is_spike(limit + 1e-6, history, 3, 4) and not is_spike(limit - 1e-6, history, 3, 4)
    assert not is_spike(0.0, history, 3, 4)
    assert not is_spike(100.0, history, 3, 6)


def test_a_rounding_is_no_spike_among_equal_steps() -> None:
    assert not is_spike(1.0 + 1e-6, [1.0] * 10, 5, 4)
    assert is_spike(1.06, [1.0] * 10, 5, 4)


@pytest.mark.parametrize(
    ("loss", "norm"), [(math.nan, 1.0), (math.inf, 1.0), (1.0, math.inf), (1.0, math.nan)]
)
@pytest.mark.parametrize("action", ["stop", "skip", "rollback"])
def test_on_nan_decides_for_values_that_are_not_finite(
    loss: float, norm: float, action: str
) -> None:
    decision = decide(loss, norm, [], [], StabilityConfig(on_nan=action))
    assert decision.action == action and "must be finite" in decision.reason


def test_on_spike_decides_for_spikes_of_loss_and_norm() -> None:
    rule, history = StabilityConfig(on_spike="skip", spike_window_steps=16), [1.0, 1.1, 0.9, 1.0]
    reason = "is 9; the 4 before have a median of 1"
    assert decide(1.0, 1.0, history, history, rule).action == "apply"
    assert decide(9.0, 1.0, history, history, rule).reason == f"loss {reason}"
    assert decide(1.0, 9.0, history, history, rule).reason == f"gradient norm {reason}"
    ignoring = StabilityConfig(spike_window_steps=16)
    assert decide(9.0, 9.0, history, history, ignoring).action == "apply"


def test_skipped_steps_are_not_in_the_history_of_spikes() -> None:
    state: dict[str, Any] = {}
    policy = StabilityPolicy(StabilityConfig(on_spike="skip", spike_window_steps=4), state)
    losses = [1.0, 50.0, 50.0, 1.0]
    accepted = [policy.accept_step(step, loss, 1.0) for step, loss in enumerate(losses)]
    assert accepted == [True, False, False, True]
    assert state["losses"] == [1.0, 1.0] and sorted(state["left_out"]) == ["1", "2"]


def test_more_than_max_skips_is_an_error() -> None:
    policy = StabilityPolicy(StabilityConfig(on_nan="skip", max_skips=1), {})
    policy.accept_step(0, math.nan, 1.0)
    policy.refuse_to_continue(0)
    policy.accept_step(1, math.nan, 1.0)
    message = "2 batches were skipped, the last at step 2 .*train.stability.max_skips is 1"
    with pytest.raises(RopewalkError, match=message):
        policy.refuse_to_continue(1)


# -- runs of two ranks -----------------------------------------------------------------------------


def settings(*overrides: str) -> Config:
    sizes = ["train.global_batch_tokens=128", "train.precision=fp32", "train.steps=5"]
    return checkpoint_runs.settings(*sizes, "train.schedule.warmup_steps=0", *overrides)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Any:
    return checkpoint_runs.make_data(tmp_path_factory.mktemp("data"))


def first_sequence(data: Any, config: Config, step: int) -> int:
    """The number of the first sequence that a step (from 1) reads."""
    count = len(data.sequences())
    assert count >= 10  # so that five steps of two read no sequence twice
    return global_batch((step - 1) * 2, 2, seed=config.seed, count=count)[0].number


def run_spoiled(folder: Path, data: Any, times: float, *overrides: str) -> dict[str, Any]:
    """Rank 0's result; the loss of the first sequence of step 4 is multiplied by `times`."""
    config = settings(*overrides)
    folder.mkdir()
    options = {"bad": first_sequence(data, config, step=4), "times": times}
    spec = RunSpec(folder, config, data, sabotage=run_faults.spoil_batch, options=options)
    return ranks.run(2, run_faults.train_spoiled, spec)[0]  # type: ignore[no-any-return]


def skip_and_roll_back(
    tmp_path: Path, data: Any, *overrides: str
) -> tuple[dict[str, Any], dict[str, Any]]:
    """The run that skips the bad batch, and the run that rolls back and then skips it.

    They must end alike, with finite weights.
    """
    skipped, rolled_back = (
        run_spoiled(
            tmp_path / action, data, math.nan, *overrides, f"train.stability.on_nan={action}"
        )
        for action in ("skip", "rollback")
    )
    assert skipped["steps"] == [1, 2, 3, 5]
    assert all(np.isfinite(weight).all() for weight in skipped["weights"].values())
    assert equal_arrays(rolled_back["weights"], skipped["weights"])
    assert rolled_back["losses"] == skipped["losses"]
    return skipped, rolled_back


@pytest.mark.parametrize(
    "stage", [pytest.param(n, marks=pytest.mark.slow) if n in (1, 2) else n for n in range(4)]
)
def test_a_skipped_batch_changes_no_weight_and_no_moment(
    tmp_path: Path, data: Any, stage: int
) -> None:
    skipped, rolled_back = skip_and_roll_back(tmp_path, data, f"train.zero_stage={stage}")
    states = skipped["states"]  # before the first step, and after each step
    changed = [
        any(not equal_arrays(earlier[key], later[key]) for key in later if key in earlier)
        for earlier, later in zip(states, states[1:], strict=False)
    ]
    assert changed == [True, True, True, False, True]
    (event,) = skipped["events"]
    assert (event["step"], event["event"], event["loss"]) == (4, "skip", None)
    (event,) = rolled_back["events"]
    assert (event["step"], event["event"]) == (4, "rollback")


def test_a_spike_is_skipped(tmp_path: Path, data: Any) -> None:
    overrides = ["train.stability.on_spike=skip", "train.stability.spike_window_steps=8"]
    result = run_spoiled(tmp_path / "run", data, 100.0, *overrides)
    assert result["steps"] == [1, 2, 3, 5]
    (event,) = result["events"]
    assert event["why"].startswith("loss is ") and event["loss"] > 100


def test_the_last_validation_runs_even_if_the_last_batch_is_skipped(
    tmp_path: Path, data: Any
) -> None:
    config = settings("train.stability.on_nan=skip")
    options = {
        "bad": first_sequence(data, config, step=5),
        "times": math.nan,
        "validation": checkpoint_runs.SlowValidation(1),
    }
    spec = RunSpec(tmp_path, config, data, sabotage=run_faults.spoil_batch, options=options)
    (line,) = ranks.run(2, checkpoint_runs.train, spec)[0]["events"]
    assert line["step"] == 5 and line["event"] == "skip" and line["validation"] == {"nll": 1.0}


def test_by_default_the_run_stops_before_the_step(tmp_path: Path, data: Any) -> None:
    message = "RopewalkError: loss is nan; it must be finite, at step 4, which was not applied"
    with pytest.raises(AssertionError, match=message):
        run_spoiled(tmp_path / "run", data, math.nan)


@pytest.mark.parametrize(
    "stage", [pytest.param(1, marks=pytest.mark.slow), 2, pytest.param(3, marks=pytest.mark.slow)]
)
def test_an_offloaded_optimizer_keeps_nothing_of_a_skipped_batch(
    tmp_path: Path, data: Any, stage: int
) -> None:
    """In bf16, whose gradients are summed in fp32."""
    overrides = ["train.precision=bf16", "train.memory.offload_optimizer=true"]
    skipped, _ = skip_and_roll_back(tmp_path, data, f"train.zero_stage={stage}", *overrides)
    assert all(math.isfinite(loss) for loss in skipped["losses"])


@pytest.mark.slow
def test_a_rollback_before_the_first_checkpoint_goes_to_the_start(
    tmp_path: Path, data: Any
) -> None:
    skip_and_roll_back(tmp_path, data, "train.checkpoint.interval_steps=0")
