"""Files of bare ids: the documents are those of a plain loop over the ids."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ropewalk.conf.rules import problems
from ropewalk.conf.sources import SourceConfig
from ropewalk.data import sources
from ropewalk.data.sources import Document, Refusal, memmap, units

BOS, EOS = 1, 2


def listing_of(path: Path, dtype: str = "uint16", **settings: Any) -> sources.SourceListing:
    ids_begin, ids_end = settings.get("ids_begin"), settings.get("ids_end")
    source = SourceConfig(path=str(path), kind="memmap", ids_dtype=dtype, **settings)
    assert not list(problems(source, "data.sources.mine."))
    return sources.list_source(source, "mine").cut_at(ids_begin, ids_end)


def items(path: Path, **settings: Any) -> list[Document | Refusal]:
    listing = listing_of(path, **settings)
    return [item for unit in listing.units for item in listing.documents(unit)]


def texts() -> list[list[int]]:
    rng = np.random.default_rng(0)
    lengths = [1, 2, 50, 3, 0, 17, 1, 40, 5, 8, 64, 9]
    return [rng.integers(3, 1000, n).tolist() for n in lengths]


def stream(marks: str) -> list[int]:
    begin, end = [BOS] * ("begin" in marks), [EOS] * ("end" in marks)
    return [token for text in texts() for token in (*begin, *text, *end)]


def loop(ids: list[int], begin: int | None, end: int | None) -> dict[str, list[int]]:
    """What a plain loop makes of the ids, by the first token's place."""
    found: dict[str, list[int]] = {}
    start = 0
    for place, token in enumerate(ids):
        fresh = place == 0 or token == begin or (end is not None and ids[place - 1] == end)
        start = place if fresh else start
        found.setdefault(f"a.npy:{start}", []).append(token)
    return found


@pytest.mark.parametrize("marks", ["begin", "end", "begin, end"])
@pytest.mark.parametrize("size", [1, 50, 1 << 30])
@pytest.mark.parametrize("block", [1, 7, 1 << 20])
def test_documents_are_those_of_a_plain_loop(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, marks: str, size: int, block: int
) -> None:
    """However the file is split into units and read in blocks."""
    monkeypatch.setattr(units, "UNIT_BYTES", size)
    monkeypatch.setattr(memmap, "BLOCK", block)
    ids = stream(marks)
    np.array(ids, "<u2").tofile(tmp_path / "a.npy")  # as OLMo-core: without a header
    begin, end = BOS if "begin" in marks else None, EOS if "end" in marks else None
    settings = {"ids_begin": begin, "ids_end": end}
    found = items(tmp_path, **settings)
    good = {item.id: item.ids.tolist() for item in found if isinstance(item, Document)}  # type: ignore[union-attr]
    assert good == loop(ids, begin, end) and len(good) == len(found)
    assert len(listing_of(tmp_path, **settings).units) > 1 or size == 1 << 30


@pytest.mark.parametrize("dtype", ["uint16", "uint32", "uint64", "int32", "int64"])
@pytest.mark.parametrize("header", [True, False])
def test_every_width_is_read_with_and_without_a_header(
    tmp_path: Path, dtype: str, header: bool
) -> None:
    ids = np.array(stream("end"), np.dtype(dtype).newbyteorder("<"))
    if header:
        np.save(tmp_path / "a.npy", ids)
    else:
        ids.tofile(tmp_path / "a.npy")
    found = items(tmp_path, dtype=dtype, ids_end=EOS)
    assert [token for item in found for token in item.ids.tolist()] == ids.tolist()  # type: ignore[union-attr]


def test_a_tail_without_its_end_is_refused_and_the_rest_is_read(tmp_path: Path) -> None:
    """OLMo-core's index of documents leaves it out too."""
    ids = [*stream("end"), 5, 6, 7]
    np.array(ids, "<u2").tofile(tmp_path / "a.bin")
    found = items(tmp_path, ids_end=EOS)
    place = len(ids) - 3
    assert found[-1] == Refusal(f"a.bin:{place}", "cut off before ids_end")
    assert all(isinstance(item, Document) for item in found[:-1])


def odd(path: Path) -> str:
    path.write_bytes(np.array(stream("end"), "<u2").tobytes() + b"\0")
    return "file: damaged memmap"


def short(path: Path) -> str:
    np.save(path, np.array(stream("end"), "<u2"))
    path.write_bytes(path.read_bytes()[:-6])
    return "file: damaged memmap"


def no_header(path: Path) -> str:
    np.save(path, np.array(stream("end"), "<u2"))
    path.write_bytes(path.read_bytes()[:20])
    return "file: damaged npy"


def wide(path: Path) -> str:
    np.save(path, np.array(stream("end"), "<u4"))
    return "file: holds uint32"


def square(path: Path) -> str:
    np.save(path, np.ones((3, 4), "<u2"))
    return "file: holds uint16 (3, 4)"


@pytest.mark.parametrize("make", [odd, short, no_header, wide, square])
def test_a_file_of_another_form_or_size_is_refused(tmp_path: Path, make: Any) -> None:
    reason = make(tmp_path / "a.npy")
    np.array(stream("end"), "<u2").tofile(tmp_path / "b.npy")
    found = items(tmp_path, ids_end=EOS)
    refused = [item for item in found if isinstance(item, Refusal)]
    assert [item for item in refused if item.reason.startswith(reason)]
    good = [item for item in found if isinstance(item, Document) and item.id.startswith("b.")]
    assert len(good) == len(texts())


def test_negative_ids_and_long_documents_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(memmap, "BLOCK", 8)
    ids = [5, EOS, -3, 4, EOS, *range(3, 60), EOS, 7, EOS]
    np.array(ids, "<i4").tofile(tmp_path / "a.bin")
    source = SourceConfig(path=str(tmp_path), kind="memmap", ids_dtype="int32", ids_end=EOS)
    listing = sources.list_source(source, "mine", 4 * 20).cut_at(None, EOS)
    found = [item for unit in listing.units for item in listing.documents(unit)]
    reasons = [getattr(item, "reason", None) for item in found]
    assert reasons == [None, "the array is not token ids", units.TOO_LARGE, None]


@pytest.mark.parametrize(
    ("settings", "part"),
    [
        ({"ids_end": "eos"}, "ids_dtype is not set; a file of bare ids does not say how wide"),
        ({"ids_dtype": "uint16"}, "ids_end is not set; a file of bare ids has no other borders"),
        ({"ids_dtype": "float32", "ids_end": "eos"}, "ids_dtype is float32; it must be one of"),
        ({"ids_dtype": "uint16", "ids_end": "eos", "text_key": "x"}, "text_key is 'x'; it is read"),
        ({"ids_dtype": "uint16", "ids_end": "eos", "ids_key": "x"}, "ids_key is 'x'; it is read"),
    ],
)
def test_settings_that_a_file_of_ids_needs_or_does_not_read(
    settings: dict[str, Any], part: str
) -> None:
    lines = list(problems(SourceConfig(path="x", kind="memmap", **settings), "data.sources.a."))
    assert [line for line in lines if line.startswith(f"data.sources.a.{part}")], lines
