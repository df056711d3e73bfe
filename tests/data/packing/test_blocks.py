"""Plans in blocks: every invariant of a plan of one block, and no less fill."""

import json
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from unittest.mock import patch

import numpy as np
import pyarrow as pa
import pytest
from data_fixture import MARKED, SYNTHETIC, DataFixture
from pieces import Piece, rows_of
from plans import RankPosition, pack_selections

from ropewalk.data.ledger import entries
from ropewalk.data.loading.loader import BatchLoader
from ropewalk.data.mixing import mixed_order
from ropewalk.data.mixing.rounds import Selection
from ropewalk.data.packing import packers, window
from ropewalk.data.packing.packed import Packed
from ropewalk.data.packing.packers import PACKERS


@contextmanager
def blocks_of(takings: int) -> Iterator[None]:
    """Every plan of more takings is in blocks, and the ledger counts 7 documents at a time."""
    block = patch.multiple(mixed_order, ONE_BLOCK=takings, BLOCK=takings)
    ledger = patch.multiple(entries, DOCUMENTS=7, PART=3)
    with block, ledger, patch.object(window, "WINDOW", 4):
        yield


def generated(documents: int, median: float, seed: int = 0) -> Selection:
    """Lognormal lengths, one document in a hundred thirty times as long."""
    rng = np.random.default_rng(seed)
    long = np.where(rng.random(documents) < 0.01, 30, 1)
    tokens = (rng.lognormal(np.log(median), 1.2, documents) * long).astype(np.int64) + 1
    index = np.arange(documents)
    keys = rng.integers(0, 1 << 63, documents, dtype=np.uint64)
    return Selection(index, tokens, np.zeros_like(index), keys)


def packed(blocks: int, packer: str, seq_len: int, max_piece: int | None = None) -> Packed:
    takings = {"a": generated(5000, 40), "b": generated(3000, 90, seed=1)}
    limits = {"b": max_piece or seq_len}
    first = {"a": 0, "b": 5000}
    return pack_selections(
        takings, first, seq_len, 8, 3, packer=packer, max_piece=limits, blocks=blocks
    )


@pytest.mark.parametrize("max_piece", [None, 128])
@pytest.mark.parametrize("packer", PACKERS)
def test_every_token_is_packed_once_and_no_fill_is_lost(packer: str, max_piece: int | None) -> None:
    """Counted by numpy from the lengths; the fill beside the packer's own in one block."""
    lengths = np.concatenate([generated(5000, 40).lengths, generated(3000, 90, seed=1).lengths])
    one, several = (packed(blocks, packer, 512, max_piece) for blocks in (1, 9))
    order = np.lexsort((several.start, several.document))
    document, start, length = (
        column[order] for column in (several.document, several.start, several.length)
    )
    ends = np.cumsum(lengths)
    flat = ends[document] - lengths[document] + start
    assert (flat == np.cumsum(length) - length).all()
    assert flat[-1] + length[-1] == ends[-1]
    assert np.add.reduceat(several.length, several.offsets[:-1]).max() <= 512
    assert len(several) <= len(one)
    if max_piece:
        assert several.length[several.document >= 5000].max() == max_piece


@pytest.mark.parametrize("packer", ["window_fill", "concat", "single"])
@pytest.mark.parametrize("blocks", [2, 40])
def test_blocks_change_no_sequence(packer: str, blocks: int) -> None:
    with patch.object(window, "WINDOW", 64):
        one, several = (rows_of(packed(count, packer, 512, 128)) for count in (1, blocks))
    assert one == several


def test_sequences_of_best_fit_that_wait_are_those_with_the_most_room() -> None:
    """Without them, each block of 900 documents would end in half-full sequences."""
    one = packed(1, "best_fit", 4096)
    with patch.object(packers, "HELD_BACK", 1):
        assert len(packed(9, "best_fit", 4096)) <= len(one) + 1
    several = packed(9, "best_fit", 4096)
    assert len(several) == len(one)
    assert rows_of(several) != rows_of(one)
    assert rows_of(several) == rows_of(packed(9, "best_fit", 4096))


CONFIGS = [
    (),
    ("data.packer=best_fit", "data.total_tokens=9000"),
    ("data.packer=concat", "data.document_mask=false", "data.positions=continue"),
    ("data.length_weights={'<40':0.3,'>90':2.5}", "data.total_tokens=12345", *MARKED),
    ("data.buckets={'<50':0.4,'>=50':0.6}", "data.total_tokens=8000"),
    ("data.sources.books.piece_len=32", "data.sources.notes.weight=0.2", *SYNTHETIC),
]


def shares(ledger: dict) -> dict[str, dict]:
    """What the mixture decides of each source; where pieces lie is the packer's."""
    keys = ("tokens_in_plan", "distinct", "repeated", "most_taken", "by_length", "left_out")
    return {name: {k: row[k] for k in keys} for name, row in ledger["sources"].items()}


@pytest.mark.parametrize("overrides", CONFIGS)
def test_the_stage_makes_the_same_mixture_in_blocks(
    data_fixture: DataFixture, overrides: tuple[str, ...]
) -> None:
    one = data_fixture.run(*overrides, output="one")
    with blocks_of(11):
        several = data_fixture.run(*overrides, output="several")
        again = data_fixture.run(*overrides, output="again", cache="other")
    assert one.folders.plan.name != several.folders.plan.name
    files = [run.folders.plan / "plan.arrow" for run in (several, again)]
    assert files[0].read_bytes() == files[1].read_bytes()
    assert pa.ipc.open_file(files[0]).num_record_batches > 1
    assert shares(one.ledger) == shares(several.ledger)
    facts = json.loads((several.folders.plan / "manifest.json").read_text())["facts"]
    assert facts["blocks"] > 1
    assert not list(several.folders.plan.glob(".takings*"))
    tokens = [
        Counter((p["document"], p["start"] + t) for p in row for t in range(p["length"]))
        for run in (one, several)
        for row in [[p for row in run.pieces() for p in row]]
    ]
    assert tokens[0] == tokens[1]


def test_each_epoch_of_training_reads_each_document_once(data_fixture: DataFixture) -> None:
    with blocks_of(11):
        result = data_fixture.run("data.packer=window_fill")
    sequences = result.folders.sequences()
    loader = BatchLoader(sequences, RankPosition(), seed=0, micro_batch_size=1, batch_ramp=[(0, 1)])
    rows = [[Piece(**piece) for piece in row] for row in result.pieces()]
    for epoch in range(2):
        steps = range(epoch * len(rows), (epoch + 1) * len(rows))
        numbers = [number for step in steps for number in loader.sequence_ids(step)]
        assert sorted(numbers) == list(range(len(rows)))
        read: Counter[int] = Counter()
        for number in numbers:
            document, start, length = (c.tolist() for c in sequences.plan.sequence(number))
            assert list(map(Piece, document, start, length)) == rows[number]
            read.update(d for d, begin in zip(document, start, strict=True) if begin == 0)
        assert set(read.values()) == {1}
