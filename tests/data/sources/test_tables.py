"""Parquet and Arrow: rows are documents, bad files are counted, and no damage ends the process."""

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ropewalk.conf.errors import DataError
from ropewalk.conf.sources import SourceConfig
from ropewalk.data import sources
from ropewalk.data.sources import tables, units

Read = Any


def test_parquet_rows_are_documents_and_refusals(read: Read, tmp_path: Path) -> None:
    pq.write_table(
        pa.table({"text": ["one", None, "", "two"], "other": [1, 2, 3, 4]}), tmp_path / "a.parquet"
    )
    assert read(tmp_path) == (
        {"a.parquet:0": "one", "a.parquet:3": "two"},
        {"a.parquet:1": "no text", "a.parquet:2": "empty"},
    )


def no_column(path: Path) -> None:
    pq.write_table(pa.table({"body": ["a"]}), path)


def numbers(path: Path) -> None:
    pq.write_table(pa.table({"text": [1]}), path)


def garbage(path: Path) -> None:
    path.write_bytes(b"PAR1 but not really PAR1")


def truncated(path: Path) -> None:
    pq.write_table(pa.table({"text": ["a" * 100] * 100}), path)
    path.write_bytes(path.read_bytes()[:-20])


def damaged_page(path: Path) -> None:
    pq.write_table(pa.table({"text": [f"row {i}" for i in range(500)]}), path)
    content = bytearray(path.read_bytes())
    content[4:60] = b"\xff" * 56
    path.write_bytes(content)


def not_utf8(path: Path) -> None:
    buffers = [None, pa.py_buffer(np.array([0, 2], "int32").tobytes()), pa.py_buffer(b"\xff\xfe")]
    pq.write_table(pa.table({"text": pa.Array.from_buffers(pa.string(), 1, buffers)}), path)


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (no_column, "no column text"),
        (numbers, "text is not text"),
        (garbage, "file: damaged parquet"),
        (truncated, "file: damaged parquet"),
        (damaged_page, "damaged parquet"),
        (not_utf8, "not UTF-8"),
    ],
)
def test_bad_parquet_is_counted_and_the_next_file_is_read(
    read: Read, tmp_path: Path, make: Callable[[Path], None], reason: str
) -> None:
    make(tmp_path / "a.parquet")
    pq.write_table(pa.table({"text": ["good"]}), tmp_path / "b.parquet")
    good, bad = read(tmp_path)
    assert list(bad.values()) == [reason]
    assert good == {"b.parquet:0": "good"}


def two_columns(path: Path) -> None:
    pq.write_table(pa.Table.from_arrays([pa.array(["a"])] * 2, ["text", "text"]), path)


def test_two_columns_of_one_name_are_refused(read: Read, tmp_path: Path) -> None:
    two_columns(tmp_path / "a.parquet")
    assert read(tmp_path) == ({}, {"a.parquet": "two columns text"})


TEXTS = [f"row {i} " + "x" * (i % 7) for i in range(200)]


def stream(path: Path, rows: int = 10, **options: Any) -> None:
    table = pa.table({"text": TEXTS, "n": list(range(len(TEXTS)))})
    with (
        pa.OSFile(str(path), "wb") as sink,
        pa.ipc.new_stream(sink, table.schema, **options) as writer,
    ):
        writer.write_table(table, max_chunksize=rows)


def ipc_file(path: Path) -> None:
    table = pa.table({"text": TEXTS})
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, table.schema) as writer:
        writer.write_table(table, max_chunksize=10)


def squeezed(path: Path) -> None:
    stream(path, options=pa.ipc.IpcWriteOptions(compression="zstd"))


def groups(path: Path) -> None:
    pq.write_table(pa.table({"text": TEXTS}), path, row_group_size=10)


@pytest.mark.parametrize(
    ("make", "name"),
    [(stream, "a.arrow"), (ipc_file, "a.arrow"), (squeezed, "a.arrow"), (groups, "a.parquet")],
    ids=["stream", "file", "compressed stream", "parquet"],
)
@pytest.mark.parametrize("size", [1, 100, 700, 1 << 30])
def test_parts_give_the_rows_of_the_full_file(
    read: Read,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    make: Callable[[Path], None],
    name: str,
    size: int,
) -> None:
    make(tmp_path / name)
    monkeypatch.setattr(units, "UNIT_BYTES", size)
    count = len(sources.list_source(SourceConfig(path=str(tmp_path)), "mine").units)
    assert count == {1: 20, 1 << 30: 1}.get(size, count) and (size > 700 or count > 1)
    assert read(tmp_path) == ({f"{name}:{i}": text for i, text in enumerate(TEXTS)}, {})


