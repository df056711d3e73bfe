"""A source whose first rows hold no document is told; pyarrow and json write the rows."""

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ropewalk.conf.sources import SourceConfig
from ropewalk.data import sources


def problems(path: Path, **settings: str) -> list[str]:
    listing = sources.list_source(SourceConfig(path=str(path), **settings), "mine")
    return sources.first_row_problems(listing, "mine", str(path))


def write(folder: Path, form: str, key: str, values: list[object], name: str = "a") -> Path:
    folder.mkdir(exist_ok=True)
    if form == "parquet":
        pq.write_table(pa.table({key: values}), folder / f"{name}.parquet")
    else:
        rows = "\n".join(json.dumps({key: value}) for value in values)
        (folder / f"{name}.jsonl").write_text(rows)
    return folder


@pytest.mark.parametrize("form", ["parquet", "jsonl"])
def test_a_key_that_no_row_has_is_told_with_the_setting(tmp_path: Path, form: str) -> None:
    folder = write(tmp_path / "rows", form, "content", ["one", "two"])
    reason = {"parquet": "no column text: 2", "jsonl": "no text: 2"}[form]
    assert problems(folder) == [
        f"data.sources.mine.path is {folder}; its first 2 rows hold no document ({reason}); set "
        "data.sources.mine.text_key (or template) to columns of text that they have"
    ]
    assert problems(folder, text_key="content") == []
    assert "sources.mine.template to" in problems(folder, template="{content}{x}")[0]


@pytest.mark.parametrize("form", ["parquet", "jsonl"])
def test_values_that_are_no_text_are_told(tmp_path: Path, form: str) -> None:
    (line,) = problems(write(tmp_path / "rows", form, "text", [["one"], ["two"]]))
    assert "(text is not text: 2); set data.sources.mine.text_key" in line


def test_damage_needs_no_other_key(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text("{'text': 'one'}\n" * 3)
    (line,) = problems(tmp_path)
    assert line.endswith("its first 3 rows hold no document (malformed JSON: 3); mend the files")


def test_one_document_among_the_first_rows_is_enough(tmp_path: Path) -> None:
    folder = write(tmp_path / "rows", "parquet", "other", ["one"] * 5000)
    write(folder, "parquet", "text", ["two"], name="b")
    assert problems(folder) == []
    assert problems(write(tmp_path / "lines", "jsonl", "text", [None] * 999 + ["one"])) == []


def test_a_look_is_bounded(tmp_path: Path) -> None:
    (line,) = problems(write(tmp_path / "rows", "jsonl", "text", [None] * 1000 + ["one"]))
    assert "its first 1000 rows hold no document (no text: 1000)" in line


def test_files_of_text_are_read_by_the_stage(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text(" ")
    assert problems(tmp_path) == []
