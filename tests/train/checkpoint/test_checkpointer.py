"""Checkpoints of real ranks: only complete ones are published, and they are loaded bit for bit."""

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import checkpoint_runs
import pytest
import ranks
import run_faults
from checkpoint_runs import RunSpec, equal_arrays
from models import tiny_model
from train_settings import train_config

from ropewalk.conf.errors import ConfigError
from ropewalk.conf.schema import Config
from ropewalk.train.checkpoint import checkpointer, storage
from ropewalk.train.disk_space import checkpoint_bytes
from ropewalk.train.zero.mesh import Mesh

FILE = "zero_pp_rank_1_mp_rank_00_optim_states.pt"
STEP_2, STEP_4 = "step-00000002", "step-00000004"
Result = tuple[RunSpec, dict[str, Any]]


def settings(*overrides: str) -> Config:
    return checkpoint_runs.settings("train.precision=fp32", "train.zero_stage=2", *overrides)


def names(folder: Path) -> list[str]:
    """The checkpoints in `folder` with readable metadata, newest first."""
    return [name for name, _ in storage.list_checkpoints(folder)]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Any:
    return checkpoint_runs.make_data(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def undisturbed(data: Any, tmp_path_factory: pytest.TempPathFactory) -> Result:
    """An undisturbed run of two ranks at ZeRO 2, and what rank 0 returned."""
    content = {"train": {"optimizer": {"lr": 1e-2}}}
    spec = RunSpec(tmp_path_factory.mktemp("undisturbed"), settings(), data, content=content)
    return spec, ranks.run(2, checkpoint_runs.train, spec)[0]


def copy_run(undisturbed: Result, folder: Path, **changes: Any) -> RunSpec:
    """The undisturbed run's checkpoints in another folder, without its metrics."""
    spec, _ = undisturbed
    shutil.copytree(spec.folder / "checkpoints", folder / "checkpoints")
    return replace(spec, folder=folder, **changes)


def flip_bit(path: Path) -> None:
    """One bit, in the middle of the tensors."""
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


def test_a_published_checkpoint_is_complete_and_named_by_latest(undisturbed: Result) -> None:
    spec, result = undisturbed
    folder = spec.folder / "checkpoints"
    assert result["failed_saves"] == 0
    assert sorted(path.name for path in folder.iterdir()) == ["latest", STEP_2, STEP_4]
    assert (folder / "latest").read_text() == STEP_4
    metadata = json.loads((folder / STEP_4 / "complete.json").read_text())
    files = {path.name for path in (folder / STEP_4).iterdir()}
    assert files == {*metadata["files"], "complete.json"}
    assert (metadata["step"], metadata["world_size"], metadata["zero_stage"]) == (4, 2, 2)
    assert storage.find_damage(folder / STEP_4, metadata["files"]) == ""


def test_a_resumed_run_equals_the_uninterrupted_one(undisturbed: Result, tmp_path: Path) -> None:
    """Its metrics were deleted, and come back from the checkpoint."""
    _, expected = undisturbed
    resumed = ranks.run(2, checkpoint_runs.train, copy_run(undisturbed, tmp_path))[0]
    assert resumed["first_step"] == 4 and resumed["losses"] == expected["losses"]
    assert equal_arrays(resumed["weights"], expected["weights"])


def test_a_damaged_checkpoint_is_reported_and_the_one_before_it_loaded(
    undisturbed: Result, tmp_path: Path
) -> None:
    spec, folder = copy_run(undisturbed, tmp_path), tmp_path / "checkpoints"
    flip_bit(folder / STEP_4 / FILE)
    loaded = ranks.run(2, checkpoint_runs.load, spec)
    assert [rank["step"] for rank in loaded] == [2, 2]
    assert loaded[0]["messages"] == [
        f"checkpoint {STEP_4}: {FILE} is not what was written (sha256); loading the one before it",
        f"renamed damaged checkpoints: {STEP_4}.torn; they are removed when a checkpoint of their "
        "step or a later one is published",
        f"{tmp_path / 'metrics.jsonl'} lacks lines of checkpoint {STEP_2}; restored from it",
    ]
    assert names(folder) == [STEP_2]


def test_pruning_does_not_count_a_damaged_checkpoint_of_a_later_step(
    undisturbed: Result, tmp_path: Path
) -> None:
    config, folder = settings("train.checkpoint.keep_last=1"), tmp_path / "checkpoints"
    spec = copy_run(undisturbed, tmp_path, config=config)
    # a step that this run does not reach
    (folder / STEP_4).rename(folder / "step-00000008")
    flip_bit(folder / "step-00000008" / FILE)
    assert ranks.run(2, checkpoint_runs.train, spec)[0]["first_step"] == 2
    assert names(folder) == [STEP_4]
    assert (folder / "step-00000008.torn").is_dir()


def test_a_checkpoint_has_the_bytes_that_are_asked_of_the_disk(undisturbed: Result) -> None:
    spec, _ = undisturbed
    size = sum(path.stat().st_size for path in (spec.folder / "checkpoints" / STEP_4).iterdir())
    parameters = sum(parameter.numel() for parameter in tiny_model().parameters())
    least = checkpoint_bytes(spec.config.train, parameters)
    assert least <= size < 3 * least  # the module's own weights, and files of one small run


def test_ranks_of_the_same_layout_read_their_own_files(undisturbed: Result) -> None:
    assert ranks.run(2, run_faults.load_without_reshard, undisturbed[0]) == [4, 4]


def test_without_an_undamaged_checkpoint_training_starts_anew(
    undisturbed: Result, tmp_path: Path
) -> None:
    spec = copy_run(undisturbed, tmp_path)
    for name in (STEP_2, STEP_4):
        cut(tmp_path / "checkpoints" / name / FILE)
    loaded = ranks.run(2, checkpoint_runs.load, spec)[0]
    assert loaded["step"] == 0 and len(loaded["messages"]) == 4
    assert loaded["messages"][-2] == "no checkpoint is undamaged; training starts anew"


def test_checkpoints_with_unreadable_metadata_are_reported(
    undisturbed: Result, tmp_path: Path
) -> None:
    spec, folder = copy_run(undisturbed, tmp_path), tmp_path / "checkpoints"
    for name in (STEP_2, STEP_4):
        (folder / name / storage.COMPLETE).write_text("{")
    loaded = ranks.run(2, checkpoint_runs.load, spec)[0]
    assert loaded["step"] == 0
    assert loaded["messages"][0] == "no checkpoint is undamaged; training starts anew"
    assert (folder / f"{STEP_4}.torn").is_dir()


def test_the_first_damaged_file_is_reported(undisturbed: Result, tmp_path: Path) -> None:
    copy_run(undisturbed, tmp_path)
    path = tmp_path / "checkpoints" / STEP_4
    files = json.loads((path / "complete.json").read_text())["files"]
    size = files[FILE]["bytes"]
    flip_bit(path / FILE)
    changed = f"{FILE} is not what was written (sha256)"
    assert storage.find_damage(path, files) == changed
    by_rank = [storage.find_damage(path, files, rank, 3) for rank in range(3)]
    assert sorted(by_rank) == ["", "", changed]
    cut(path / FILE)
    shorter = f"{FILE} has {size - 1} bytes, {size} were written"
    assert storage.find_damage(path, files) == shorter
    (path / FILE).unlink()
    assert storage.find_damage(path, files) == f"{FILE} is missing"


def test_a_checkpoint_of_another_run_is_refused_with_the_first_difference(
    undisturbed: Result, tmp_path: Path
) -> None:
    spec = copy_run(undisturbed, tmp_path, content={"train": {"optimizer": {"lr": 2e-2}}})
    message = f"train.optimizer.lr was 0.01, is 0.02 in the checkpoint {STEP_4}; a run is resumed"
    with pytest.raises(AssertionError, match=message):
        ranks.run(2, checkpoint_runs.load, spec)


def test_equal_content_is_not_refused() -> None:
    storage.refuse_other_content(STEP_2, {"a": [1, 0.1]}, {"a": [1, 0.1]})
    saved, current = {"inputs": {"data": "x"}}, {"inputs": {"data": "y"}}
    with pytest.raises(ConfigError, match=r"^inputs.data was \"x\", is \"y\""):
        storage.refuse_other_content(STEP_2, saved, current)


def write_metadata(folder: Path, step: int) -> None:
    path = folder / storage.checkpoint_name(step)
    path.mkdir(parents=True)
    metadata = {"schema": 1, "step": step, "files": {}}
    (path / storage.COMPLETE).write_text(json.dumps(metadata))


def test_the_newest_checkpoints_and_multiples_of_keep_every_stay(tmp_path: Path) -> None:
    for step in (2, 4, 6, 8, 10):
        write_metadata(tmp_path, step)
    newest = storage.checkpoint_name(10)
    storage.prune(tmp_path, newest, keep_last=2, keep_every=4)
    assert names(tmp_path) == [newest, "step-00000008", STEP_4]
    storage.prune(tmp_path, newest, keep_last=1, keep_every=0)
    assert names(tmp_path) == [newest]


def test_the_published_checkpoint_stays_and_passed_damaged_ones_are_removed(
    tmp_path: Path,
) -> None:
    for step in (2, 4, 6, 8):
        write_metadata(tmp_path, step)
    storage.prune(tmp_path, STEP_2, keep_last=2, keep_every=0)
    assert names(tmp_path) == ["step-00000008", "step-00000006", STEP_2]
    quarantined = storage.quarantine(tmp_path, STEP_2)
    assert quarantined == ["step-00000006.torn", "step-00000008.torn"]
    assert names(tmp_path) == [STEP_2]
    assert (tmp_path / "latest").read_text() == STEP_2
    (tmp_path / "latest").unlink()  # nothing is damaged: nothing is pointed to
    assert storage.quarantine(tmp_path, STEP_2) == [] and not (tmp_path / "latest").exists()
    storage.prune(tmp_path, "step-00000006", keep_last=2, keep_every=0)
    remaining = sorted(path.name for path in tmp_path.iterdir())
    assert remaining == [STEP_2, "step-00000008.torn"]
    assert storage.quarantine(tmp_path, "") == [f"{STEP_2}.torn"]  # none is good
    assert not (tmp_path / "latest").exists()


def test_half_written_checkpoints_are_not_listed_and_are_removed(tmp_path: Path) -> None:
    write_metadata(tmp_path, 2)
    (tmp_path / f"{STEP_4}.tmp").mkdir()
    (tmp_path / "step-00000006").mkdir()
    write_metadata(tmp_path, 8)
    (tmp_path / "step-00000008" / storage.COMPLETE).write_text('{"schema": 1, "st')
    assert names(tmp_path) == [STEP_2]
    storage.remove_unfinished(tmp_path)
    assert not (tmp_path / f"{STEP_4}.tmp").exists()


@pytest.mark.parametrize("rank", [0, 1])
def test_rank_0_removes_half_written_checkpoints_at_a_start(
    rank: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    unfinished = tmp_path / f"{STEP_4}.tmp"
    unfinished.mkdir()
    monkeypatch.setattr(checkpointer, "use_checkpoint_writer", lambda *args: None)
    monkeypatch.setattr(checkpointer.Checkpointer, "_checkpoints", lambda self: [])
    monkeypatch.setattr(checkpointer, "any_rank", lambda *flags: list(flags))
    engine: Any = None
    mesh = Mesh(rank, world_size=2)
    checkpoints = checkpointer.Checkpointer(
        engine, tmp_path, train_config(steps=1, optimizer__lr=1.0), mesh
    )
    assert checkpoints.load().step == 0
    assert unfinished.exists() == (rank != 0)


def write_file_list(
    folder: Path, rank: int, *files: str, requested: list[str] | None = None
) -> None:
    """A rank's list, as if each of its files had four bytes."""
    digests = {name: {"bytes": 4, "sha256": ""} for name in files}
    file_list = {"files": digests, "asked": requested or [*files]}
    (folder / f"rank-{rank}.json").write_text(json.dumps(file_list))


def test_nothing_is_published_when_a_rank_wrote_too_little(tmp_path: Path) -> None:
    temporary = tmp_path / f"{STEP_2}.tmp"
    temporary.mkdir()
    metadata = {"world_size": 2, "zero_stage": 2}
    files = ["model_states.pt", "rank_0_optim_states.pt", "rank_1_optim_states.pt"]
    for name in files:
        (temporary / name).write_bytes(b"1234")

    def assert_refused(message: str) -> None:
        with pytest.raises(OSError, match=message):
            storage.publish(tmp_path, STEP_2, metadata)
        assert not (tmp_path / STEP_2).exists() and not (tmp_path / "latest").exists()

    write_file_list(temporary, 0, files[1])
    assert_refused("rank 0 wrote no model_states.pt")
    write_file_list(temporary, 0, *files[:2])
    assert_refused("rank-1.json")
    write_file_list(temporary, 1)
    assert_refused("rank 1 wrote no optim_states.pt")
    write_file_list(temporary, 1, files[2], requested=["more.pt", files[2]])
    assert_refused("rank 1 wrote no more.pt")
    write_file_list(temporary, 1, files[2])
    (temporary / files[2]).write_bytes(b"123")
    assert_refused("rank_1_optim_states.pt has 3 bytes, 4 were written")
    (temporary / files[2]).write_bytes(b"1234")
    storage.publish(tmp_path, STEP_2, metadata)
    assert (tmp_path / "latest").read_text() == STEP_2


def run_with_stderr(spec: RunSpec) -> tuple[int, str]:
    """Failed saves of rank 0, and the stderr of both ranks."""
    result = ranks.run(2, checkpoint_runs.train_with_stderr, spec)[0]
    output = "".join((spec.folder / f"stderr-{rank}").read_text() for rank in (0, 1))
    return result["failed_saves"], output


def test_any_error_of_the_writer_drops_the_checkpoint(data: Any, tmp_path: Path) -> None:
    config = settings("train.checkpoint.keep_last=1")
    spec = RunSpec(tmp_path, config, data, sabotage=run_faults.fail_memory)
    failed_saves, output = run_with_stderr(spec)
    assert failed_saves == 1 and names(tmp_path / "checkpoints") == [STEP_2]
    message = "the checkpoint of step 4 could not be written: MemoryError('none left'); the one "
    assert f"{message}before it is kept\n" in output


def test_an_old_checkpoint_that_cannot_be_removed_costs_no_new_one(
    data: Any, tmp_path: Path
) -> None:
    config = settings("train.checkpoint.keep_last=1")
    spec = RunSpec(tmp_path, config, data, sabotage=run_faults.fail_prune)
    failed_saves, output = run_with_stderr(spec)
    assert failed_saves == 0 and names(tmp_path / "checkpoints") == [STEP_4, STEP_2]
    assert f"{STEP_4} is written; an older one could not be removed: busy\n" in output
    assert "could not be written" not in output


def test_a_failed_export_repeats_no_step(undisturbed: Result, tmp_path: Path) -> None:
    """The second run loads the last step's checkpoint and has nothing to train."""
    spec, expected = replace(undisturbed[0], folder=tmp_path), undisturbed[1]
    first, second = (ranks.run(2, checkpoint_runs.train_and_save_final, spec)[0] for _ in range(2))
    assert (first["first_step"], second["first_step"]) == (0, 6)
    assert first["steps"] == second["steps"] == [1, 2, 3, 4, 5, 6]
    assert equal_arrays(second["weights"], expected["weights"])


def test_a_full_disk_after_the_last_step_is_no_error(undisturbed: Result, tmp_path: Path) -> None:
    fill_disk = run_faults.fill_disk_at_the_end
    spec = replace(undisturbed[0], folder=tmp_path, sabotage=fill_disk)
    results = ranks.run(2, checkpoint_runs.train_and_save_final, spec)
    assert [result["failed_saves"] for result in results] == [1, 1]
    assert names(tmp_path / "checkpoints")[0] == STEP_4


def test_every_file_is_checked_by_one_rank(tmp_path: Path) -> None:
    """Without ranks by the only one; sizes come before hashes."""
    files: dict[str, Any] = {}
    for name in "abcd":
        (tmp_path / name).write_text(name)
        files[name] = {"bytes": 1, "sha256": storage.file_digest(tmp_path / name)}
    assert storage.find_damage(tmp_path, files) == ""
    for number, name in enumerate("abcd"):
        (tmp_path / name).write_text("x")
        assert storage.find_damage(tmp_path, files) == f"{name} is not what was written (sha256)"
        told = [storage.find_damage(tmp_path, files, rank, 2) != "" for rank in (0, 1)]
        assert told == [number % 2 == 0, number % 2 == 1]
        (tmp_path / name).write_text(name)
    (tmp_path / "a").write_text("x")
    (tmp_path / "d").write_text("dd")
    assert storage.find_damage(tmp_path, files) == "d has 2 bytes, 1 were written"
    (tmp_path / "b").unlink()
    assert storage.find_damage(tmp_path, files) == "b is missing"
