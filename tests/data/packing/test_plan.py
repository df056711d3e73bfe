"""The plan: documents mixed and packed, written, and what the ledger says of it."""

import tracemalloc
from collections import Counter
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from pieces import Piece, packed_of, rows_of
from plans import pack_selections

from ropewalk.data.mixing.shares import Selection
from ropewalk.data.packing import plan
from ropewalk.data.packing.packers import PACKERS


def share_of(*takings: tuple[int, int, int]) -> Selection:
    """Each taking `(document, tokens, epoch)`."""
    index, taken, epoch = np.array(takings, dtype=np.int64).T
    return Selection(index, taken, epoch, index.astype(np.uint64), 1.0)


def test_build_numbers_documents_across_sources_and_keeps_every_token() -> None:
    shares = {"a": share_of((0, 5, 0), (1, 30, 0)), "b": share_of((0, 12, 0), (0, 12, 1))}
    rows = rows_of(pack_selections(shares, {"a": 0, "b": 2}, 16, 2, seed=0))
    tokens = Counter(
        (p.document, t) for row in rows for p in row for t in range(p.start, p.start + p.length)
    )
    wanted = (
        {(0, t): 1 for t in range(5)}
        | {(1, t): 1 for t in range(30)}
        | {(2, t): 2 for t in range(12)}
    )
    assert tokens == wanted


def test_build_depends_on_the_seed_alone() -> None:
    shares = {"a": share_of(*((i, 10 + i, 0) for i in range(40)))}
    first, again, other = (
        rows_of(pack_selections(shares, {"a": 0}, 64, 4, seed)) for seed in (0, 0, 1)
    )
    assert first == again != other


def peak_of(packer: str, documents: int) -> int:
    rng = np.random.default_rng(0)
    share = share_of(
        *((i, size, 0) for i, size in enumerate(rng.lognormal(7, 1.3, documents).astype(int) + 1))
    )
    tracemalloc.start()
    pack_selections({"a": share}, {"a": 0}, 32_768, 32, 0, packer=packer)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return peak


@pytest.mark.parametrize("packer", PACKERS)
def test_a_document_costs_some_numbers_not_python_objects(packer: str) -> None:
    """A tuple of four numbers takes 216 bytes by itself."""
    assert peak_of(packer, 14_000) - peak_of(packer, 4_000) <= 180 * 10_000


def test_written_plan_is_read_by_arrow_as_lists_of_structs(tmp_path: Path) -> None:
    plan.write(tmp_path, packed_of([[Piece(3, 0, 5), Piece(1, 7, 2)], [Piece(9, 4, 1)]]))
    assert rows_of(plan.read(tmp_path)) == [[(3, 0, 5), (1, 7, 2)], [(9, 4, 1)]]
    table = pa.ipc.open_file(pa.memory_map(str(tmp_path / "plan.arrow"))).read_all()
    assert table["pieces"].to_pylist() == [
        [{"document": 3, "start": 0, "length": 5}, {"document": 1, "start": 7, "length": 2}],
        [{"document": 9, "start": 4, "length": 1}],
    ]


def test_describe_counts_by_hand() -> None:
    told = plan.describe(
        packed_of([[Piece(0, 0, 1000)], [Piece(1, 0, 300), Piece(2, 0, 100)]]), 1000
    )
    assert (told["sequences"], told["tokens"], told["padding"], told["pieces"]) == (2, 1400, 600, 3)
    assert told["fill"] == 0.7


def test_a_length_that_arrow_cannot_hold_is_not_wrapped(tmp_path: Path) -> None:
    with pytest.raises(pa.ArrowInvalid, match="not in range"):
        plan.write(tmp_path, packed_of([[Piece(0, 0, 1 << 31)]]))


def test_marks_fill_a_sequence_and_are_told_apart() -> None:
    told = plan.describe(packed_of([[Piece(0, 0, 600), Piece(1, 0, 300)]]), 1000, 4)
    assert (told["tokens"], told["marks"], told["padding"], told["fill"]) == (896, 4, 100, 0.9)


def test_describe_of_nothing_is_zero_not_an_error() -> None:
    told = plan.describe(packed_of([]), 1000)
    assert (told["sequences"], told["tokens"], told["padding"], told["fill"]) == (0, 0, 0, 0.0)
