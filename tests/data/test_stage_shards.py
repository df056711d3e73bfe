"""Shards, tasks and workers through the whole stage: the same bytes."""

import pytest
from data_fixture import SYNTHETIC, DataFixture
from stores import content_of

from ropewalk.conf.errors import ConfigError
from ropewalk.data import stage


@pytest.fixture
def small_shards(monkeypatch: pytest.MonkeyPatch) -> None:
    """The tests' sources in several shards each."""
    _small(monkeypatch)


def _small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stage.shards, "SHARD_BYTES", 3000)
    monkeypatch.setattr("ropewalk.data.sources.units.UNIT_BYTES", 1000)


def test_tasks_then_a_merge_give_the_same_stores_and_plan(
    data_fixture: DataFixture, small_shards: None
) -> None:
    """Four tasks, the last one first; workers differ too."""
    overrides = (*SYNTHETIC, "data.sources.notes.weight=0.2")
    whole = data_fixture.run(
        "data.tokenizer_threads=1", *overrides, cache="whole", output="whole_out"
    )
    config, inputs = data_fixture.config("data.tokenizer_threads=3", *overrides), stage.Inputs(None)
    missing = stage.missing_shards(config, inputs)
    made = [shard for task in (3, 0, 2, 1) for shard in stage.make_shards(config, inputs, task, 4)]
    assert sorted(f"{name}/{number:05}" for name, number in made) == sorted(missing)
    assert len(set(made)) == len(made) > 4 and {name for name, _ in made} == {"books", "notes"}
    assert stage.missing_shards(config, inputs) == [] and not list(
        (data_fixture.folder / "cache" / "plans").glob("*")
    )
    assert data_fixture.run(*overrides).ledger == whole.ledger
    assert content_of(data_fixture.folder / "cache") == content_of(data_fixture.folder / "whole")


def test_shards_are_shared_out_over_all_sources(data_fixture: DataFixture) -> None:
    """Counted through the sources: two of one shard each go to two tasks, a third has nothing to do."""
    config, inputs = data_fixture.config(), stage.Inputs(None)
    assert [stage.make_shards(config, inputs, task, 3) for task in range(3)] == [
        [("books", 0)],
        [("notes", 0)],
        [],
    ]


def test_number_of_shards_changes_no_document(
    data_fixture: DataFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = data_fixture.run(cache="one", output="one")
    _small(monkeypatch)
    many = data_fixture.run(cache="many", output="many")
    assert one.pieces() == many.pieces()
    for a, b in ((one.folders.sequences(), many.folders.sequences()),):
        assert all((a[n].input_ids == b[n].input_ids).all() for n in range(len(a)))
    assert len(many.folders.store("books").metadata["shards"]) > 2


def test_workers_are_the_cores_unless_set(data_fixture: DataFixture) -> None:
    import os

    assert stage.workers(data_fixture.config("data.tokenizer_threads=5").data) == 5
    assert stage.workers(data_fixture.config().data) == len(os.sched_getaffinity(0))
    with pytest.raises(
        ConfigError,
        match=r"^data\.tokenizer_threads is 0; it must be at least 1; unset it for one per core$",
    ):
        data_fixture.config("data.tokenizer_threads=0")


def test_workers_redo_nothing(data_fixture: DataFixture) -> None:
    data_fixture.run("data.tokenizer_threads=1")
    assert (
        data_fixture.run("data.tokenizer_threads=2").message
        == "data: done before with the same settings and inputs; skipped"
    )