def test_a_missing_column_is_counted_once_for_all_parts_of_a_file(
    read: Read, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stream(tmp_path / "a.arrow")
    groups(tmp_path / "b.parquet")
    monkeypatch.setattr(units, "UNIT_BYTES", 1)
    for kind, name in (("arrow", "a.arrow"), ("parquet", "b.parquet")):
        assert read(tmp_path, kind, text_key="body") == ({}, {name: "no column body"})


@pytest.mark.parametrize(
    "kind",
    [pa.string(), pa.large_string(), pa.string_view(), pa.dictionary(pa.int8(), pa.string())],
)
def test_every_kind_of_text_column_is_read(read: Read, tmp_path: Path, kind: pa.DataType) -> None:
    table = pa.table({"text": pa.array(["one", None, "two"]).cast(kind)})
    with (
        pa.OSFile(str(tmp_path / "a.arrow"), "wb") as sink,
        pa.ipc.new_stream(sink, table.schema) as writer,
    ):
        writer.write_table(table)
    assert read(tmp_path) == ({"a.arrow:0": "one", "a.arrow:2": "two"}, {"a.arrow:1": "no text"})


def test_truncated_arrow_is_counted_also_between_two_batches(read: Read, tmp_path: Path) -> None:
    """Arrow itself reads the second as complete."""
    path = tmp_path / "a.arrow"
    stream(path)
    content = path.read_bytes()
    path.write_bytes(content[:-8])
    assert pa.ipc.open_stream(path.read_bytes()).read_all().num_rows == 200
    assert read(tmp_path) == (
        {f"a.arrow:{i}": t for i, t in enumerate(TEXTS)},
        {"a.arrow:200": "file: damaged arrow"},
    )
    path.write_bytes(content[: len(content) // 2])
    good, bad = read(tmp_path)
    assert 0 < len(good) < 200 and bad == {f"a.arrow:{len(good)}": "file: damaged arrow"}


@pytest.mark.parametrize(
    "content", [b"", b"ARROW1", b"plain text", b"ARROW1\0\0" + b"\xff" * 100], ids=range(4)
)
def test_other_content_in_an_arrow_file_is_counted(
    read: Read, tmp_path: Path, content: bytes
) -> None:
    (tmp_path / "a.arrow").write_bytes(content)
    assert read(tmp_path) == ({}, {"a.arrow:0": "file: damaged arrow"})


def test_offsets_out_of_range_are_counted_and_do_not_crash_the_process(
    read: Read, tmp_path: Path
) -> None:
    path = tmp_path / "a.arrow"
    stream(path, rows=200)
    content = bytearray(path.read_bytes())
    offsets = np.cumsum([0, *map(len, TEXTS)]).astype("<i4").tobytes()
    start = content.index(offsets)
    content[start + 40 : start + 44] = (1 << 30).to_bytes(4, "little")
    path.write_bytes(content)
    assert read(tmp_path) == ({}, {"a.arrow:0": "file: damaged arrow"})


def test_a_text_that_is_not_utf8_does_not_lose_its_neighbours(read: Read, tmp_path: Path) -> None:
    buffers = [
        None,
        pa.py_buffer(np.array([0, 1, 3, 4], "int32").tobytes()),
        pa.py_buffer(b"a\xff\xfeb"),
    ]
    table = pa.table({"text": pa.Array.from_buffers(pa.string(), 3, buffers)})
    with (
        pa.OSFile(str(tmp_path / "a.arrow"), "wb") as sink,
        pa.ipc.new_stream(sink, table.schema) as writer,
    ):
        writer.write_table(table)
    assert read(tmp_path) == ({"a.arrow:0": "a", "a.arrow:2": "b"}, {"a.arrow:1": "not UTF-8"})


def saved(folder: Path, count: int = 30) -> None:
    from datasets import Dataset

    Dataset.from_dict({"text": TEXTS[:count]}).save_to_disk(str(folder), num_shards=3)


def test_a_saved_dataset_equals_the_one_that_datasets_loads(read: Read, tmp_path: Path) -> None:
    from datasets import load_from_disk

    saved(tmp_path / "one")
    loaded = load_from_disk(str(tmp_path / "one"))
    loaded.map(lambda row: {"text": row["text"] + " mapped"})  # leaves cache-*.arrow in the folder
    assert list((tmp_path / "one").glob("cache-*.arrow"))
    good, bad = read(tmp_path / "one")
    assert (list(good.values()), bad) == (loaded["text"][:], {})
    assert "data-00000-of-00003.arrow:0" in good


def test_a_split_of_a_saved_dictionary_is_selected_by_name(read: Read, tmp_path: Path) -> None:
    from datasets import Dataset, DatasetDict

    splits = {
        "train": Dataset.from_dict({"text": ["a", "b"]}),
        "test": Dataset.from_dict({"text": ["c"]}),
    }
    DatasetDict(splits).save_to_disk(str(tmp_path / "two"))
    assert list(read(tmp_path / "two", split="test")[0].values()) == ["c"]
    for split in (None, "dev"):
        with pytest.raises(
            DataError,
            match=r"mine\.split is (not set|dev); .* which has 2; set it to one of train, test",
        ):
            read(tmp_path / "two", split=split)
    DatasetDict({"train": splits["train"]}).save_to_disk(str(tmp_path / "one"))
    assert list(read(tmp_path / "one")[0].values()) == ["a", "b"]


def test_split_of_a_dataset_without_splits_is_refused(read: Read, tmp_path: Path) -> None:
    saved(tmp_path / "one")
    with pytest.raises(DataError, match=r"mine\.split is train; .* has none; unset it"):
        read(tmp_path / "one", split="train")


def test_a_saved_dataset_without_a_listed_file_is_refused(read: Read, tmp_path: Path) -> None:
    saved(tmp_path / "one")
    (tmp_path / "one" / "data-00001-of-00003.arrow").unlink()
    with pytest.raises(
        DataError, match="state.json names data-00001-of-00003.arrow, which is missing"
    ):
        read(tmp_path / "one")


@pytest.mark.parametrize(
    "state",
    ["{", "{}", "[]", '{"_data_files": 3}', '{"_data_files": [{"filename": "../../etc/x"}]}'],
)
def test_a_malformed_state_file_is_refused(read: Read, tmp_path: Path, state: str) -> None:
    saved(tmp_path / "one")
    (tmp_path / "one" / "state.json").write_text(state)
    with pytest.raises(DataError, match="save the dataset again"):
        read(tmp_path / "one")


def test_rows_in_memory_are_few(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A record batch of books is read a few rows at a time."""
    stream(tmp_path / "a.arrow", rows=200)
    seen: list[int] = []
    real = tables._values
    monkeypatch.setattr(tables, "_values", lambda c, size: seen.append(len(c)) or real(c, size))
    source = SourceConfig(path=str(tmp_path))
    listing = sources.list_source(source, "mine")
    next(iter(listing.documents(listing.units[0])))
    assert seen == [tables.ROWS]


def counts(path: Path, **settings: Any) -> dict[str, int]:
    """Refused documents by reason."""
    source, result = SourceConfig(path=str(path), **settings), Counter[str]()
    listing = sources.list_source(source, "mine")
    for item in (item for unit in listing.units for item in listing.documents(unit)):
        result[getattr(item, "reason", "read")] += getattr(item, "count", 1)
    return dict(result)


@pytest.mark.parametrize("size", [1, 1 << 30])
@pytest.mark.parametrize(
    ("make", "name"),
    [(stream, "a.arrow"), (ipc_file, "a.arrow"), (groups, "a.parquet")],
    ids=["stream", "file", "parquet"],
)
def test_a_file_without_the_column_counts_all_its_rows_once(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    make: Callable[[Path], None],
    name: str,
    size: int,
) -> None:
    make(tmp_path / name)
    monkeypatch.setattr(units, "UNIT_BYTES", size)
    assert counts(tmp_path, text_key="body") == {"no column body": 200}
    pq.write_table(pa.table({"other": pa.array([], pa.string())}), tmp_path / "none.parquet")
    assert counts(tmp_path / "none.parquet") == {"no column text": 1}


@pytest.mark.parametrize("size", [1, 500, 1 << 30])
def test_damage_counts_the_lost_rows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, size: int
) -> None:
    path = tmp_path / "a.parquet"
    pq.write_table(
        pa.table({"text": TEXTS}), path, row_group_size=20, compression="none", use_dictionary=False
    )
    content = bytearray(path.read_bytes())
    column = pq.ParquetFile(path).metadata.row_group(5).column(0)
    content[column.data_page_offset : column.data_page_offset + 20] = b"\xff" * 20
    path.write_bytes(content)
    monkeypatch.setattr(units, "UNIT_BYTES", size)
    reasons = counts(tmp_path)
    assert sum(reasons.values()) == 200 and reasons["damaged parquet"] >= 20
    assert size > 1 or reasons["damaged parquet"] == 20  # a unit of one row group


def test_damage_is_located_by_the_first_row_group_of_its_unit(
    read: Read, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.parquet"
    table = pa.table({"text": TEXTS[:60]})
    pq.write_table(table, path, row_group_size=20, compression="none", use_dictionary=False)
    content, metadata = bytearray(path.read_bytes()), pq.ParquetFile(path).metadata
    for group in (0, 1):
        start = metadata.row_group(group).column(0).data_page_offset
        content[start : start + 20] = b"\xff" * 20
    path.write_bytes(content)
    monkeypatch.setattr(units, "UNIT_BYTES", 1)
    good, bad = read(tmp_path)
    assert list(good.values()) == TEXTS[40:60]
    assert bad == {"a.parquet": "damaged parquet", "a.parquet#1": "damaged parquet"}


def test_the_reason_begins_with_file_when_the_rows_are_unknown(tmp_path: Path) -> None:
    garbage(tmp_path / "a.parquet")
    assert counts(tmp_path) == {"file: damaged parquet": 1}
