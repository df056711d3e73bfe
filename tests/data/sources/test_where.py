"""Rows by value, against `datasets.Dataset.filter` on the same rows."""

import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from data_fixture import DataFixture

from ropewalk.conf.sources import SourceConfig
from ropewalk.data.sources import first_row_problems, list_source

SETS = ("RedPajamaBook", "RedPajamaC4", "RedPajamaArXiv")
ROWS = [
    {
        "text": f"text {number}",
        "stars": number % 4,
        "kept": number % 2 == 0,
        "meta": {"redpajama_set_name": SETS[number % 3], "language": "en"},
    }
    for number in range(60)
]
WHERE: list[tuple[dict[str, Any], Callable[[dict[str, Any]], bool]]] = [
    (
        {"meta.redpajama_set_name": "RedPajamaBook"},
        lambda row: row["meta"]["redpajama_set_name"] == "RedPajamaBook",
    ),
    (
        {"meta.redpajama_set_name": ["RedPajamaBook", "RedPajamaC4"], "stars": 3},
        lambda row: row["meta"]["redpajama_set_name"] != "RedPajamaArXiv" and row["stars"] == 3,
    ),
    ({"kept": True, "stars": "2"}, lambda row: row["kept"] and row["stars"] == 2),
    ({"stars": 9}, lambda row: row["stars"] == 9),
]


def write(folder: Path, form: str, rows: list[dict[str, Any]]) -> Path:
    folder.mkdir(exist_ok=True)
    table = pa.Table.from_pylist(rows)
    if form == "jsonl":
        (folder / "a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    elif form == "parquet":
        pq.write_table(table, folder / "a.parquet", row_group_size=7)
    elif form == "arrow":
        with pa.ipc.new_file(folder / "a.arrow", table.schema) as writer:
            writer.write_table(table, max_chunksize=7)
    else:
        datasets.Dataset.from_list(rows).to_parquet(folder / "train.parquet")
    return folder


@pytest.mark.parametrize("form", ["jsonl", "parquet", "arrow", "hub"])
@pytest.mark.parametrize(("where", "keeps"), WHERE)
def test_the_rows_are_those_of_datasets_filter(
    read: Any, tmp_path: Path, form: str, where: dict[str, Any], keeps: Any
) -> None:
    expected = datasets.Dataset.from_list(ROWS).filter(keeps, load_from_cache_file=False)["text"]
    kind = {"kind": "hub"} if form == "hub" else {}
    good, bad = read(write(tmp_path / "rows", form, ROWS), where=where, **kind)
    assert list(good.values()) == list(expected)
    assert Counter(bad.values()) == Counter({"outside where": 60 - len(expected)})


def test_a_row_without_the_field_is_refused_by_its_name(read: Any, tmp_path: Path) -> None:
    rows = [ROWS[0], {"text": "b", "meta": {}}, {"text": "c", "meta": None}, {"text": "d"}]
    folder = write(tmp_path / "rows", "jsonl", rows)
    good, bad = read(folder, where={"meta.redpajama_set_name": SETS[0]})
    assert list(good.values()) == ["text 0"]
    assert Counter(bad.values()) == {"no meta.redpajama_set_name": 3}


def test_first_rows_of_another_set_are_no_problem_and_a_wrong_column_is(tmp_path: Path) -> None:
    folder = str(write(tmp_path / "rows", "parquet", ROWS))
    other = SourceConfig(path=folder, where={"stars": 9})
    assert first_row_problems(list_source(other, "a"), "a", folder) == []
    wrong = SourceConfig(path=folder, where={"nope.x": 9})
    (line,) = first_row_problems(list_source(wrong, "a"), "a", folder)
    assert "no column nope: 60" in line


def test_the_ledger_counts_what_is_left_out_and_does_not_warn(data_fixture: DataFixture) -> None:
    texts = [path.read_text() for path in sorted((data_fixture.folder / "books").iterdir())]
    rows = [{"text": text, "part": n % 2} for n, text in enumerate(texts)]
    write(data_fixture.folder / "rows", "jsonl", rows)
    words = [f"data.sources.rows.path={data_fixture.folder / 'rows'}"]
    words += ["data.sources.rows.where={part: 1}"]
    result = data_fixture.run(*words, sources=("notes",))
    row = result.ledger["sources"]["rows"]
    assert (row["documents"], row["refused"]) == (15, {"outside where": 15})
    assert not any("cannot be read" in line for line in result.ledger["warnings"])
    again = data_fixture.run(*words, "data.sources.rows.where={part: 0}", sources=("notes",))
    assert again.folders.stores["rows"] != result.folders.stores["rows"]
    assert again.folders.stores["notes"].exists()
