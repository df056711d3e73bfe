"""Compressed rows: read as Python's own modules wrote them; damage is counted."""

import bz2
import gzip
import lzma
from pathlib import Path
from typing import Any

import pytest

Read = Any
LINES = b"".join(b'{"text": "row %d %s"}\n' % (n, b"ab" * (n % 97)) for n in range(2000))
WRITERS = {
    ".gz": (gzip.compress, "gzip"),
    ".xz": (lzma.compress, "xz"),
    ".bz2": (bz2.compress, "bzip2"),
}


@pytest.mark.parametrize("suffix", WRITERS)
@pytest.mark.parametrize("name", ["a.jsonl", "A.JSONL", "a.ndjson", "a.jsonlines", "a.json"])
def test_rows_are_read(read: Read, tmp_path: Path, suffix: str, name: str) -> None:
    end = suffix.upper() if name.isupper() else suffix
    (tmp_path / f"{name}{end}").write_bytes(WRITERS[suffix][0](LINES))
    good, bad = read(tmp_path)
    assert (len(good), bad) == (2000, {})
    assert list(good.values())[:2] == ["row 0 ", "row 1 ab"]


@pytest.mark.parametrize("suffix", WRITERS)
@pytest.mark.parametrize("damage", ["cut", "flipped", "other"])
def test_damage_is_counted_after_the_rows_before_it(
    read: Read, tmp_path: Path, suffix: str, damage: str
) -> None:
    compress, form = WRITERS[suffix]
    content = bytearray(compress(LINES))
    middle = len(content) // 2
    if damage == "cut":
        content = content[:middle]
    elif damage == "flipped":
        content[middle : middle + 40] = bytes(40)
    else:
        content = bytearray(b"no such file " * 9)
    (tmp_path / f"a.jsonl{suffix}").write_bytes(content)
    good, bad = read(tmp_path)
    *rows, last = bad.values()
    assert last == f"file: damaged {form}" and len(good) < 2000
    assert set(rows) <= {"malformed JSON", "not UTF-8"}  # gzip has one checksum, at its end
