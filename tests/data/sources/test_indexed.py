"""Megatron's indexed ids, held against files that megatron-core 0.16 wrote (recorded/megatron)."""

import shutil
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ropewalk.conf.errors import DataError
from ropewalk.conf.sources import SourceConfig
from ropewalk.data import sources
from ropewalk.data.sources import Document, Refusal, units

RECORDED = Path(__file__).parent / "recorded" / "megatron"
DOCUMENTS = 7  # those with an odd number are two sequences
HEAD = 34  # bytes before the lengths


def written(number: int) -> list[int]:
    ids: list[int] = (np.arange(5 + 3 * number) * (number + 7) % 997).tolist()
    return ids


def items(path: Path | str, largest: int = 1 << 20) -> list[Document | Refusal]:
    source = SourceConfig(path=str(path), kind="indexed")
    listing = sources.list_source(source, "mine", largest)
    return [item for unit in listing.units for item in listing.documents(unit)]


@pytest.mark.parametrize("size", [1, 60, 1 << 30])
def test_documents_are_what_megatron_wrote(monkeypatch: pytest.MonkeyPatch, size: int) -> None:
    """In 2 and in 4 bytes an id, however the file is split."""
    monkeypatch.setattr(units, "UNIT_BYTES", size)
    found = items(RECORDED)
    good = {item.id: item.ids.tolist() for item in found if isinstance(item, Document)}  # type: ignore[union-attr]
    assert len(found) == 2 * DOCUMENTS == len(good)
    for name in ("narrow.bin", "wide.bin"):
        for number in range(DOCUMENTS):
            assert good[f"{name}:{number}"] == written(number)


@pytest.fixture
def pair(tmp_path: Path) -> Path:
    for suffix in (".bin", ".idx"):
        shutil.copy(RECORDED / f"narrow{suffix}", tmp_path / f"a{suffix}")
    return tmp_path


def patch(path: Path, at: int, content: bytes) -> None:
    old = path.read_bytes()
    path.write_bytes(old[:at] + content + old[at + len(content) :])


def refused(path: Path) -> list[Refusal]:
    return [item for item in items(path) if isinstance(item, Refusal)]


def test_a_bin_that_breaks_off_or_goes_on_is_refused_from_there(pair: Path) -> None:
    content = (pair / "a.bin").read_bytes()
    (pair / "a.bin").write_bytes(content[:-2])
    assert refused(pair) == [Refusal("a.bin:6", "damaged indexed", 1)]
    assert len(items(pair)) == DOCUMENTS
    (pair / "a.bin").write_bytes(content[:20])
    assert refused(pair) == [Refusal("a.bin:1", "damaged indexed", 6)]
    (pair / "a.bin").write_bytes(content + b"\0\0")
    assert refused(pair) == [Refusal("a.bin:7", "file: damaged indexed", 1)]


@pytest.mark.parametrize(
    ("at", "content"),
    [
        (0, b"MNIST"),
        (9, struct.pack("<Q", 2)),  # the version
        (17, b"\x07"),  # float32
        (18, struct.pack("<Q", 1 << 60)),  # sequences
        (26, struct.pack("<Q", 0)),
    ],
)
def test_a_damaged_index_refuses_its_file(pair: Path, at: int, content: bytes) -> None:
    patch(pair / "a.idx", at, content)
    assert refused(pair) == [Refusal("a.bin:0", "file: damaged indexed", 1)]


def test_sequences_that_do_not_join_are_refused(pair: Path) -> None:
    at = HEAD + 4 * 10 + 8 * 2  # the offset of the third sequence, the second of document 1
    patch(pair / "a.idx", at, struct.pack("<q", 4))
    assert refused(pair) == [Refusal("a.bin:1", "damaged indexed", 6)]


def test_an_index_that_breaks_off_is_refused(pair: Path) -> None:
    (pair / "a.idx").write_bytes((pair / "a.idx").read_bytes()[:-1])
    assert refused(pair) == [Refusal("a.bin:0", "file: damaged indexed", 1)]


def test_too_large_documents_are_passed_over(pair: Path) -> None:
    found = items(pair, 4 * 12)
    assert [item.reason for item in found if isinstance(item, Refusal)] == [units.TOO_LARGE] * 4


@pytest.mark.parametrize("suffix", [".bin", ".idx"])
def test_a_half_is_refused(pair: Path, suffix: str) -> None:
    single: Any = pair / f"a{suffix}"
    with pytest.raises(DataError, match=r"without a\.(idx|bin); kind indexed reads both; give"):
        items(single)
    single.unlink()
    with pytest.raises(DataError, match=r"without a\.(idx|bin)"):
        items(pair)


def test_the_index_is_part_of_what_the_source_is(pair: Path, tmp_path: Path) -> None:
    def identity() -> dict[str, Any]:
        listing = sources.list_source(SourceConfig(path=f"{pair}/a.*", kind="indexed"), "mine")
        return listing.identity(tmp_path / "cache")

    before = identity()
    patch(pair / "a.idx", HEAD, b"\x01")
    assert identity() != before
