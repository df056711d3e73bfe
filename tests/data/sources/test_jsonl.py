"""JSON lines: bad lines are counted by reason, others are read; ranges lose and repeat no line."""

import gzip
import json
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ropewalk.conf.errors import DataError
from ropewalk.conf.sources import SourceConfig
from ropewalk.data import sources
from ropewalk.data.sources import units

Read = Any

JSON_LINES = {
    "not UTF-8": b'{"text": "caf\xe9"}',
    "malformed JSON": b'{"text": "a"',
    "no text": b'{"body": "a"}',
    "text is not text": b'{"text": 7}',
    "empty": b'{"text": "  \\n"}',
    "lone surrogate": b'{"text": "a\\ud800b"}',
    "NUL byte": b'{"text": "a\\u0000b"}',
    "key text twice": b'{"text": "a", "text": "b"}',
}


@pytest.mark.parametrize(("reason", "line"), JSON_LINES.items(), ids=JSON_LINES)
def test_bad_json_line_is_counted_and_the_next_is_read(
    read: Read, tmp_path: Path, reason: str, line: bytes
) -> None:
    (tmp_path / "a.jsonl").write_bytes(line + b'\n{"text": "good"}\n')
    assert read(tmp_path) == ({f"a.jsonl@{len(line) + 1}": "good"}, {"a.jsonl@0": reason})


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ('{"text": null}', "no text"),
        ('["text"]', "not an object"),
        ('"text"', "not an object"),
        ('{"text": ["a"]}', "text is not text"),
        ('{"text": true}', "text is not text"),
        ("{'text': 'a'}", "malformed JSON"),
        ('{"text": ' + "1" * 5000 + "}", "malformed JSON"),
        pytest.param("[" * 200_000, "malformed JSON", id="nested too deep"),
    ],
)
def test_other_bad_json(read: Read, tmp_path: Path, line: str, reason: str) -> None:
    (tmp_path / "a.jsonl").write_text(line + "\n")
    assert read(tmp_path) == ({}, {"a.jsonl@0": reason})


