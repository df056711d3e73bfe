"""Rows joined by a column, against pandas' groupby of the same rows."""

import json
from pathlib import Path
from typing import Any

import pytest
from data_fixture import DataFixture

from ropewalk.conf.errors import ConfigError
from ropewalk.conf.sources import SourceConfig
from ropewalk.data.sources import Document, grouped, list_source, units

ROWS = [
    {"repo_name": f"org/{(7 * n) % 11}", "path": f"f{n}.py", "content": f"x = {n}\n" * (n % 5 + 1)}
    for n in range(80)
]


def write(folder: Path, rows: list[dict[str, Any]], files: int = 3) -> None:
    folder.mkdir()
    for number in range(files):
        part = rows[number::files]
        (folder / f"{number}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in part))


def by_pandas(rows: list[dict[str, Any]], files: int = 3) -> dict[str, str]:
    import pandas as pd

    in_order = [row for number in range(files) for row in rows[number::files]]
    return dict(pd.DataFrame(in_order).groupby("repo_name", sort=False)["content"].agg("\n\n".join))


@pytest.mark.parametrize("unit_bytes", [1 << 20, 512, 64])
def test_a_group_is_one_document_however_many_buckets_there_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, unit_bytes: int
) -> None:
    monkeypatch.setattr(units, "UNIT_BYTES", unit_bytes)
    write(tmp_path / "rows", ROWS)
    source = SourceConfig(path=str(tmp_path / "rows"), text_key="content", group_by="repo_name")
    listing = grouped(list_source(source, "code"), tmp_path / "cache")
    items = [item for unit in listing.units for item in listing.documents(unit)]
    made = {item.id: item.text for item in items if isinstance(item, Document)}
    assert len(made) == len(items) == 11 and made == by_pandas(ROWS)
    assert (len(listing.units) > 1) == (unit_bytes < 1 << 20)


def test_rows_without_a_group_are_refused_and_counted(data_fixture: DataFixture) -> None:
    rows = [*ROWS, {"content": "alone"}, {"repo_name": "org/1", "content": None}]
    write(data_fixture.folder / "code", rows)
    words = ["data.sources.code.text_key=content", "data.sources.code.group_by=repo_name"]
    result = data_fixture.run(*words, sources=("notes", "code"))
    row = result.ledger["sources"]["code"]
    assert (row["documents"], row["refused"]) == (11, {"no content": 1, "no repo_name": 1})
    again = data_fixture.run(*words, sources=("notes", "code"))
    assert "skipped" in again.message
    whole = data_fixture.run(words[0], sources=("notes", "code"))
    assert whole.ledger["sources"]["code"]["documents"] == 81


def test_a_group_has_its_own_id(data_fixture: DataFixture) -> None:
    with pytest.raises(ConfigError, match=r"id_key is n; with data\.sources\.books\.group_by the"):
        data_fixture.config("data.sources.books.group_by=g", "data.sources.books.id_key=n")
