"""Killed ranks, SIGTERM, full disks, hung ranks: a restart ends as the undisturbed run, bitwise."""

import random
import re
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import checkpoint_runs
import pytest
import ranks
import run_faults
from checkpoint_runs import RunSpec, SlowValidation, equal_arrays, settings

from ropewalk.conf.schema import Config
from ropewalk.train.loop.progress import Beat, Heartbeat, stalled_ranks

MESHES = [(stage, sp) for sp in (1, 2) for stage in (1, 2, 3)]
# the kinds of moments, and how many of each a run has
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
# rank 0 alone publishes
RANK_0 = ("publishing", "completing", "renaming", "renamed", "pruning")
# the first message may be the killed rank's end, or the other rank's lost connection
GONE = r"died without a traceback|Connection closed|Connection reset"
SOON_S = 30.0  # generous, for a loaded machine

Undisturbed = Callable[..., tuple[Config, dict[str, Any]]]
Death = tuple[int, str, int]  # rank, moment, its number


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Any:
    return checkpoint_runs.make_data(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def undisturbed(data: Any, tmp_path_factory: pytest.TempPathFactory) -> Undisturbed:
    """Settings and result of the undisturbed run on a mesh, which runs once."""
    runs: dict[tuple[int, int, str], tuple[Config, dict[str, Any]]] = {}

    def run(stage: int, sp_size: int, device: str = "cpu") -> tuple[Config, dict[str, Any]]:
        if (stage, sp_size, device) not in runs:
            layout = [f"train.zero_stage={stage}", f"train.sp_size={sp_size}"]
            config = settings(*layout, f"train.deterministic={device == 'cuda'}")
            spec = RunSpec(tmp_path_factory.mktemp("undisturbed"), config, data)
            result = ranks.run(2, checkpoint_runs.train, spec, device=device)[0]
            runs[stage, sp_size, device] = config, result
        return runs[stage, sp_size, device]

    return run


def assert_same_end(result: dict[str, Any], expected: dict[str, Any]) -> None:
    assert result["losses"] == expected["losses"]
    assert result["sequences"] == expected["sequences"]
    assert equal_arrays(result["weights"], expected["weights"])


def kill_and_resume(
    folder: Path,
    data: Any,
    undisturbed: Undisturbed,
    stage: int,
    sp_size: int,
    death: Death,
    device: str = "cpu",
) -> int:
    """Compare the resumed run with the undisturbed one; returns the step that it began at."""
    config, expected = undisturbed(stage, sp_size, device)
    spec = RunSpec(folder, config, data)
    killed = replace(spec, sabotage=partial(run_faults.kill, *death))
    with pytest.raises(AssertionError, match=GONE):
        ranks.run(2, checkpoint_runs.train, killed, device=device)
    result = ranks.run(2, checkpoint_runs.train, spec, device=device)[0]
    assert_same_end(result, expected)
    return int(result["first_step"])


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
    tmp_path: Path, data: Any, undisturbed: Undisturbed, stage: int, sp_size: int, death: Death
) -> None:
    first_step = kill_and_resume(tmp_path, data, undisturbed, stage, sp_size, death)
    assert first_step in (0, 2, 4)


@pytest.mark.gpu(count=2)
@pytest.mark.parametrize(
    ("stage", "sp_size", "death"),
    [(2, 1, (1, "forward", 9)), (3, 2, (0, "renaming", 5)), (3, 1, (1, "backward", 11))],
)
def test_a_run_killed_on_gpus_ends_as_the_undisturbed_one(
    tmp_path: Path, data: Any, undisturbed: Undisturbed, stage: int, sp_size: int, death: Death
) -> None:
    kill_and_resume(tmp_path, data, undisturbed, stage, sp_size, death, device="cuda")


def random_deaths(seed: int, count: int) -> list[tuple[int, int, Death]]:
    """Every moment at least once, every mesh at least three times; rank and number are random."""
    rng, deaths = random.Random(seed), []
    for number in range(count):
        moment, moments = MOMENTS[number % len(MOMENTS)]
        rank = 0 if moment in RANK_0 else rng.randrange(2)
        if moment == "writing" and rank:
            moments //= 2  # rank 1 writes fewer files at stages 1 and 2
        deaths.append((*MESHES[number % len(MESHES)], (rank, moment, rng.randint(1, moments))))
    return deaths


