"""Any number of shards, tasks and workers gives the same bytes."""

import numpy as np
import pytest
from data_fixture import SYNTHETIC, DataFixture
from stores import content_of

from ropewalk.conf.errors import ConfigError
from ropewalk.data import stage


@pytest.fixture
def small_shards(monkeypatch: pytest.MonkeyPatch) -> None:
    """Several shards for each source."""
    set_small_shards(monkeypatch)


def set_small_shards(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stage.shards, "SHARD_BYTES", 3000)
    monkeypatch.setattr("ropewalk.data.sources.units.UNIT_BYTES", 1000)


def test_tasks_then_a_merge_give_the_same_stores_and_plan(
    data_fixture: DataFixture, small_shards: None
) -> None:
    """Four tasks, in another order and with another number of workers."""
    overrides = (*SYNTHETIC, "data.sources.notes.weight=0.2")
    single = data_fixture.run(
        "data.tokenizer_threads=1", *overrides, cache="single", output="single_out"
    )
    config, inputs = data_fixture.config("data.tokenizer_threads=3", *overrides), stage.Inputs(None)
    missing = stage.missing_shards(config, inputs)
    shards = [s for task in (3, 0, 2, 1) for s in stage.make_shards(config, inputs, task, 4)]
    assert sorted(f"{name}/{number:05}" for name, number in shards) == sorted(missing)
    assert len(set(shards)) == len(shards) > 4
    assert {name for name, _ in shards} == {"books", "notes"}
    assert stage.missing_shards(config, inputs) == []
    assert not list((data_fixture.folder / "cache" / "plans").glob("*"))
    assert data_fixture.run(*overrides).ledger == single.ledger
    assert content_of(data_fixture.folder / "cache") == content_of(data_fixture.folder / "single")


def test_tasks_share_the_shards_of_all_sources(data_fixture: DataFixture) -> None:
    """Two sources of one shard each go to two tasks; the third task has no shard."""
    config, inputs = data_fixture.config(), stage.Inputs(None)
    assert [stage.make_shards(config, inputs, task, 3) for task in range(3)] == [
        [("books", 0)],
        [("notes", 0)],
        [],
    ]


def test_the_number_of_shards_changes_no_document(
    data_fixture: DataFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    single = data_fixture.run(cache="single", output="single")
    set_small_shards(monkeypatch)
    many = data_fixture.run(cache="many", output="many")
    assert single.pieces() == many.pieces()
    expected, actual = single.folders.sequences(), many.folders.sequences()
    assert all(
        np.array_equal(expected[n].input_ids, actual[n].input_ids) for n in range(len(expected))
    )
    assert len(many.folders.store("books").metadata["shards"]) > 2


def test_workers_are_the_cores_unless_set(data_fixture: DataFixture) -> None:
    import os

    assert stage.workers(data_fixture.config("data.tokenizer_threads=5").data) == 5
    assert stage.workers(data_fixture.config().data) == len(os.sched_getaffinity(0))
    message = r"^data\.tokenizer_threads is 0; it must be at least 1; unset it for one per core$"
    with pytest.raises(ConfigError, match=message):
        data_fixture.config("data.tokenizer_threads=0")


def test_another_number_of_workers_redoes_nothing(data_fixture: DataFixture) -> None:
    data_fixture.run("data.tokenizer_threads=1")
    message = data_fixture.run("data.tokenizer_threads=2").message
    assert message == "data: done before with the same settings and inputs; skipped"
