"""Each bad input is counted under its reason; the good ones beside it are read; nothing raises a traceback."""

import gzip
import json
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ropewalk.conf.data import SourceConfig
from ropewalk.conf.errors import DataError
from ropewalk.data import documents
from ropewalk.data.documents import Document, Refusal


def read(root: Path, kind: str = "auto", **settings: str) -> tuple[dict[str, str], dict[str, str]]:
    """Texts by id, and reasons by place."""
    source = SourceConfig(path=str(root), kind=kind, **settings)  # type: ignore[arg-type]
    at = documents.root_of(source, "mine")
    found = documents.kind_of(source, at, "mine")
    items = list(documents.read(source, at, found, documents.files_of(source, at, found)))
    good = [i for i in items if isinstance(i, Document)]
    bad = [i for i in items if isinstance(i, Refusal)]
    assert len(good) + len(bad) == len(items) and len({d.id for d in good}) == len(good)
    return {d.id: d.text for d in good}, {r.where: r.reason for r in bad}


JSON_LINES = {
    "not UTF-8": b'{"text": "caf\xe9"}',
    "malformed JSON": b'{"text": "a"',
    "no text": b'{"body": "a"}',
    "text is not text": b'{"text": 7}',
    "empty": b'{"text": "  \\n"}',
    "lone surrogate": b'{"text": "a\\ud800b"}',
}


@pytest.mark.parametrize(("reason", "line"), JSON_LINES.items(), ids=JSON_LINES)
def test_bad_json_line_is_counted_and_the_next_is_read(tmp_path: Path, reason: str, line: bytes) -> None:
    (tmp_path / "a.jsonl").write_bytes(line + b'\n{"text": "good"}\n')
    assert read(tmp_path) == ({"a.jsonl:2": "good"}, {"a.jsonl:1": reason})


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ('{"text": null}', "no text"),
        ('["text"]', "no text"),
        ('"text"', "no text"),
        ('{"text": ["a"]}', "text is not text"),
        ('{"text": true}', "text is not text"),
        ("{'text': 'a'}", "malformed JSON"),
        ('{"text": ' + "1" * 5000 + "}", "malformed JSON"),
        pytest.param("[" * 200_000, "malformed JSON", id="nested too deep"),
    ],
)
def test_other_bad_json(tmp_path: Path, line: str, reason: str) -> None:
    (tmp_path / "a.jsonl").write_text(line + "\n")
    assert read(tmp_path) == ({}, {"a.jsonl:1": reason})