@pytest.mark.slow
@pytest.mark.parametrize(("stage", "sp_size", "death"), random_deaths(5, 20))
def test_a_run_killed_at_any_moment_ends_as_the_undisturbed_one(
    tmp_path: Path, data: Any, undisturbed: Undisturbed, stage: int, sp_size: int, death: Death
) -> None:
    kill_and_resume(tmp_path, data, undisturbed, stage, sp_size, death)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(4))
def test_a_run_killed_at_any_time_ends_as_the_undisturbed_one(
    tmp_path: Path, data: Any, undisturbed: Undisturbed, seed: int
) -> None:
    rng = random.Random(seed)
    death = (rng.randrange(2), "time", rng.randint(300, 2500))
    config, expected = undisturbed(*MESHES[seed % len(MESHES)])
    spec = RunSpec(tmp_path, config, data)
    killed = replace(spec, sabotage=partial(run_faults.kill, *death))
    try:  # the run may end before the timer
        ranks.run(2, checkpoint_runs.train, killed)
    except AssertionError as error:
        assert re.search(GONE, str(error))
    assert_same_end(ranks.run(2, checkpoint_runs.train, spec)[0], expected)


@pytest.mark.parametrize(("stage", "sp_size"), [(2, 1), pytest.param(3, 2, marks=pytest.mark.slow)])
def test_a_stopped_run_saves_its_step_and_resumes_as_the_undisturbed_one(
    tmp_path: Path, data: Any, undisturbed: Undisturbed, stage: int, sp_size: int
) -> None:
    """SIGTERM to one rank in its third step, after which no checkpoint is due."""
    config, expected = undisturbed(stage, sp_size)
    spec = RunSpec(tmp_path, config, data)
    stopped = replace(spec, sabotage=run_faults.terminate)
    assert ranks.run(2, checkpoint_runs.exit_code, stopped) == [75, 75]
    result = ranks.run(2, checkpoint_runs.train, spec)[0]
    assert result["first_step"] == 3
    assert_same_end(result, expected)


def test_a_full_disk_leaves_the_last_good_checkpoint_and_the_run_continues(
    tmp_path: Path, data: Any, undisturbed: Undisturbed
) -> None:
    """Rank 1 writes its second checkpoint to a full device (/dev/full, a real ENOSPC)."""
    config, expected = undisturbed(2, 1)
    spec = RunSpec(tmp_path, config, data)
    results = ranks.run(2, checkpoint_runs.train, replace(spec, sabotage=run_faults.fill_disk))
    assert [result["failed_saves"] for result in results] == [1, 1]
    assert results[0]["losses"] == expected["losses"]
    names = sorted(path.name for path in (tmp_path / "checkpoints").iterdir())
    assert names == ["latest", "step-00000002"]
    resumed = ranks.run(2, checkpoint_runs.train, spec)[0]
    assert resumed["first_step"] == 2
    assert_same_end(resumed, expected)


def test_a_stop_without_room_for_its_checkpoint_is_an_error(
    tmp_path: Path, data: Any, undisturbed: Undisturbed
) -> None:
    config, _ = undisturbed(2, 1)
    spec = RunSpec(tmp_path, config, data, sabotage=run_faults.fill_disk_and_terminate)
    message = "RopewalkError: the last checkpoint could not be written"
    with pytest.raises(AssertionError, match=message):
        ranks.run(2, checkpoint_runs.train, spec)


def test_a_hung_rank_is_named_and_the_run_ends(tmp_path: Path, data: Any) -> None:
    """Rank 1 is stopped (SIGSTOP) in its third step; rank 0 waits for it in a collective."""
    config = settings("train.zero_stage=2", "train.launcher.hang_timeout_s=3")
    spec = RunSpec(tmp_path, config, data, sabotage=run_faults.freeze)
    started = time.monotonic()
    with pytest.raises(AssertionError, match="died without a traceback"):
        ranks.run(2, checkpoint_runs.train_with_stderr, spec)
    assert time.monotonic() - started < 3 + 2 * SOON_S
    output = (tmp_path / "stderr-0").read_text()
    # its last report is up to one poll older than the signal
    position = "(at step [123], .*|before its first message|starting)"
    named = (
        r"rank 1 on \S+ holds the others up for 3 s \(train.launcher.hang_timeout_s\): "
        f"it was last seen {position}, and its process does"
    )
    assert re.search(named, output), output
    assert "rank 0 on" not in output and "rank 0 is here" in output


