"""Checkpoints by real ranks: what is published is whole, what is whole is loaded bit for bit, by any mesh, and nothing else is."""

import json
from pathlib import Path
from typing import Any

import checkpoint_runs
import numpy as np
import pytest
import ranks
from checkpoint_runs import RunSpec

from ropewalk.conf.errors import ConfigError
from ropewalk.conf.schema import Config
from ropewalk.launch.config.compose import compose
from ropewalk.train.checkpoint import storage

FILE = "zero_pp_rank_1_mp_rank_00_optim_states.pt"


def settings(*words: str) -> Config:
    small = [
        "data.seq_len=64",
        "train.global_batch_tokens=256",
        "train.precision=fp32",
        "train.metrics.wandb=off",
        "train.micro_batch_size=1",
    ]
    steps = [
        "train.steps=6",
        "train.checkpoint.interval_steps=2",
        "train.optimizer.lr=1e-2",
        "train.schedule.warmup_steps=2",
    ]
    return compose(["recipe=demo", *small, *steps, *words])


def same(a: dict[str, Any], b: dict[str, Any]) -> bool:
    return a.keys() == b.keys() and all(
        np.array_equal(a[name], b[name], equal_nan=True) for name in a
    )


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Any:
    return checkpoint_runs.make_data(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def whole(data: Any, tmp_path_factory: pytest.TempPathFactory) -> tuple[RunSpec, dict[str, Any]]:
    """A run of two ranks at ZeRO 2, never disturbed: its folder, and what rank 0 returned."""
    work = RunSpec(
        tmp_path_factory.mktemp("whole"),
        settings("train.zero_stage=2"),
        data,
        content={"train": {"optimizer": {"lr": 1e-2}}},
    )
    return work, ranks.run(2, checkpoint_runs.train, work)[0]


def copied(work: RunSpec, to: Path, **changes: Any) -> RunSpec:
    """The same run in a folder of its own, without the lines of its metrics."""
    import shutil
    from dataclasses import replace

    shutil.copytree(work.folder / "checkpoints", to / "checkpoints")
    return replace(work, folder=to, **changes)


def test_what_is_published_is_whole_and_named_by_the_pointer(
    whole: tuple[RunSpec, dict[str, Any]],
) -> None:
    work, said = whole
    path = work.folder / "checkpoints"
    assert said["failed_saves"] == 0
    assert sorted(p.name for p in path.iterdir()) == ["latest", "step-00000002", "step-00000004"]
    assert (path / "latest").read_text() == "step-00000004"
    facts = json.loads((path / "step-00000004" / "complete.json").read_text())
    assert set(facts["files"]) == {p.name for p in (path / "step-00000004").iterdir()} - {
        "complete.json"
    }
    assert (facts["step"], facts["world_size"], facts["zero_stage"]) == (4, 2, 2)
    assert storage.find_damage(path / "step-00000004", facts["files"]) == ""


def test_a_resumed_run_is_the_uninterrupted_one(
    whole: tuple[RunSpec, dict[str, Any]], tmp_path: Path
) -> None:
    work, wanted = whole
    found = ranks.run(2, checkpoint_runs.train, copied(work, tmp_path))[0]
    assert found["first_step"] == 4 and found["losses"] == wanted["losses"][4:]
    assert same(found["weights"], wanted["weights"])


def flip(path: Path) -> None:
    """One bit, in the middle of the tensors."""
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


def test_a_tampered_one_is_named_and_the_one_before_it_taken(
    whole: tuple[RunSpec, dict[str, Any]], tmp_path: Path
) -> None:
    work = copied(whole[0], tmp_path)
    flip(tmp_path / "checkpoints" / "step-00000004" / FILE)
    found = ranks.run(2, checkpoint_runs.load, work)
    assert [rank["step"] for rank in found] == [2, 2]
    assert found[0]["messages"] == [
        f"checkpoint step-00000004: {FILE} is not what was written (sha256); the one before it is taken",
        "set aside: step-00000004.torn; removed when a whole one of as late a step stands",
    ]
    assert [name for name, _ in storage.list_checkpoints(tmp_path / "checkpoints")] == [
        "step-00000002"
    ]


def test_a_torn_one_of_a_later_step_costs_no_good_one(
    whole: tuple[RunSpec, dict[str, Any]], tmp_path: Path
) -> None:
    work = copied(
        whole[0], tmp_path, config=settings("train.zero_stage=2", "train.checkpoint.keep_last=1")
    )
    path = tmp_path / "checkpoints"
    # as far ahead as one of a longer run may be
    (path / "step-00000004").rename(path / "step-00000008")
    flip(path / "step-00000008" / FILE)
    found = ranks.run(2, checkpoint_runs.train, work)[0]
    assert found["first_step"] == 2
    assert [name for name, _ in storage.list_checkpoints(path)] == ["step-00000004"]
    assert (path / "step-00000008.torn").is_dir()


def test_with_none_whole_the_run_starts_anew_and_says_so(
    whole: tuple[RunSpec, dict[str, Any]], tmp_path: Path
) -> None:
    work = copied(whole[0], tmp_path)
    for step in (2, 4):
        cut(tmp_path / "checkpoints" / storage.checkpoint_name(step) / FILE)
    found = ranks.run(2, checkpoint_runs.load, work)[0]
    assert found["step"] == 0 and len(found["messages"]) == 4
    assert found["messages"][-2] == "no checkpoint is whole; training starts anew"


def test_checkpoints_whose_facts_cannot_be_read_are_no_start_in_silence(
    whole: tuple[RunSpec, dict[str, Any]], tmp_path: Path
) -> None:
    work = copied(whole[0], tmp_path)
    for step in (2, 4):
        (tmp_path / "checkpoints" / storage.checkpoint_name(step) / storage.COMPLETE).write_text(
            "{"
        )
    found = ranks.run(2, checkpoint_runs.load, work)[0]
    assert (
        found["step"] == 0
        and found["messages"][0] == "no checkpoint is whole; training starts anew"
    )
    assert (tmp_path / "checkpoints" / "step-00000004.torn").is_dir()


def test_trouble_is_said_of_the_first_file_that_has_it(
    whole: tuple[RunSpec, dict[str, Any]], tmp_path: Path
) -> None:
    work = copied(whole[0], tmp_path)
    path = work.folder / "checkpoints" / "step-00000004"
    files = json.loads((path / "complete.json").read_text())["files"]
    flip(path / FILE)
    assert storage.find_damage(path, files) == f"{FILE} is not what was written (sha256)"
    shares = [storage.find_damage(path, files, n, 3) for n in range(3)]
    assert sorted(shares) == ["", "", f"{FILE} is not what was written (sha256)"]
    cut(path / FILE)
    assert (
        storage.find_damage(path, files)
        == f"{FILE} has {files[FILE]['bytes'] - 1} bytes, {files[FILE]['bytes']} were written"
    )
    (path / FILE).unlink()
    assert storage.find_damage(path, files) == f"{FILE} is missing"


def test_one_of_another_run_is_refused_with_the_first_difference(
    whole: tuple[RunSpec, dict[str, Any]], tmp_path: Path
) -> None:
    work = copied(whole[0], tmp_path, content={"train": {"optimizer": {"lr": 2e-2}}})
    with pytest.raises(
        AssertionError,
        match=r"train.optimizer.lr was 0.01, is 0.02 in the checkpoint step-00000004; a run is resumed",
    ):
        ranks.run(2, checkpoint_runs.load, work)


def test_equal_content_is_not_refused() -> None:
    storage.refuse_other_content("step-00000002", {"a": [1, 0.1]}, {"a": [1, 0.1]})
    with pytest.raises(ConfigError, match=r"^inputs.data was \"x\", is \"y\""):
        storage.refuse_other_content(
            "step-00000002", {"inputs": {"data": "x"}}, {"inputs": {"data": "y"}}
        )


def made(path: Path, step: int, **facts: Any) -> None:
    at = path / storage.checkpoint_name(step)
    at.mkdir(parents=True)
    (at / storage.COMPLETE).write_text(
        json.dumps({"schema": 1, "step": step, "files": {}, **facts})
    )


def test_the_last_ones_stay_and_those_of_every_so_many_steps(tmp_path: Path) -> None:
    for step in (2, 4, 6, 8, 10):
        made(tmp_path, step)
    storage.prune(tmp_path, storage.checkpoint_name(10), 2, 4)
    assert [name for name, _ in storage.list_checkpoints(tmp_path)] == [
        storage.checkpoint_name(n) for n in (10, 8, 4)
    ]
    storage.prune(tmp_path, storage.checkpoint_name(10), 1, 0)
    assert [name for name, _ in storage.list_checkpoints(tmp_path)] == [storage.checkpoint_name(10)]


def test_the_one_just_published_stays_and_what_was_set_aside_goes_when_passed(
    tmp_path: Path,
) -> None:
    for step in (2, 4, 6, 8):
        made(tmp_path, step)
    storage.prune(tmp_path, storage.checkpoint_name(2), 2, 0)
    assert [name for name, _ in storage.list_checkpoints(tmp_path)] == [
        storage.checkpoint_name(n) for n in (8, 6, 2)
    ]
    assert storage.quarantine(tmp_path, storage.checkpoint_name(2)) == [
        "step-00000006.torn",
        "step-00000008.torn",
    ]
    assert [name for name, _ in storage.list_checkpoints(tmp_path)] == [storage.checkpoint_name(2)]
    assert (tmp_path / "latest").read_text() == storage.checkpoint_name(2)
    storage.prune(tmp_path, storage.checkpoint_name(6), 2, 0)
    assert sorted(p.name for p in tmp_path.iterdir()) == [
        "latest",
        "step-00000002",
        "step-00000008.torn",
    ]


def test_half_written_ones_are_none_and_are_swept(tmp_path: Path) -> None:
    made(tmp_path, 2)
    (tmp_path / "step-00000004.tmp").mkdir()
    (tmp_path / "step-00000006").mkdir()
    made(tmp_path, 8)
    (tmp_path / "step-00000008" / storage.COMPLETE).write_text('{"schema": 1, "st')
    assert [name for name, _ in storage.list_checkpoints(tmp_path)] == ["step-00000002"]
    storage.remove_unfinished(tmp_path)
    assert not (tmp_path / "step-00000004.tmp").exists()


def listing(path: Path, rank: int, *names: str, asked: list[str] | None = None) -> None:
    """A rank's list, as if each of its files had four bytes."""
    said = {
        "files": {name: {"bytes": 4, "sha256": ""} for name in names},
        "asked": asked or [*names],
    }
    (path / f"rank-{rank}.json").write_text(json.dumps(said))


def test_nothing_is_published_when_a_rank_wrote_less_than_it_must(tmp_path: Path) -> None:
    temporary = tmp_path / "step-00000002.tmp"
    temporary.mkdir()
    facts = {"world_size": 2, "zero_stage": 2}
    files = ["model_states.pt", "rank_0_optim_states.pt", "rank_1_optim_states.pt"]
    for name in files:
        (temporary / name).write_bytes(b"1234")

    def refused(said: str) -> None:
        with pytest.raises(OSError, match=said):
            storage.publish(tmp_path, "step-00000002", facts)
        assert not (tmp_path / "step-00000002").exists() and not (tmp_path / "latest").exists()

    listing(temporary, 0, files[1])
    refused("rank 0 wrote no model_states.pt")
    listing(temporary, 0, *files[:2])
    refused("rank-1.json")
    listing(temporary, 1)
    refused("rank 1 wrote no optim_states.pt")
    listing(temporary, 1, files[2], asked=["more.pt", files[2]])
    refused("rank 1 wrote no more.pt")
    listing(temporary, 1, files[2])
    (temporary / files[2]).write_bytes(b"123")
    refused("rank_1_optim_states.pt has 3 bytes, 4 were written")
    (temporary / files[2]).write_bytes(b"1234")
    storage.publish(tmp_path, "step-00000002", facts)
    assert (tmp_path / "latest").read_text() == "step-00000002"


@pytest.mark.parametrize("wrong", ["memory", "prune"])
def test_an_error_of_the_thread_is_told_for_what_it_is(
    data: Any, tmp_path: Path, wrong: str
) -> None:
    """What is no disk's error loses the checkpoint too; an older one that cannot be removed does not."""
    config = settings("train.zero_stage=2", "train.checkpoint.keep_last=1")
    work = RunSpec(tmp_path, config, data, sabotage=getattr(checkpoint_runs, f"fail_{wrong}"))
    found = ranks.run(2, checkpoint_runs.train_with_stderr, work)
    said = (tmp_path / "stderr-0").read_text() + (tmp_path / "stderr-1").read_text()
    names = [name for name, _ in storage.list_checkpoints(tmp_path / "checkpoints")]
    if wrong == "memory":
        assert found[0]["failed_saves"] == 1 and names == ["step-00000002"]
        assert (
            "the checkpoint of step 4 could not be written: MemoryError('none left'); the one before it stands\n"
            in said
        )
    else:
        assert found[0]["failed_saves"] == 0 and names == ["step-00000004", "step-00000002"]
        assert "step-00000004 is written; an older one could not be removed: busy\n" in said
        assert "could not be written" not in said


def test_what_fails_after_the_last_step_costs_no_step(
    whole: tuple[RunSpec, dict[str, Any]], data: Any, tmp_path: Path
) -> None:
    """As if the export had failed: the next run has nothing to train, and the same weights; a full disk is only said."""
    from dataclasses import replace

    work = replace(whole[0], folder=tmp_path / "room")
    full = replace(
        whole[0], folder=tmp_path / "full", sabotage=checkpoint_runs.fill_disk_at_the_end
    )
    for each in (work, full):
        each.folder.mkdir()
    once, again = (ranks.run(2, checkpoint_runs.train_and_save_final, work)[0] for _ in range(2))
    assert (once["first_step"], again["first_step"]) == (0, 6) and again["steps"] == once[
        "steps"
    ] == [
        1,
        2,
        3,
        4,
        5,
        6,
    ]
    assert same(again["weights"], whole[1]["weights"])
    assert [
        rank["failed_saves"] for rank in ranks.run(2, checkpoint_runs.train_and_save_final, full)
    ] == [1, 1]
    assert storage.list_checkpoints(full.folder / "checkpoints")[0][0] == "step-00000004"
