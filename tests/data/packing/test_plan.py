"""The plan: documents mixed and packed, written, read and described."""

import tracemalloc
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from pieces import Piece, packed_of, rows_of
from plans import pack_selections

from ropewalk.data.mixing.rounds import Selection
from ropewalk.data.packing import plan, window_fill
from ropewalk.data.packing.packers import PACKERS


def selection_of(*takings: tuple[int, int, int]) -> Selection:
    """Each taking `(document, tokens, epoch)`."""
    index, tokens, epoch = np.array(takings, dtype=np.int64).T
    return Selection(index, tokens, epoch, index.astype(np.uint64))


def test_build_numbers_documents_across_sources_and_keeps_every_token() -> None:
    selections = {
        "a": selection_of((0, 5, 0), (1, 30, 0)),
        "b": selection_of((0, 12, 0), (0, 12, 1)),
    }
    rows = rows_of(pack_selections(selections, {"a": 0, "b": 2}, 16, 2, seed=0))
    tokens = Counter(
        (p.document, t) for row in rows for p in row for t in range(p.start, p.start + p.length)
    )
    expected = (
        {(0, t): 1 for t in range(5)}
        | {(1, t): 1 for t in range(30)}
        | {(2, t): 2 for t in range(12)}
    )
    assert tokens == expected


def test_build_depends_on_the_seed_alone() -> None:
    selections = {"a": selection_of(*((i, 10 + i, 0) for i in range(40)))}
    first, again, other = (
        rows_of(pack_selections(selections, {"a": 0}, 64, 4, seed)) for seed in (0, 0, 1)
    )
    assert first == again != other


def peak_memory(packer: str, documents: int) -> int:
    rng = np.random.default_rng(0)
    selection = selection_of(
        *((i, size, 0) for i, size in enumerate(rng.lognormal(7, 1.3, documents).astype(int) + 1))
    )
    tracemalloc.start()
    pack_selections({"a": selection}, {"a": 0}, 32_768, 32, 0, packer=packer)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return peak


@pytest.mark.parametrize("packer", PACKERS)
def test_memory_for_a_document_is_a_few_numbers(packer: str) -> None:
    """A tuple of four Python numbers takes 216 bytes."""
    documents = window_fill.CHUNK
    more = peak_memory(packer, 2 * documents) - peak_memory(packer, documents)
    assert more <= 180 * documents


def test_arrow_reads_a_written_plan_as_lists_of_structs(tmp_path: Path) -> None:
    rows = [[Piece(3, 0, 5), Piece(1, 7, 2)], [Piece(9, 4, 1)]]
    plan.write(tmp_path, [packed_of(rows)])
    assert in_blocks(tmp_path) == by_number(tmp_path) == [rows]
    table = pa.ipc.open_file(pa.memory_map(str(tmp_path / "plan.arrow"))).read_all()
    assert table["pieces"].to_pylist() == [
        [{"document": 3, "start": 0, "length": 5}, {"document": 1, "start": 7, "length": 2}],
        [{"document": 9, "start": 4, "length": 1}],
    ]


def in_blocks(folder: Path) -> list[list[list[Piece]]]:
    with plan.read_blocks(folder) as blocks:
        return [rows_of(block) for block in blocks]


def by_number(folder: Path) -> list[list[list[Piece]]]:
    """The sequences one by one, as one block."""
    file = plan.PlanFile(folder)
    columns = [map(np.ndarray.tolist, file.sequence(number)) for number in range(len(file))]
    return [[[Piece(*piece) for piece in zip(*row, strict=True)] for row in columns]]


def describe(rows: list[list[Piece]], boundary_tokens: int = 0) -> dict[str, Any]:
    return plan.describe(plan.Totals().add(packed_of(rows)), 1000, boundary_tokens)


def test_each_block_is_a_record_batch(tmp_path: Path) -> None:
    """An empty block gives none."""
    one, two, three = [Piece(3, 0, 5), Piece(1, 7, 2)], [Piece(9, 4, 1)], [Piece(2, 0, 8)]
    totals = plan.write(tmp_path, map(packed_of, ([one, two], [], [three])))
    assert in_blocks(tmp_path) == [[one, two], [three]]
    assert by_number(tmp_path) == [[one, two, three]]
    assert (totals.sequences, totals.pieces, totals.tokens) == (3, 4, 16)


def test_describe_counts_by_hand() -> None:
    counts = describe([[Piece(0, 0, 1000)], [Piece(1, 0, 300), Piece(2, 0, 100)]])
    assert (counts["sequences"], counts["tokens"], counts["padding"], counts["pieces"]) == (
        2,
        1400,
        600,
        3,
    )
    assert counts["fill"] == 0.7


def test_a_length_beyond_32_bits_is_refused(tmp_path: Path) -> None:
    with pytest.raises(pa.ArrowInvalid, match="not in range"):
        plan.write(tmp_path, [packed_of([[Piece(0, 0, 1 << 31)]])])


def test_boundary_tokens_fill_a_sequence_and_are_counted_separately() -> None:
    counts = describe([[Piece(0, 0, 600), Piece(1, 0, 300)]], 4)
    assert (counts["tokens"], counts["marks"], counts["padding"], counts["fill"]) == (
        896,
        4,
        100,
        0.9,
    )


def test_an_empty_plan_is_described_by_zeros() -> None:
    counts = describe([])
    assert (counts["sequences"], counts["tokens"], counts["padding"], counts["fill"]) == (
        0,
        0,
        0,
        0.0,
    )
