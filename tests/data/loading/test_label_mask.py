"""Context-only sources: their tokens are read, and none of their labels counts anywhere."""

from pathlib import Path

import numpy as np
import pytest
from data_fixture import DataFixture
from plans import RankPosition, planned, stored

from ropewalk.conf.errors import ConfigError
from ropewalk.data.loading.loader import BatchLoader
from ropewalk.data.loading.packed import PackedSequences
from ropewalk.launch.config.compose import compose

ROWS = [
    [(4, 3, 6), (0, 0, 4)],
    [(2, 15, 1), (3, 0, 9)],
    [(5, 0, 10)],
    [(1, 2, 3), (5, 2, 4), (0, 0, 2)],
]


def read(folder: Path, context_only: tuple[int, ...]) -> PackedSequences:
    """Two stores of three documents; token t of document d is 1000 d + t."""
    documents = [1000 * d + np.arange(20 + d) for d in range(6)]
    stores = [stored(folder / "one", documents[:3]), stored(folder / "two", documents[3:])]
    return PackedSequences(
        planned(folder / "plan", ROWS, seq_len=10), stores, context_only=context_only
    )


@pytest.mark.parametrize("context_only", [(0,), (1,)])
def test_labels_of_a_context_only_source_are_ignored_and_the_rest_stays(
    tmp_path: Path, context_only: tuple[int]
) -> None:
    unmasked, masked = read(tmp_path / "a", ()), read(tmp_path / "b", context_only)
    for number in range(len(ROWS)):
        row, full = masked[number], unmasked[number]
        quiet = (full.input_ids < 3000) == (context_only == (0,))
        np.testing.assert_array_equal(row.labels, np.where(quiet, -100, full.labels))
        np.testing.assert_array_equal(row.input_ids, full.input_ids)
        np.testing.assert_array_equal(row.cu_seqlens, full.cu_seqlens)
        assert masked.num_labels(number) == (row.labels != -100).sum()


def test_any_slice_has_the_labels_of_the_full_sequence(tmp_path: Path) -> None:
    sequences = read(tmp_path, (1,))
    for number in range(len(ROWS)):
        for low in range(10):
            for high in range(low + 1, 11):
                part = sequences.read(number, 0, low, high).labels
                np.testing.assert_array_equal(part, sequences[number].labels[low:high])


def test_labels_of_a_step_are_those_of_all_its_rows_at_any_degree(tmp_path: Path) -> None:
    sequences = read(tmp_path, (0,))
    for dp_size, sp_size in ((1, 1), (2, 1), (2, 2), (1, 5)):
        loaders = [
            BatchLoader(
                sequences,
                RankPosition(dp_rank, dp_size, sp_rank, sp_size),
                seed=0,
                micro_batch_size=1,
                batch_ramp=[(0, 2 // dp_size)],
            )
            for dp_rank in range(dp_size)
            for sp_rank in range(sp_size)
        ]
        for step in range(3):
            valid = sum(
                int((row.labels != -100).sum())
                for loader in loaders
                for row in loader.micro_batches([step])
            )
            assert {loader.num_labels(step) for loader in loaders} == {valid}


def test_a_context_only_source_changes_the_labels_and_no_plan(
    data_fixture: DataFixture,
) -> None:
    full = data_fixture.run()
    result = data_fixture.run("data.sources.notes.loss=false")
    assert result.folders.plan == full.folders.plan and result.folders.stores == full.folders.stores
    assert 'redone: silent was absent, is ["notes"]' in result.message
    sequences, rows = result.folders.sequences(), result.ledger["sources"]
    valid = sum(int((sequences[n].labels != -100).sum()) for n in range(len(sequences)))
    assert (
        valid
        == result.ledger["plan"]["targets"]
        == rows["books"]["targets"]
        == full.ledger["sources"]["books"]["targets"]
    )
    assert rows["notes"]["targets"] == 0
    assert rows["notes"]["context_only"] == full.ledger["plan"]["targets"] - valid > 0
    assert (
        f"notes: context only: its {rows['notes']['context_only']:,} labels count in no loss"
        in result.ledger["notes"]
    )


def test_at_least_one_source_must_have_labels() -> None:
    overrides = [f"data.sources.{name}.loss=false" for name in ("stdlib", "repeat", "passkey")]
    message = (
        "every source has loss=false, so there would be no labels; "
        "set loss=true on at least one source"
    )
    with pytest.raises(ConfigError, match=message):
        compose(["recipe=demo", *overrides])
