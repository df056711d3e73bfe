"""SIGKILL of a rank, SIGTERM, a full disk, a rank that hangs: a restart ends in the bits of the run that nothing befell."""

import random
import re
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import checkpoint_runs
import numpy as np
import pytest
import ranks
from checkpoint_runs import RunSpec

from ropewalk.conf.schema import Config
from ropewalk.launch.config.compose import compose
from ropewalk.train.loop.watchdog import stalled_ranks

MESHES = [(stage, sp) for sp in (1, 2) for stage in (1, 2, 3)]
# what of a rank's life; rank 0 alone publishes
MOMENTS = [
    ("forward", 12),
    ("backward", 12),
    ("between", 6),
    ("copying", 4),
    ("writing", 4),
    ("listing", 2),
    ("publishing", 2),
    ("completing", 2),
    ("renaming", 6),
    ("renamed", 2),
    ("pruning", 2),
]
RANK_0 = ("publishing", "completing", "renaming", "renamed", "pruning")
# what is heard of it first: the death, or the other rank's lost connection
GONE = r"died without a word|Connection closed|Connection reset"
SOON_S = 30.0  # others are gone; a loaded machine takes some of it


def settings(*words: str) -> Config:
    small = [
        "data.seq_len=64",
        "train.global_batch_tokens=256",
        "train.micro_batch_size=1",
        "train.metrics.wandb=off",
    ]
    steps = [
        "train.steps=6",
        "train.checkpoint.interval_steps=2",
        "train.optimizer.lr=1e-2",
        "train.schedule.warmup_steps=2",
    ]
    return compose(["recipe=demo", *small, *steps, *words])


