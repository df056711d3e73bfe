"""From a row to a document: templates, ids and rows without a column, in JSON and in tables."""

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ropewalk.conf import sources
from ropewalk.data.sources.columns import Columns, usable
from ropewalk.data.sources.units import Document, Refusal

Read = Any
ROWS = [
    {"title": "One", "body": "first", "key": "a"},
    {"title": "Two", "body": None, "key": "b"},
    {"title": 3, "body": "third", "key": "c"},
]


def write(path: Path, rows: list[dict[str, Any]]) -> None:
    if path.suffix == ".jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    else:
        pq.write_table(pa.Table.from_pylist(rows), path)


def values(read: Read, path: Path, **settings: Any) -> tuple[list[str], list[str]]:
    good, bad = read(path, **settings)
    return list(good.values()), list(bad.values())


@pytest.mark.parametrize("name", ["a.jsonl", "a.parquet"])
def test_a_template_joins_columns_and_refuses_rows_without_one(
    read: Read, tmp_path: Path, name: str
) -> None:
    rows = ROWS[:2] if name == "a.parquet" else ROWS
    write(tmp_path / name, rows)
    good, bad = values(read, tmp_path, template="# {title}\n\n{{{body}}}, by {title}")
    assert good == ["# One\n\n{first}, by One"]
    assert bad == ["no body", "title is not text"][: len(rows) - 1]


@pytest.mark.parametrize("name", ["a.jsonl", "a.parquet"])
def test_id_key_names_documents(read: Read, tmp_path: Path, name: str) -> None:
    write(
        tmp_path / name,
        [{"text": "one", "n": 7}, {"text": "two", "n": 8}, {"text": "three", "n": None}],
    )
    assert read(tmp_path, id_key="n")[0] == {"7": "one", "8": "two"}
    assert values(read, tmp_path, id_key="n")[1] == ["no n"]
    assert values(read, tmp_path, id_key="id") == (
        [],
        ["no id"] * 3 if name == "a.jsonl" else ["no column id"],
    )


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (None, "no k"),
        ("", "no k"),
        (True, "k is not an id"),
        (1.5, "k is not an id"),
        (["a"], "k is not an id"),
    ],
)
def test_values_of_other_types_are_not_ids(value: Any, reason: str) -> None:
    assert Columns((("", "text"),), "k").document({"text": "a", "k": value}, "x:1") == Refusal(
        "x:1", reason
    )


def test_an_id_with_a_lone_surrogate_is_refused_under_an_escaped_name() -> None:
    item = usable(Document("a\ud800", "text"), 99)
    assert isinstance(item, Refusal) and item.reason == "lone surrogate" and item.where.encode()


def test_text_may_be_the_id_too() -> None:
    assert Columns((("", "text"),), "text").document({"text": "a"}, "x:1") == Document("a", "a")


@given(
    st.lists(
        st.one_of(st.text("{}ab\n"), st.sampled_from([("title",), ("a b",), ("x.y",)])), max_size=8
    )
)
def test_a_template_equals_str_format(parts: list[Any]) -> None:
    row = {"title": "T{}", "a b": "AB", "x.y": "XY"}
    template = "".join(
        f"{{{p[0]}}}" if isinstance(p, tuple) else p.replace("{", "{{").replace("}", "}}")
        for p in parts
    )
    expected = "".join(row[p[0]] if isinstance(p, tuple) else p for p in parts)
    if not any(isinstance(p, tuple) for p in parts):
        with pytest.raises(ValueError):
            sources.parts(template)
        return
    document = Columns(tuple(sources.parts(template))).document(row, "x:1")
    assert document == Document("x:1", expected)
    assert "." in template or expected == template.format(**row)
