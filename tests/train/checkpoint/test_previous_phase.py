"""Adam's moments carried over the border of two phases: then two phases are one training, to the bit."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import checkpoint_runs
import numpy as np
import phase_runs
import pytest
import ranks

from ropewalk.conf import phases as rules
from ropewalk.conf.errors import ConfigError, RopewalkError
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
]
SMALL += [
    "train.precision=fp32",
    "train.metrics.wandb=off",
    "train.schedule.kind=constant",
    "train.schedule.warmup_steps=0",
    "train.steps=3",
]
SMALL += ["train.checkpoint.interval_steps=0"]
BATCH = 4


def parts(
    runs: Path, first: int, second: int, carried: bool = True
) -> list[tuple[Config, Path, int]]:
    """Two phases of three steps at two ZeRO stages."""
    listed = f"phases=[{{train.zero_stage: {first}}}, {{train.zero_stage: {second}, carry_optimizer: {str(carried).lower()}}}]"
    chain = phases.phase_configs(compose([*SMALL, f"runs_dir={runs}", listed]))
    return [(c, Path(c.runs_dir) / c.name, 3 * BATCH * number) for number, c in enumerate(chain)]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Any:
    return checkpoint_runs.make_data(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def whole(data: Any, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Six steps without a border."""
    config = replace(compose([*SMALL, "train.steps=6", "train.zero_stage=1"]))
    return ranks.run(
        2, phase_runs.run_phases, [(config, tmp_path_factory.mktemp("whole"), 0)], data
    )[0][0]


@pytest.mark.parametrize(
    ("first", "second"),
    [(1, 1), (1, 3), *(pytest.param(*pair, marks=pytest.mark.slow) for pair in ((0, 2), (3, 1)))],
)
def test_two_phases_are_one_training(
    data: Any, whole: Any, tmp_path: Path, first: int, second: int
) -> None:
    (one, two), (_, other) = ranks.run(
        2, phase_runs.run_phases, parts(tmp_path, first, second), data
    )
    # each file is hashed by one rank
    assert two["hashed"] and other["hashed"] and not {*two["hashed"]} & {*other["hashed"]}
    assert one["sequences"] + two["sequences"] == whole["sequences"]
    assert two["message"] == "optimizer: moments and fp32 weights of 1, step 3"
    if (first, second) == (1, 1):
        assert one["losses"] + two["losses"] == whole["losses"]
        assert all(
            np.array_equal(two["weights"][name], value) for name, value in whole["weights"].items()
        )
    assert one["losses"] + two["losses"] == pytest.approx(whole["losses"], rel=1e-5)


def test_without_it_the_moments_begin_anew(data: Any, whole: Any, tmp_path: Path) -> None:
    """And the weights here too, for this engine's model is the first phase's: the comparison above can fail."""
    _, two = ranks.run(2, phase_runs.run_phases, parts(tmp_path, 1, 1, carried=False), data)[0]
    assert two["message"] == "" and two["losses"] != pytest.approx(whole["losses"][3:], rel=1e-3)
    assert not (tmp_path / "demo" / "phases" / "1" / "train" / "checkpoints").exists()


def test_a_phase_without_a_checkpoint_to_carry_is_told(tmp_path: Path) -> None:
    (_, (config, _, _)) = parts(tmp_path, 1, 1)
    with pytest.raises(RopewalkError, match="1 left no checkpoint; run that phase again"):
        previous_phase.load_optimizer_state(config, None, previous_phase.TrainState())  # type: ignore[arg-type]


def test_it_is_part_of_what_both_phases_are_made_of_and_of_no_other(tmp_path: Path) -> None:
    chain = phases.phase_configs(compose([*SMALL, "phases=[{}, {carry_optimizer: true}, {}]"]))
    assert [rules.cache_key(c) for c in chain] == [
        {"hands_on_optimizer": True},
        {"carry_optimizer": True},
        {},
    ]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (
            ["phases=[{carry_optimizer: true}]"],
            "phases[0].carry_optimizer is True; nothing is trained before the first phase",
        ),
        (
            ["phases=[{}, {carry_optimizer: 3}]"],
            "phases[1].carry_optimizer is 3; it must be true or false",
        ),
        (
            ["phases=[{train.lora.rank: 4}, {carry_optimizer: true}]"],
            "phases[1].carry_optimizer is True; with train.lora each phase trains an adapter of its own",
        ),
    ],
)
def test_where_it_means_nothing_it_is_refused(words: list[str], said: str) -> None:
    with pytest.raises(ConfigError) as told:
        compose([*SMALL, *words])
    assert str(told.value).startswith(said)
