"""With Adam's moments carried over, two phases are one training, bitwise."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import checkpoint_runs
import numpy as np
import phase_runs
import pytest
import ranks

from ropewalk.conf import phases as rules
from ropewalk.conf.errors import ConfigError, DataError
from ropewalk.conf.schema import Config
from ropewalk.launch.config import phases
from ropewalk.launch.config.compose import compose
from ropewalk.train.checkpoint import previous_phase

SMALL = [
    "recipe=demo",
    "data.seq_len=64",
    "train.global_batch_tokens=256",
    "train.micro_batch_size=1",
    "train.optimizer.lr=1e-2",
    "train.precision=fp32",
    "train.metrics.wandb=off",
    "train.schedule.kind=constant",
    "train.schedule.warmup_steps=0",
    "train.steps=3",
    "train.checkpoint.interval_steps=0",
]
BATCH = 4


def two_phases(
    runs: Path, first: int, second: int, carried: bool = True
) -> list[tuple[Config, Path, int]]:
    """Config, folder and first sequence of two phases of three steps at two ZeRO stages."""
    carry = f"carry_optimizer: {str(carried).lower()}"
    setting = f"phases=[{{train.zero_stage: {first}}}, {{train.zero_stage: {second}, {carry}}}]"
    chain = phases.phase_configs(compose([*SMALL, f"runs_dir={runs}", setting]))
    return [(c, Path(c.runs_dir) / c.name, 3 * BATCH * number) for number, c in enumerate(chain)]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Any:
    return checkpoint_runs.make_data(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def one_phase(data: Any, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Six steps in one phase."""
    config = compose([*SMALL, "train.steps=6", "train.zero_stage=1"])
    phase = (config, tmp_path_factory.mktemp("one_phase"), 0)
    return ranks.run(2, phase_runs.run_phases, [phase], data)[0][0]


@pytest.mark.parametrize(
    ("first", "second"),
    [(1, 1), (1, 3), *(pytest.param(*pair, marks=pytest.mark.slow) for pair in ((0, 2), (3, 1)))],
)
def test_two_phases_are_one_training(
    data: Any, one_phase: dict[str, Any], tmp_path: Path, first: int, second: int
) -> None:
    phase_list = two_phases(tmp_path, first, second)
    (phase1, phase2), (_, on_rank1) = ranks.run(2, phase_runs.run_phases, phase_list, data)
    # each file is hashed by one rank
    assert phase2["hashed"] and on_rank1["hashed"]
    assert not {*phase2["hashed"]} & {*on_rank1["hashed"]}
    assert phase1["sequences"] + phase2["sequences"] == one_phase["sequences"]
    assert phase2["message"] == "optimizer: moments and fp32 weights of 1, step 3"
    losses = phase1["losses"] + phase2["losses"]
    if (first, second) == (1, 1):
        assert losses == one_phase["losses"]
        for name, value in one_phase["weights"].items():
            assert np.array_equal(phase2["weights"][name], value), name
    assert losses == pytest.approx(one_phase["losses"], rel=1e-5)


def test_without_carry_optimizer_the_moments_begin_anew(
    data: Any, one_phase: dict[str, Any], tmp_path: Path
) -> None:
    """Here the weights do too, since the test exports no model. The test above can fail."""
    phase_list = two_phases(tmp_path, 1, 1, carried=False)
    _, phase2 = ranks.run(2, phase_runs.run_phases, phase_list, data)[0]
    assert phase2["message"] == ""
    assert phase2["losses"] != pytest.approx(one_phase["losses"][3:], rel=1e-3)
    assert not (tmp_path / "demo" / "phases" / "1" / "train" / "checkpoints").exists()


def test_a_phase_without_a_checkpoint_to_carry_is_an_error(tmp_path: Path) -> None:
    (_, (config, _, _)) = two_phases(tmp_path, 1, 1)
    with pytest.raises(DataError, match="has no undamaged checkpoint; .* to run that phase again"):
        previous_phase.load_optimizer_state(config, None, previous_phase.TrainState())  # type: ignore[arg-type]


def test_carry_optimizer_is_in_the_cache_key_of_both_phases_only(tmp_path: Path) -> None:
    chain = phases.phase_configs(compose([*SMALL, "phases=[{}, {carry_optimizer: true}, {}]"]))
    assert [rules.cache_key(c) for c in chain] == [
        {"hands_on_optimizer": True},
        {"carry_optimizer": True},
        {},
    ]


@pytest.mark.parametrize(
    ("phase_list", "message"),
    [
        (
            "[{carry_optimizer: true}]",
            "phases[0].carry_optimizer is True; nothing is trained before the first phase",
        ),
        (
            "[{}, {carry_optimizer: 3}]",
            "phases[1].carry_optimizer is 3; it must be true or false",
        ),
        (
            "[{train.lora.rank: 4}, {carry_optimizer: true}]",
            "phases[1].carry_optimizer is True; with train.lora each phase trains an adapter of "
            "its own",
        ),
    ],
)
def test_carry_optimizer_is_refused_where_it_has_no_meaning(phase_list: str, message: str) -> None:
    with pytest.raises(ConfigError) as error:
        compose([*SMALL, f"phases={phase_list}"])
    assert str(error.value).startswith(message)


@pytest.mark.parametrize(("saved_step", "writes"), [(3, []), (2, ["save", "finish"])])
def test_the_last_step_is_saved_once(
    monkeypatch: pytest.MonkeyPatch, saved_step: int, writes: list[str]
) -> None:
    calls: list[str] = []
    checkpoints: Any = SimpleNamespace(
        last_saved_step=saved_step,
        save=lambda _: calls.append("save"),
        finish=lambda: calls.append("finish"),
    )
    state: Any = SimpleNamespace(step=3)
    monkeypatch.setattr(rules, "passes_optimizer_on", lambda _: True)
    config: Any = None
    previous_phase.save_for_next_phase(config, checkpoints, state)
    assert calls == writes