def same(a: dict[str, Any], b: dict[str, Any]) -> bool:
    return a.keys() == b.keys() and all(np.array_equal(a[k], b[k]) for k in a)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Any:
    return checkpoint_runs.make_data(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def undisturbed(data: Any, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Of a mesh, once: (settings, what rank 0 returned)."""
    known: dict[Any, Any] = {}

    def of(stage: int, sp_size: int, precision: str = "bf16") -> tuple[Config, dict[str, Any]]:
        key = (stage, sp_size, precision)
        if key not in known:
            words = (
                f"train.zero_stage={stage}",
                f"train.sp_size={sp_size}",
                f"train.precision={precision}",
            )
            config = settings(*words)
            known[key] = (
                config,
                ranks.run(
                    2,
                    checkpoint_runs.train,
                    RunSpec(tmp_path_factory.mktemp("whole"), config, data),
                )[0],
            )
        return known[key]

    return of


def assert_killed_and_resumed(
    folder: Path,
    data: Any,
    undisturbed: Any,
    stage: int,
    sp_size: int,
    death: tuple[int, str, int],
    precision: str = "bf16",
) -> int:
    """Returns the step that the restart began at."""
    config, wanted = undisturbed(stage, sp_size, precision)
    work = RunSpec(folder, config, data)
    with pytest.raises(AssertionError, match=GONE):
        ranks.run(2, checkpoint_runs.train, replace(work, death=death))
    found = ranks.run(2, checkpoint_runs.train, work)[0]
    assert found["losses"] == wanted["losses"] and found["sequences"] == wanted["sequences"]
    assert same(found["weights"], wanted["weights"])
    return int(found["first_step"])


@pytest.mark.parametrize(
    ("stage", "sp_size", "death"),
    [
        (1, 1, (0, "writing", 3)),
        (3, 2, (0, "renaming", 5)),
        pytest.param(2, 2, (1, "forward", 12), marks=pytest.mark.slow),
        pytest.param(3, 1, (1, "listing", 2), marks=pytest.mark.slow),
    ],
)
def test_a_killed_run_ends_as_the_undisturbed_one(
    tmp_path: Path, data: Any, undisturbed: Any, stage: int, sp_size: int, death: Any
) -> None:
    assert assert_killed_and_resumed(tmp_path, data, undisturbed, stage, sp_size, death) in (
        0,
        2,
        4,
    )


def moments(seed: int, count: int) -> list[tuple[int, int, tuple[int, str, int]]]:
    """Every moment at least once, every mesh at least thrice; which rank, and at which of these moments, by chance."""
    chance, found = random.Random(seed), []
    for number in range(count):
        name, most = MOMENTS[number % len(MOMENTS)]
        rank = 0 if name in RANK_0 else chance.randrange(2)
        most = (
            most // 2 if name == "writing" and rank else most
        )  # rank 1 writes fewer files at stages 1 and 2
        found.append((*MESHES[number % len(MESHES)], (rank, name, chance.randint(1, most))))
    return found


@pytest.mark.slow
@pytest.mark.parametrize(("stage", "sp_size", "death"), moments(5, 20))
def test_any_moment(
    tmp_path: Path, data: Any, undisturbed: Any, stage: int, sp_size: int, death: Any
) -> None:
    assert_killed_and_resumed(tmp_path, data, undisturbed, stage, sp_size, death)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(4))
def test_any_time(tmp_path: Path, data: Any, undisturbed: Any, seed: int) -> None:
    """Wherever the clock finds it."""
    chance = random.Random(seed)
    death = (chance.randrange(2), "time", chance.randint(300, 2500))
    stage, sp_size = MESHES[seed % len(MESHES)]
    config, wanted = undisturbed(stage, sp_size)
    work = RunSpec(tmp_path, config, data)
    try:
        ranks.run(2, checkpoint_runs.train, replace(work, death=death))
    except AssertionError as ended:
        assert re.search(GONE, str(ended))
    found = ranks.run(2, checkpoint_runs.train, work)[0]
    assert found["losses"] == wanted["losses"] and same(found["weights"], wanted["weights"])


@pytest.mark.parametrize(("stage", "sp_size"), [(2, 1), pytest.param(3, 2, marks=pytest.mark.slow)])
def test_a_run_that_is_asked_to_stop_saves_and_ends_as_the_undisturbed_one(
    tmp_path: Path, data: Any, undisturbed: Any, stage: int, sp_size: int
) -> None:
    """SIGTERM to one rank, in the middle of its third step; the checkpoint is of that step, not of a multiple of two."""
    config, wanted = undisturbed(stage, sp_size)
    work = RunSpec(tmp_path, config, data)
    assert ranks.run(
        2, checkpoint_runs.exit_code, replace(work, sabotage=checkpoint_runs.terminate)
    ) == [75, 75]
    found = ranks.run(2, checkpoint_runs.train, work)[0]
    assert found["first_step"] == 3
    assert found["losses"] == wanted["losses"] and same(found["weights"], wanted["weights"])


def test_a_full_disk_leaves_the_last_good_one_and_the_run_goes_on(
    tmp_path: Path, data: Any, undisturbed: Any
) -> None:
    """The second checkpoint of rank 1 meets a device that is full (/dev/full, a real ENOSPC)."""
    config, wanted = undisturbed(2, 1)
    work = RunSpec(tmp_path, config, data)
    found = ranks.run(2, checkpoint_runs.train, replace(work, sabotage=checkpoint_runs.fill_disk))
    assert [rank["failed_saves"] for rank in found] == [1, 1]
    assert found[0]["losses"] == wanted["losses"]
    assert sorted(p.name for p in (tmp_path / "checkpoints").iterdir()) == [
        "latest",
        "step-00000002",
    ]
    again = ranks.run(2, checkpoint_runs.train, work)[0]
    assert (
        again["first_step"] == 2
        and again["losses"] == wanted["losses"]
        and same(again["weights"], wanted["weights"])
    )


def test_a_stop_whose_checkpoint_finds_no_room_is_an_error(
    tmp_path: Path, data: Any, undisturbed: Any
) -> None:
    work = RunSpec(
        tmp_path, undisturbed(2, 1)[0], data, sabotage=checkpoint_runs.fill_disk_and_terminate
    )
    with pytest.raises(
        AssertionError, match=r"RopewalkError: the last checkpoint could not be written"
    ):
        ranks.run(2, checkpoint_runs.train, work)


def test_a_rank_that_hangs_is_named_and_the_run_ends(tmp_path: Path, data: Any) -> None:
    """Rank 1 is stopped (SIGSTOP) in the forward pass of its third step; rank 0 waits for it in a collective."""
    config = settings("train.zero_stage=2", "train.launcher.hang_timeout_s=3")
    work = RunSpec(tmp_path, config, data, sabotage=checkpoint_runs.freeze)
    started = time.monotonic()
    with pytest.raises(AssertionError, match="died without a word"):
        ranks.run(2, checkpoint_runs.train_with_stderr, work)
    assert time.monotonic() - started < 3 + 2 * SOON_S
    said = (tmp_path / "stderr-0").read_text()
    # it wrote its last word up to a look before it was stopped
    named = r"rank 1 holds the others up for 3 s \(train.launcher.hang_timeout_s\): it was last seen (at step [123], .*|before its first step), and its process does"
    assert re.search(named, said), said
    assert "rank 0 holds" not in said and "rank 0 is here" in said


def test_a_long_validation_that_gets_on_is_no_hung_rank(tmp_path: Path, data: Any) -> None:
    """Twice as long as train.launcher.hang_timeout_s, between two marks of the step's clock."""
    config, options = (
        settings("train.launcher.hang_timeout_s=2"),
        {"validation": checkpoint_runs.SlowValidation(8)},
    )
    assert (
        ranks.run(1, checkpoint_runs.train, RunSpec(tmp_path, config, data, options=options))[0][
            "steps"
        ][-1]
        == 6
    )


def test_of_ranks_that_answer_the_one_furthest_behind_is_named() -> None:
    def said(step: int, done: int, looks: int) -> dict[str, Any]:
        # rank 0 has more files of a checkpoint to write than the others, and is not ahead of them for that
        return {
            "step": step,
            "done": done,
            "phase": "forward" if done > 1 else "",
            "looks": looks,
            "moved": 9 - looks,
        }

    before = {0: said(4, 3, 7), 1: said(4, 1, 9), 2: None}
    now = {0: said(4, 3, 8), 1: said(4, 1, 10), 2: said(4, 3, 1)}
    assert stalled_ranks(before, now) == {1: "it is at step 5, at its begin"}
    now[0] = before[0]
    assert stalled_ranks(before, now) == {
        0: "it was last seen at step 5, after its forward, and its process does not answer"
    }
    now[0], now[2] = said(4, 3, 9), None
    assert stalled_ranks(before, now) == {
        2: "it was last seen before its first step, and its process does not answer"
    }


def test_a_rank_that_dies_ends_the_others(tmp_path: Path, data: Any) -> None:
    """Not killed by anyone: rank 0 finds the connection closed."""
    work = RunSpec(tmp_path, settings("train.zero_stage=2"), data, death=(1, "forward", 9))
    codes, seconds = ranks.run_to_exit(2, checkpoint_runs.train, work)
    assert codes[1] == -9 and codes[0] not in (0, None)
    assert seconds < SOON_S
