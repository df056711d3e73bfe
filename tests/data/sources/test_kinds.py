"""The kind that `kind=auto` takes from file names."""

import gzip
import json
from pathlib import Path
from typing import Any

import pytest

from ropewalk.conf.errors import DataError
from ropewalk.conf.sources import SourceConfig
from ropewalk.data import sources

Read = Any
LINES = b'{"text": "one"}\n{"text": "two"}\n'


def write_files(folder: Path, names: list[str]) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        content = b"code()\n" if name.endswith((".py", ".js", "rows.csv")) else LINES
        (folder / name).write_bytes(gzip.compress(content) if name.endswith(".gz") else content)


def kind_of(path: Path) -> str:
    return sources.list_source(SourceConfig(path=str(path)), "mine").kind


@pytest.mark.parametrize("name", ["a.json", "a.ndjson", "a.json.gz", "a.ndjson.gz"])
@pytest.mark.parametrize("alone", [True, False])
def test_rows_are_recognised_by_every_suffix(
    read: Read, tmp_path: Path, name: str, alone: bool
) -> None:
    write_files(tmp_path, [name])
    assert read(tmp_path / name if alone else tmp_path) == (
        {f"{name}@0": "one", f"{name}@16": "two"},
        {},
    )


def test_rows_in_json_packed_as_zstd(read: Read, tmp_path: Path) -> None:
    zstandard = pytest.importorskip("zstandard", reason="the optional zstd reader is not installed")
    (tmp_path / "a.json.zst").write_bytes(zstandard.compress(LINES))
    assert list(read(tmp_path)[0].values()) == ["one", "two"]


@pytest.mark.parametrize(
    ("names", "kind"),
    [
        (["a.json", "b.json.gz"], "jsonl"),
        (["a.json", "b.jsonl"], "jsonl"),
        (["README.md", "train/a.json"], "jsonl"),
        (["README.md", "a.jsonl"], "jsonl"),
        (["README.md"], "text"),
        (["package.json", "index.js"], "tree"),
        (["p/package.json", "p/README.md", "p/index.js"], "tree"),
        (["rows.csv", "load.py"], "tree"),
        (["a.json", "b.txt"], "tree"),
    ],
)
def test_json_alone_is_rows_and_next_to_code_is_code(
    tmp_path: Path, names: list[str], kind: str
) -> None:
    write_files(tmp_path, names)
    assert kind_of(tmp_path) == kind


def test_metadata_of_datasets_is_not_read_as_rows(read: Read, tmp_path: Path) -> None:
    write_files(tmp_path, ["a.json", "b.jsonl"])
    (tmp_path / "dataset_infos.json").write_text(json.dumps({"default": {}}, indent=2))
    good, bad = read(tmp_path)
    assert (len(good), bad) == (4, {})


IDS = (
    "write its text as jsonl or parquet, or for token ids set kind=memmap, or kind=indexed for "
    "Megatron's"
)


@pytest.mark.parametrize(
    ("name", "way_out"),
    [
        ("a.csv", "write its text as jsonl or parquet"),
        ("A.CSV", "write its text as jsonl or parquet"),
        ("a.tsv", "write its text as jsonl or parquet"),
        ("a.xlsx", "write its text as jsonl or parquet"),
        ("a.pkl", "write its text as jsonl or parquet"),
        ("a.npy", IDS),
        ("a.bin", IDS),
        ("a.safetensors", "write its text as jsonl or parquet"),
        ("a.pdf", "write its text as .txt files or jsonl"),
        ("a.docx", "write its text as .txt files or jsonl"),
        ("a.epub", "write its text as .txt files or jsonl"),
        ("a.zip", "unpack it"),
        ("a.tar.gz", "unpack it"),
        ("a.txt.gz", "unpack it"),
    ],
)
@pytest.mark.parametrize(
    "others", [[], ["README.md"], ["b.json"], None], ids=["folder", "readme", "json", "file"]
)
def test_unreadable_suffixes_are_refused_with_the_way_out(
    tmp_path: Path, name: str, way_out: str, others: list[str] | None
) -> None:
    write_files(tmp_path, [name, *(others or [])])
    suffix = "." + name.lower().rsplit(".", 1)[1]
    pattern = "" if others is None else rf" and data\.sources\.mine\.pattern=\*\{suffix}"
    message = (
        rf"^data\.sources\.mine\.kind is auto; .* holds \{suffix}, which no kind reads; {way_out}, "
        rf"or set data\.sources\.mine\.kind=text{pattern} to take it as it is$"
    )
    with pytest.raises(DataError, match=message):
        kind_of(tmp_path / name if others is None else tmp_path)


def test_the_way_out_of_the_message_works(read: Read, tmp_path: Path) -> None:
    write_files(tmp_path, ["a.csv", "README.md"])
    assert read(tmp_path, "text", pattern="*.csv") == ({"a.csv": LINES.decode()}, {})
    assert read(tmp_path / "a.csv", "text") == ({"a.csv": LINES.decode()}, {})


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("A.JSONL", "jsonl"),
        ("a.NDJSON", "jsonl"),
        ("a.jsonlines", "jsonl"),
        ("a.JSON", "jsonl"),
        ("a.PARQUET", "parquet"),
        ("a.pq", "parquet"),
        ("a.ARROW", "arrow"),
        ("a.HTML", "html"),
        ("a.TXT", "text"),
        ("a.Md", "text"),
        ("a.markdown", "text"),
    ],
)
def test_the_case_of_a_suffix_does_not_matter(tmp_path: Path, name: str, kind: str) -> None:
    write_files(tmp_path, [name])
    assert kind_of(tmp_path) == kind_of(tmp_path / name) == kind


def test_what_writers_leave_behind_is_not_read_and_is_told(
    read: Read, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    leftovers = ["_SUCCESS", "_temporary/0/a.jsonl", "part-0.jsonl.crc", "_old/b.jsonl"]
    write_files(tmp_path, ["part-0.jsonl", "notes.csv", ".ipynb_checkpoints/a.jsonl", *leftovers])
    assert read(tmp_path) == ({"part-0.jsonl@0": "one", "part-0.jsonl@16": "two"}, {})
    line = "data.sources.mine: 5 of 6 files are not jsonl (2 .jsonl, 1 _SUCCESS, 1 .csv, 1 .crc)"
    assert sorted(capsys.readouterr().out.strip()) == sorted(line)


def test_texts_that_begin_with_an_underscore_are_read(read: Read, tmp_path: Path) -> None:
    write_files(tmp_path, ["_posts/a.md", "_SUCCESS"])
    assert list(read(tmp_path)[0]) == ["_posts/a.md"]
    write_files(tmp_path, ["package/__init__.py"])
    assert "package" in read(tmp_path)[0]


def test_a_source_without_a_known_suffix_is_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "a.log").write_text("a line\n")
    assert kind_of(tmp_path) == "tree"
    line = f"data.sources.mine.kind is auto: {tmp_path} is read as tree (1 .log)\n"
    assert capsys.readouterr().out == line


@pytest.mark.parametrize("name", ["a.log", "part-00000"])
@pytest.mark.parametrize("alone", [True, False])
def test_rows_under_an_unknown_suffix_are_refused_with_the_way_out(
    read: Read, tmp_path: Path, name: str, alone: bool
) -> None:
    write_files(tmp_path, [name])
    with pytest.raises(DataError, match=f"{name} holds JSON rows under a suffix that no kind has"):
        kind_of(tmp_path / name if alone else tmp_path)
    assert list(read(tmp_path, "jsonl", pattern=f"*{name[-4:]}")[0].values()) == ["one", "two"]
