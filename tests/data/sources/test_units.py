"""Units of a source by hand: ranges of a file, files in groups."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pyarrow as pa
import pytest

from ropewalk.data.sources import arrow, jsonl, units
from ropewalk.data.sources.units import Unit, group_units, grouped_by_size, split_ranges


@pytest.fixture(autouse=True)
def ten_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(units, "UNIT_BYTES", 10)


@pytest.mark.parametrize(
    ("sizes", "ranges"),
    [
        ([], [(0, None, 0)]),
        ([10], [(0, None, 10)]),
        ([9, 1], [(0, None, 10)]),
        ([9, 1, 4], [(0, 2, 10), (2, None, 4)]),
        ([9, 5, 4], [(0, 2, 14), (2, None, 4)]),
        ([30, 9, 9, 2], [(0, 1, 30), (1, 3, 18), (3, None, 2)]),
        ([10, 9, 1, 1], [(0, 1, 10), (1, 3, 10), (3, None, 1)]),
    ],
)
def test_a_range_ends_with_the_part_that_reaches_a_units_size(
    sizes: list[int], ranges: list[Any]
) -> None:
    assert list(split_ranges(sizes)) == ranges


def test_items_are_grouped_up_to_the_one_that_reaches_the_limit() -> None:
    groups = grouped_by_size([4, 5, 1, 10, 3, 9, 8, 1], lambda n: n, 10)
    assert list(groups) == [[4, 5, 1], [10], [3, 9], [8, 1]]
    assert list(grouped_by_size([], lambda n: n, 10)) == []


def test_whole_files_are_joined_and_parts_stay_alone() -> None:
    parts = [Unit(("big",), 12, 0, 3), Unit(("big",), 2, 3)]
    files = [Unit((name,), size) for name, size in zip("abcd", (6, 4, 1, 2), strict=True)]
    assert group_units([*files, *parts, Unit(("e",), 1)]) == [
        Unit(("a", "b"), 10), Unit(("c", "d"), 3), *parts, Unit(("e",), 1),
    ]  # fmt: skip
    assert [unit.is_whole for unit in (*parts, Unit(("e",), 1))] == [False, False, True]


def test_an_arrow_file_whose_batches_are_not_looked_at_is_one_unit_of_its_size(
    tmp_path: Path,
) -> None:
    """Of a remote one every byte would be read."""
    table = pa.table({"text": ["a", "b"]})
    with pa.OSFile(str(tmp_path / "a"), "wb") as sink, pa.ipc.new_file(sink, table.schema) as out:
        out.write_table(table)
    size = (tmp_path / "a").stat().st_size
    mapped: Any = SimpleNamespace(open_arrow=lambda name: pa.memory_map(str(tmp_path / name)))
    (unit,) = arrow.split(mapped, "a", size)
    assert unit.is_whole and unit.size == table.nbytes != size
    with (tmp_path / "a").open("rb") as file:
        remote: Any = SimpleNamespace(open_arrow=lambda name: pa.PythonFile(file, "r"))
        assert arrow.split(remote, "a", size) == [Unit(("a",), size)]


@pytest.mark.parametrize(
    ("size", "parts"),
    [
        (10, [(10, 0, None)]),
        (11, [(10, 0, 10), (1, 10, None)]),
        (20, [(10, 0, 10), (10, 10, None)]),
        (25, [(10, 0, 10), (10, 10, 20), (5, 20, None)]),
    ],
)
def test_lines_are_read_in_ranges_of_a_units_bytes(
    tmp_path: Path, size: int, parts: list[Any]
) -> None:
    (tmp_path / "a.jsonl").write_bytes(b"x" * size)
    place: Any = SimpleNamespace(open=lambda name: (tmp_path / name).open("rb"))
    made = jsonl.split(place, "a.jsonl", size)
    assert [(unit.size, unit.start, unit.stop) for unit in made] == parts
    for name in ("a.jsonl.gz", "a.ndjson.zst"):
        assert jsonl.split(place, name, size) == [Unit((name,), size)]
    (tmp_path / "a.json").write_bytes(b"\xef\xbb\xbf \n[" + b"x" * size)
    assert jsonl.split(place, "a.json", size) == [Unit(("a.json",), size)]