def test_blank_lines_are_no_documents(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('\n{"text": "one"}\n\n{"text": "two"}')
    assert read(tmp_path) == ({"a.jsonl:2": "one", "a.jsonl:4": "two"}, {})


def test_another_field_is_read_by_text_key(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"body": "one", "text": 1}\n{"text": "two"}\n')
    assert read(tmp_path, text_key="body") == ({"a.jsonl:1": "one"}, {"a.jsonl:2": "no body"})


def rows(count: int) -> bytes:
    rng = np.random.default_rng(0)
    return b"".join(json.dumps({"text": rng.bytes(200).hex()}).encode() + b"\n" for _ in range(count))


def test_gzip_is_read(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl.gz").write_bytes(gzip.compress(rows(3)))
    assert len(read(tmp_path)[0]) == 3


def test_truncated_gzip_keeps_what_came_before_and_counts_the_break(tmp_path: Path) -> None:
    whole = gzip.compress(rows(1000))
    (tmp_path / "a.jsonl.gz").write_bytes(whole[: len(whole) // 2])
    good, bad = read(tmp_path)
    assert 0 < len(good) < 1000
    assert bad == {f"a.jsonl.gz:{len(good) + 1}": "damaged gzip"}


def test_gzip_with_a_damaged_middle_is_counted(tmp_path: Path) -> None:
    whole = bytearray(gzip.compress(rows(1000)))
    whole[20:60] = b"\xff" * 40
    (tmp_path / "a.jsonl.gz").write_bytes(whole)
    assert list(read(tmp_path)[1].values()) == ["damaged gzip"]


def test_no_gzip_at_all_is_counted(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl.gz").write_bytes(b"plain text")
    assert read(tmp_path) == ({}, {"a.jsonl.gz:1": "damaged gzip"})


def test_zstd_is_read(tmp_path: Path) -> None:
    zstandard = pytest.importorskip("zstandard", reason="the optional zstd reader is not installed")
    (tmp_path / "a.jsonl.zst").write_bytes(zstandard.compress(rows(2)) + zstandard.compress(rows(3)))
    assert len(read(tmp_path)[0]) == 5


def test_damaged_zstd_is_counted(tmp_path: Path) -> None:
    pytest.importorskip("zstandard", reason="the optional zstd reader is not installed")
    (tmp_path / "a.jsonl.zst").write_bytes(b"plain text, no frame")
    assert read(tmp_path) == ({}, {"a.jsonl.zst:1": "damaged zstd"})


def test_truncated_zstd_does_not_lose_documents_in_silence(tmp_path: Path) -> None:
    zstandard = pytest.importorskip("zstandard", reason="the optional zstd reader is not installed")
    whole = zstandard.compress(rows(1000))
    (tmp_path / "a.jsonl.zst").write_bytes(whole[: len(whole) // 2])
    assert "damaged zstd" in read(tmp_path)[1].values()


def test_zstd_without_its_package_names_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "zstandard", None)
    (tmp_path / "a.jsonl.zst").write_bytes(b"anything")
    with pytest.raises(DataError, match=r"pip install 'ropewalk\[zstd\]'"):
        read(tmp_path)


def test_parquet_rows_are_documents_and_refusals(tmp_path: Path) -> None:
    pq.write_table(pa.table({"text": ["one", None, "", "two"], "other": [1, 2, 3, 4]}), tmp_path / "a.parquet")
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
        (garbage, "damaged parquet"),
        (truncated, "damaged parquet"),
        (damaged_page, "damaged parquet"),
        (not_utf8, "not UTF-8"),
    ],
)
def test_bad_parquet_is_counted_and_the_next_file_is_read(
    tmp_path: Path, make: Callable[[Path], None], reason: str
) -> None:
    make(tmp_path / "a.parquet")
    pq.write_table(pa.table({"text": ["good"]}), tmp_path / "b.parquet")
    good, bad = read(tmp_path)
    assert list(bad.values()) == [reason]
    assert good == {"b.parquet:0": "good"}


def test_bad_text_files_are_counted(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes(b"caf\xe9")
    (tmp_path / "b.txt").write_bytes(b" \n")
    (tmp_path / "c.txt").write_text("good")
    assert read(tmp_path) == ({"c.txt": "good"}, {"a.txt": "not UTF-8", "b.txt": "empty"})


KINDS = ["text", "tree", "jsonl", "parquet"]
END = {"text": ".txt", "tree": ".txt", "jsonl": ".jsonl", "parquet": ".parquet"}


@pytest.mark.parametrize("kind", KINDS)
def test_link_that_leaves_the_folder_is_refused(tmp_path: Path, kind: str) -> None:
    (tmp_path / "secret").write_text("secret")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / f"a{END[kind]}").symlink_to(tmp_path / "secret")
    assert read(tmp_path / "mine", kind) == ({}, {f"a{END[kind]}": "link leaves the folder"})


def test_link_into_the_folder_is_read(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("good")
    (tmp_path / "b.txt").symlink_to("a.txt")
    assert read(tmp_path) == ({"a.txt": "good", "b.txt": "good"}, {})


def test_link_to_a_folder_outside_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "secret.txt").write_text("secret")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "a.txt").write_text("good")
    (tmp_path / "mine" / "sub").symlink_to(tmp_path / "outside")
    assert read(tmp_path / "mine")[0] == {"a.txt": "good"}


def test_link_to_a_folder_is_counted(tmp_path: Path) -> None:
    (tmp_path / "outside").mkdir()
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "a.txt").write_text("good")
    (tmp_path / "mine" / "sub").symlink_to(tmp_path / "outside")
    assert "sub" in read(tmp_path / "mine")[1]


@pytest.mark.parametrize("kind", KINDS)
def test_link_loop_is_counted(tmp_path: Path, kind: str) -> None:
    one, two = tmp_path / f"a{END[kind]}", tmp_path / f"b{END[kind]}"
    one.symlink_to(two)
    two.symlink_to(one)
    good, bad = read(tmp_path, kind)
    assert good == {} and set(bad) == {one.name, two.name}


def test_folder_that_links_to_itself_ends(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("good")
    (tmp_path / "again").symlink_to(tmp_path)
    assert read(tmp_path)[0] == {"a.txt": "good"}


@pytest.mark.parametrize("kind", ["text", "tree", "jsonl"])
def test_dangling_link_is_unreadable(tmp_path: Path, kind: str) -> None:
    (tmp_path / f"a{END[kind]}").symlink_to("nowhere")
    assert list(read(tmp_path, kind)[1].values()) == ["unreadable"]


@pytest.mark.parametrize("kind", ["text", "tree", "jsonl"])
def test_file_that_may_not_be_read_is_unreadable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    (tmp_path / f"a{END[kind]}").write_text("anything")

    def denied(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied")  # root may read everything, so chmod proves nothing in CI

    monkeypatch.setattr(Path, "open", denied)
    monkeypatch.setattr(Path, "read_bytes", denied)
    assert list(read(tmp_path, kind)[1].values()) == ["unreadable"]


def test_folder_that_may_not_be_listed_is_not_left_out_in_silence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a.txt").write_text("good")
    (tmp_path / "sub").mkdir()
    real = os.scandir

    def scandir(path: str) -> object:
        if Path(path).name == "sub":
            raise PermissionError(13, "Permission denied", str(path))
        return real(path)

    monkeypatch.setattr(os, "scandir", scandir)
    try:
        _, bad = read(tmp_path, "text")
    except DataError as error:
        assert "sub" in str(error)
    else:
        assert "sub" in bad


def test_file_name_that_is_not_utf8_makes_no_document_that_cannot_be_written(tmp_path: Path) -> None:
    with open(os.fsencode(tmp_path) + b"/x\xff.txt", "wb") as file:
        file.write(b"good")
    good, bad = read(tmp_path)
    assert good == {}
    assert list(bad.values()) == ["file name is not UTF-8"]
    assert all(where.encode() for where in bad)  # the place too must be writable


def test_tree_joins_the_files_of_a_folder_in_order(tmp_path: Path) -> None:
    (tmp_path / "pack" / "sub").mkdir(parents=True)
    (tmp_path / "pack" / "b.py").write_text("b = 2\n")
    (tmp_path / "pack" / "sub" / "a.py").write_text("a = 1\n")
    (tmp_path / "alone.py").write_text("c = 3\n")
    assert read(tmp_path, "tree") == (
        {"alone.py": "# alone.py\nc = 3\n\n", "pack": "# pack/b.py\nb = 2\n\n# pack/sub/a.py\na = 1\n\n"},
        {},
    )


def test_tree_refuses_one_file_and_keeps_the_others(tmp_path: Path) -> None:
    (tmp_path / "pack").mkdir()
    (tmp_path / "pack" / "a.py").write_bytes(b"\xff\xfe")
    (tmp_path / "pack" / "b.py").write_text("b = 2\n")
    assert read(tmp_path, "tree") == ({"pack": "# pack/b.py\nb = 2\n\n"}, {"pack/a.py": "not UTF-8"})


@pytest.mark.parametrize(
    ("names", "kind"),
    [
        (["a.txt", "b.md"], "text"),
        (["a.jsonl", "b.jsonl.gz"], "jsonl"),
        (["a.parquet"], "parquet"),
        (["a.py", "b.c"], "tree"),
        pytest.param(["a.py", "README.md"], "tree", id="code with a readme"),
    ],
)
def test_auto_kind(tmp_path: Path, names: list[str], kind: str) -> None:
    for name in names:
        (tmp_path / name).touch()
    assert documents.kind_of(SourceConfig(path=str(tmp_path)), tmp_path, "mine") == kind


def test_auto_kind_looks_only_where_files_are_taken_from(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("good")
    (tmp_path / ".cache").mkdir()
    (tmp_path / ".cache" / "b.jsonl").write_text("{}")
    assert read(tmp_path)[0] == {"a.txt": "good"}


def test_two_kinds_in_a_folder_are_refused_with_the_way_out(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").touch()
    (tmp_path / "b.parquet").touch()
    with pytest.raises(DataError, match=r"holds jsonl and parquet; set data\.sources\.mine\.kind"):
        read(tmp_path)


def test_single_file_is_a_source(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"text": "one"}\n')
    (tmp_path / "b.jsonl").write_text('{"text": "two"}\n')
    assert read(tmp_path / "a.jsonl") == ({"a.jsonl:1": "one"}, {})


def test_pattern_chooses_files(tmp_path: Path) -> None:
    (tmp_path / "a.py").write_text("a")
    (tmp_path / "b.c").write_text("b")
    assert read(tmp_path, "text", pattern="*.c") == ({"b.c": "b"}, {})


def test_missing_path_is_refused_by_its_key(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"data\.sources\.mine\.path is .*gone; it must be an existing"):
        read(tmp_path / "gone")


def test_standard_library_gives_packages_without_their_tests() -> None:
    source = SourceConfig(path=documents.STDLIB)
    root = documents.root_of(source, "stdlib")
    files = [p.relative_to(root) for p in documents.files_of(source, root, "tree")]
    assert documents.kind_of(source, root, "stdlib") == "tree"
    assert Path("json/decoder.py") in files
    assert not [p for p in files if {"test", "tests", "site-packages"} & set(p.parts) or p.suffix != ".py"]
