"""A text in pieces is sliced as a string; documents above the limit are refused by reason."""

import gzip
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ropewalk.conf.sources import SourceConfig
from ropewalk.data import sources
from ropewalk.data.sources import Document, json_row, long_text, tables, text, units
from ropewalk.data.sources.long_text import LongText

LARGE = "above data.max_document_bytes"


@given(st.lists(st.text("aé😀", max_size=5), max_size=6), st.data())
def test_slices_and_lengths_are_those_of_the_joined_text(pieces: list[str], data: Any) -> None:
    full, pieced = "".join(pieces), LongText(pieces)
    low, high = (data.draw(st.integers(0, len(full) + 2)) for _ in range(2))
    assert (len(pieced), str(pieced), pieced[low:high]) == (len(full), full, full[low:high])


def write(folder: Path, kind: str, texts: list[str]) -> Path:
    """A file of the kind with these texts; the path of the source."""
    rows = [{"text": value} for value in texts]
    path = folder / f"a.{kind}"
    if kind == "parquet":
        pq.write_table(pa.Table.from_pylist(rows), path)
    elif kind == "arrow":
        with pa.ipc.new_file(path, pa.schema({"text": pa.string()})) as writer:
            writer.write_table(pa.Table.from_pylist(rows))
    elif kind == "json":
        path.write_text(json.dumps(rows))
    else:
        lines = "".join(json.dumps(row) + "\n" for row in rows).encode()
        path.write_bytes(gzip.compress(lines) if kind.endswith("gz") else lines)
    return path


def read(path: Path, limit: int) -> tuple[list[Any], list[str]]:
    listing = sources.list_source(SourceConfig(path=str(path)), "mine", limit)
    items = [item for unit in listing.units for item in listing.documents(unit)]
    good = [item.text for item in items if isinstance(item, Document)]
    return good, [item.reason for item in items if not isinstance(item, Document)]


@pytest.mark.parametrize("kind", ["jsonl", "jsonl.gz", "parquet", "arrow"])
def test_a_row_above_the_limit_is_refused_and_the_next_is_read(tmp_path: Path, kind: str) -> None:
    path = write(tmp_path, kind, ["one", "é" * 100, "two"])
    assert read(path, 150) == (["one", "two"], [LARGE])
    assert len(read(path, 700)[0]) == 3


@pytest.mark.parametrize(("name", "limit"), [("a.txt", 80), ("a.html", 80), ("tree/a.py", 100)])
def test_a_file_above_the_limit_is_refused(tmp_path: Path, name: str, limit: int) -> None:
    """Of 80 bytes; a tree's document has the file's name besides."""
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).write_text("é" * 40)
    assert read(tmp_path, 79) == ([], [LARGE])
    assert len(read(tmp_path, limit)[0]) == 1


def test_an_array_ends_at_an_element_above_the_limit(tmp_path: Path) -> None:
    path = write(tmp_path, "json", ["one", "x" * (3 << 20), "two"])
    assert read(path, 1 << 20) == (["one"], [f"file: a row {LARGE}"])


def test_lines_longer_than_a_unit_are_read_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(units, "UNIT_BYTES", 64)
    monkeypatch.setattr("ropewalk.data.sources.jsonl.PIECE", 8)
    texts = ["a" * 300, "b", "c" * 64, "d" * 63, "e" * 1000, "f"]
    assert read(write(tmp_path, "jsonl", texts), 1 << 20) == (texts, [])
    assert read(tmp_path / "a.jsonl", 320)[1] == [LARGE]


@pytest.mark.parametrize("kind", ["jsonl", "parquet", "arrow"])
def test_long_texts_are_in_pieces_of_their_own_width(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    for module in (long_text, json_row, tables):
        monkeypatch.setattr(module, "PIECE", 64)
        monkeypatch.setattr(module, "LONG", 100)
    texts = ["short", 'é😀日\\"\n' * 50, "y" * 1000]
    good, bad = read(write(tmp_path, kind, texts), 1 << 20)
    assert ([str(text) for text in good], bad) == (texts, [])
    assert [isinstance(text, LongText) for text in good] == [False, True, True]
    assert all(len(piece.encode()) < 64 + 4 for piece in good[1].pieces)


def test_a_long_text_file_is_in_pieces(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(text, "PIECE", 7)
    monkeypatch.setattr(long_text, "LONG", 20)
    content = "é日😀x" * 30
    (tmp_path / "a.txt").write_text("\ufeff" + content)
    good, _ = read(tmp_path, 1 << 20)
    assert isinstance(good[0], LongText) and str(good[0]) == content
    (tmp_path / "a.txt").write_bytes(content.encode()[:-3] + "é".encode()[:1])
    assert read(tmp_path, 1 << 20) == ([], ["not UTF-8"])