def test_blank_lines_are_no_documents(read: Read, tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('\n{"text": "one"}\n\n{"text": "two"}')
    assert read(tmp_path) == ({"a.jsonl@1": "one", "a.jsonl@18": "two"}, {})


def test_another_field_is_read_by_text_key(read: Read, tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"body": "one", "text": 1}\n{"text": "two"}\n')
    assert read(tmp_path, text_key="body") == ({"a.jsonl@0": "one"}, {"a.jsonl@27": "no body"})


def rows(count: int) -> bytes:
    rng = np.random.default_rng(0)
    return b"".join(
        json.dumps({"text": rng.bytes(200).hex()}).encode() + b"\n" for _ in range(count)
    )


def test_gzip_is_read(read: Read, tmp_path: Path) -> None:
    (tmp_path / "a.jsonl.gz").write_bytes(gzip.compress(rows(3)))
    assert len(read(tmp_path)[0]) == 3


def test_truncated_gzip_keeps_the_rows_before_the_break_and_counts_it(
    read: Read, tmp_path: Path
) -> None:
    compressed = gzip.compress(rows(1000))
    (tmp_path / "a.jsonl.gz").write_bytes(compressed[: len(compressed) // 2])
    good, bad = read(tmp_path)
    assert 0 < len(good) < 1000
    assert bad == {f"a.jsonl.gz@{len(rows(len(good)))}": "file: damaged gzip"}


def test_gzip_with_a_damaged_middle_is_counted(read: Read, tmp_path: Path) -> None:
    compressed = bytearray(gzip.compress(rows(1000)))
    compressed[20:60] = b"\xff" * 40
    (tmp_path / "a.jsonl.gz").write_bytes(compressed)
    assert list(read(tmp_path)[1].values()) == ["file: damaged gzip"]


def test_plain_text_named_gz_is_counted(read: Read, tmp_path: Path) -> None:
    (tmp_path / "a.jsonl.gz").write_bytes(b"plain text")
    assert read(tmp_path) == ({}, {"a.jsonl.gz@0": "file: damaged gzip"})


def test_zstd_is_read(read: Read, tmp_path: Path) -> None:
    zstandard = pytest.importorskip("zstandard", reason="the optional zstd reader is not installed")
    (tmp_path / "a.jsonl.zst").write_bytes(
        zstandard.compress(rows(2)) + zstandard.compress(rows(3))
    )
    assert len(read(tmp_path)[0]) == 5


def test_damaged_zstd_is_counted(read: Read, tmp_path: Path) -> None:
    pytest.importorskip("zstandard", reason="the optional zstd reader is not installed")
    (tmp_path / "a.jsonl.zst").write_bytes(b"plain text, no frame")
    assert read(tmp_path) == ({}, {"a.jsonl.zst@0": "file: damaged zstd"})


def test_truncated_zstd_does_not_lose_documents_in_silence(read: Read, tmp_path: Path) -> None:
    zstandard = pytest.importorskip("zstandard", reason="the optional zstd reader is not installed")
    compressed = zstandard.compress(rows(1000))
    (tmp_path / "a.jsonl.zst").write_bytes(compressed[: len(compressed) // 2])
    assert "file: damaged zstd" in read(tmp_path)[1].values()


def test_zstd_without_its_package_names_the_extra(
    read: Read, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(__import__("sys").modules, "zstandard", None)
    (tmp_path / "a.jsonl.zst").write_bytes(b"anything")
    with pytest.raises(DataError, match=r"pip install 'ropewalk\[zstd\]'"):
        read(tmp_path)


def test_zstd_with_a_long_window_is_read(read: Read, tmp_path: Path) -> None:
    zstandard = pytest.importorskip("zstandard", reason="the optional zstd reader is not installed")
    form = zstandard.ZstdCompressionParameters(window_log=28, enable_ldm=True)
    with (
        (tmp_path / "a.jsonl.zst").open("wb") as file,
        zstandard.ZstdCompressor(compression_params=form).stream_writer(file) as writer,
    ):
        writer.write(rows(2))
    assert len(read(tmp_path)[0]) == 2


LINES = st.lists(
    st.sampled_from(["", " ", '{"text": "a"}', '{"text": "é"}', '{"text": "long"}', "{", "\r"]),
    max_size=12,
)


@settings(max_examples=60, deadline=None)
@given(LINES, st.booleans(), st.integers(1, 40))
def test_ranges_give_the_rows_of_the_full_file(
    tmp_path_factory: Any, lines: list[str], ends: bool, size: int
) -> None:
    """For any file and any size of a unit, against Python's own split of the whole file."""
    content = "\n".join(lines).encode() + (b"\n" if ends else b"")
    folder = tmp_path_factory.mktemp("jsonl")
    (folder / "a.jsonl").write_bytes(content)
    source = SourceConfig(path=str(folder), kind="jsonl")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(units, "UNIT_BYTES", size)
        listing = pickle.loads(pickle.dumps(sources.list_source(source, "mine")))
        assert len(listing.units) == max(1, -(-len(content) // size))
        items = [vars(item) for unit in listing.units for item in listing.documents(unit)]
    expected, offset = [], 0
    for line in content.split(b"\n"):
        if line.strip() == b"{":
            expected.append({"where": f"a.jsonl@{offset}", "reason": "malformed JSON", "count": 1})
        elif line.strip():
            text = json.loads(line)["text"]
            known = {"text": text, "ids": None, "borders": ()}
            expected.append({"id": f"a.jsonl@{offset}"} | known)
        offset += len(line) + 1
    assert items == expected


def test_compressed_files_stay_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(units, "UNIT_BYTES", 10)
    (tmp_path / "a.jsonl.gz").write_bytes(gzip.compress(rows(5)))
    listing = sources.list_source(SourceConfig(path=str(tmp_path)), "mine")
    assert [(u.files, u.start, u.stop) for u in listing.units] == [(("a.jsonl.gz",), 0, None)]


def test_appended_documents_change_no_id(
    read: Read, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also when the file grows beyond a unit."""
    monkeypatch.setattr(units, "UNIT_BYTES", 1000)
    (tmp_path / "a.jsonl").write_bytes(rows(2))
    before = read(tmp_path)[0]
    (tmp_path / "a.jsonl").write_bytes(rows(20))
    after = read(tmp_path)[0]
    assert len(after) == 20 and list(after.items())[:2] == list(before.items())


@pytest.mark.parametrize("name", ["a.jsonl", "a.jsonl.gz"])
@pytest.mark.parametrize("size", [1, 10, 1 << 26])
def test_a_byte_order_mark_loses_no_document_and_changes_no_id(
    read: Read, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, size: int
) -> None:
    """As Windows' editors and PowerShell write it."""
    content = '{"text": "one"}\n{"text": "\ufefftwo"}\n'.encode("utf-8-sig")
    (tmp_path / name).write_bytes(gzip.compress(content) if name.endswith(".gz") else content)
    monkeypatch.setattr(units, "UNIT_BYTES", size)
    assert read(tmp_path) == ({f"{name}@0": "one", f"{name}@19": "\ufefftwo"}, {})


def test_a_file_with_only_a_byte_order_mark_has_no_document(read: Read, tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_bytes(b"\xef\xbb\xbf\n")
    assert read(tmp_path) == ({}, {})