def test_a_failed_watchdog_ends_the_run(tmp_path: Path, data: Any) -> None:
    """The run has polls to come: its validation takes twice as long as the timeout."""
    config = settings("train.launcher.hang_timeout_s=2")
    options = {"validation": SlowValidation(8)}
    spec = RunSpec(tmp_path, config, data, sabotage=run_faults.fail_watchdog, options=options)
    codes, _ = ranks.run_to_exit(1, checkpoint_runs.train_with_stderr, spec)
    output = (tmp_path / "stderr-0").read_text()
    assert codes == [1], output
    assert "rank 0: the watchdog of train.launcher.hang_timeout_s failed:\nTraceback" in output
    assert "ValueError: the poll failed" in output


def test_a_long_validation_that_advances_is_no_hang(tmp_path: Path, data: Any) -> None:
    """It takes twice as long as the timeout, between two events of the step timer."""
    config = settings("train.launcher.hang_timeout_s=2")
    spec = RunSpec(tmp_path, config, data, options={"validation": SlowValidation(8)})
    assert ranks.run(1, checkpoint_runs.train, spec)[0]["steps"][-1] == 6


def test_the_rank_furthest_behind_is_named_if_all_are_alive() -> None:
    def beat(step: int, done: int, phase: int = 4) -> Beat:
        position = Heartbeat(step, done, "forward" if done > 1 else "").position()
        return Beat(phase, step, done, position, 1800.0, True)

    beats = {0: beat(4, 3), 1: beat(4, 1), 2: beat(4, 3)}
    assert stalled_ranks(beats, set()) == {1: "it is at step 5, at its start"}
    assert stalled_ranks(beats, {0}) == {
        0: "it was last seen at step 5, after its forward, and its process does not answer"
    }
    beats = {0: beat(4, 3), 1: beat(4, 1), 2: None}
    assert stalled_ranks(beats, {2}) == {
        2: "it was last seen before its first message, and its process does not answer"
    }
    # a rank that still loads is behind one that trains
    assert list(stalled_ranks({0: beat(0, 0), 1: beat(9, 9, phase=2)}, set())) == [1]


def test_a_rank_that_dies_ends_the_others(tmp_path: Path, data: Any) -> None:
    """Rank 0 is not killed: gloo tells it of a closed connection, the watchdog of whose."""
    kill = partial(run_faults.kill, 1, "forward", 9)
    spec = RunSpec(tmp_path, settings("train.zero_stage=2"), data, sabotage=kill)
    codes, seconds = ranks.run_to_exit(2, checkpoint_runs.train_with_stderr, spec)
    assert codes == [1, -9]
    assert seconds < SOON_S
    output = (tmp_path / "stderr-0").read_text()
    assert re.search(r"rank 1 on \S+ ended without a message, last seen at step \d, ", output)


@pytest.mark.gpu(count=2)
def test_a_rank_that_dies_on_gpus_ends_the_others(tmp_path: Path, data: Any) -> None:
    """NCCL waits; the watchdog of rank 0 sees it, or NCCL's own check of its peers before that."""
    kill = partial(run_faults.kill, 1, "forward", 9)
    spec = RunSpec(tmp_path, settings("train.zero_stage=2"), data, sabotage=kill)
    codes, seconds = ranks.run_to_exit(2, checkpoint_runs.train, spec, device="cuda")
    assert codes[1] == -9 and codes[0] not in (0, None)
    assert seconds < SOON_S


@pytest.mark.gpu(count=2)
def test_a_rank_that_hangs_on_gpus_ends_the_run(tmp_path: Path, data: Any) -> None:
    config = settings("train.zero_stage=2", "train.launcher.hang_timeout_s=20")
    spec = RunSpec(tmp_path, config, data, sabotage=run_faults.freeze)
    with pytest.raises(AssertionError, match="died without a traceback"):
        ranks.run(2, checkpoint_runs.train_with_stderr, spec, device="cuda")
    assert "rank 1 holds the others up for 20 s" in (tmp_path / "stderr-0").read_text()
