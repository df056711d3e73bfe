"""A JSON array of rows equals `json.loads`, in little memory; damage is counted."""

import gzip
import io
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ropewalk.conf.sources import SourceConfig
from ropewalk.data import sources
from ropewalk.data.sources import json_array, units

Read = Any
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3)
    ),
    max_leaves=8,
)


class Slow(io.BytesIO):
    """Gives a few bytes at a time, so that chunk borders fall everywhere."""

    def __init__(self, content: bytes, step: int) -> None:
        super().__init__(content)
        self.step = step

    def read(self, _: int | None = -1) -> bytes:
        return super().read(self.step)


@settings(max_examples=200, deadline=None)
@given(st.lists(JSON, max_size=5), st.integers(1, 9), st.sampled_from([None, 1, 40]), st.booleans())
def test_elements_equal_json_loads(
    rows: list[Any], step: int, indent: int | None, ascii_only: bool
) -> None:
    content = f" {json.dumps(rows, indent=indent, ensure_ascii=ascii_only)}\n".encode()
    assert [
        json.loads(row) for row in json_array.elements(Slow(content, step), 1 << 30)
    ] == json.loads(content)


@settings(deadline=None)
@given(st.lists(JSON, max_size=5), st.data())
def test_a_truncated_array_is_never_read_as_complete(rows: list[Any], data: Any) -> None:
    content = json.dumps(rows).encode()
    cut = content[: data.draw(st.integers(0, len(content) - 1))]
    with pytest.raises(ValueError):
        list(json_array.elements(Slow(cut, 3), 1 << 30))


@pytest.mark.parametrize("name", ["a.json", "a.json.gz"])
def test_array_is_read_and_its_bad_rows_are_counted(read: Read, tmp_path: Path, name: str) -> None:
    content = b'[{"text": "one"},\n {"text": null}, {"text": "caf\xe9"}, {"text": "a\tb"}, 7, '
    content += b'{"text": "two"}]\n'
    (tmp_path / name).write_bytes(gzip.compress(content) if name.endswith(".gz") else content)
    bad = {
        f"{name}:1": "no text",
        f"{name}:2": "not UTF-8",
        f"{name}:3": "malformed JSON",
        f"{name}:4": "not an object",
    }
    assert read(tmp_path) == ({f"{name}:0": "one", f"{name}:5": "two"}, bad)


@pytest.mark.parametrize(
    "rest",
    [
        b"",
        b', {"text": "tw',
        b", }",
        b"]]",
        b'] [{"text": "two"}]',
        b' {"text": "two"}]',
        b", " + b"[" * 200_000,
    ],
)
def test_a_damaged_array_keeps_the_rows_before_the_damage(
    read: Read, tmp_path: Path, rest: bytes
) -> None:
    (tmp_path / "a.json").write_bytes(b'[{"text": "one"}' + rest)
    assert read(tmp_path) == ({"a.json:0": "one"}, {"a.json:1": "file: malformed JSON array"})


def test_empty_array_has_no_document(read: Read, tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text("[ ]")
    (tmp_path / "b.json").write_text('{"text": "one"}')
    assert read(tmp_path) == ({"b.json@0": "one"}, {})


def test_long_array_is_one_unit_and_long_lines_are_many(
    read: Read, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(units, "UNIT_BYTES", 50)
    rows = [{"text": f"row {i}"} for i in range(20)]
    (tmp_path / "a.json").write_bytes(b"\xef\xbb\xbf" + json.dumps(rows).encode())
    (tmp_path / "b.json").write_text("".join(json.dumps(row) + "\n" for row in rows))
    files = [u.files for u in sources.list_source(SourceConfig(path=str(tmp_path)), "mine").units]
    assert files.count(("a.json",)) == 1 and files.count(("b.json",)) > 5
    good, bad = read(tmp_path)
    assert (sorted(good.values()), bad) == (sorted(2 * [row["text"] for row in rows]), {})


def test_malformed_arrays_are_refused_before_all_is_in_memory() -> None:
    file = io.BytesIO(b'[{"a": 1], ' + b'{"a": "b"}, ' * (1 << 20))
    with pytest.raises(ValueError):
        list(json_array.elements(file, 1 << 30))
    assert file.tell() <= 1 << 20


def test_memory_holds_only_the_longest_element() -> None:
    import tracemalloc

    content = b"[" + b",".join([json.dumps({"text": "x" * 100_000}).encode()] * 300) + b"]"
    tracemalloc.start()
    assert sum(1 for _ in json_array.elements(io.BytesIO(content), 1 << 30)) == 300
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < len(content) / 4
