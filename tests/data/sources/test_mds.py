"""MosaicML's shards, held against files that mosaicml-streaming 0.13 wrote (recorded/mds*)."""

import gzip
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ropewalk.conf.errors import DataError
from ropewalk.conf.sources import SourceConfig
from ropewalk.data import sources
from ropewalk.data.sources import Document, Refusal, units

RECORDED = Path(__file__).parent / "recorded"
FORMS = ("mds", "mds_zstd", "mds_gz")
SAMPLES = 12  # in four shards
SHARDS = (6, 3, 2, 1)


def written(number: int) -> dict[str, Any]:
    """What the recorded files were made of."""
    ids = (np.arange(5 + 3 * number) * (number + 7) % 997).astype(np.uint32)
    return {
        "input_ids": ids,
        "any": ids.astype(np.int32),
        "raw": ids.astype(np.int64),
        "static": np.array([number, number + 1]),
        "text": "lines\n" * number + "end",
        "domain": f"book {number} é",
    }


def items(path: Path | str, **settings: Any) -> list[Document | Refusal]:
    listing = sources.list_source(SourceConfig(path=str(path), **settings), "mine")
    assert listing.kind == "mds"
    return [item for unit in listing.units for item in listing.documents(unit)]


def ids_of(found: list[Document | Refusal]) -> list[list[int]]:
    return [item.ids.tolist() for item in found if isinstance(item, Document) and len(item.ids)]  # type: ignore[arg-type]


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("key", ["input_ids", "any", "static", "raw"])
def test_ids_are_what_mosaicml_wrote(form: str, key: str) -> None:
    dtype = {"ids_dtype": "int64"} if key == "raw" else {}
    found = ids_of(items(RECORDED / form, ids_key=key, **dtype))
    assert found == [written(number)[key].tolist() for number in range(SAMPLES)]


@pytest.mark.parametrize("form", FORMS)
def test_text_and_values_of_columns_are_what_mosaicml_wrote(form: str) -> None:
    found = items(RECORDED / form, id_key="domain", where={"small": [3, 5]})
    good = [(item.id, item.text) for item in found if isinstance(item, Document)]
    assert good == [(written(n)["domain"], written(n)["text"]) for n in (3, 5)]
    assert len(found) == SAMPLES


def test_the_spans_of_documents_are_what_mosaicml_wrote() -> None:
    found = items(RECORDED / "mds", ids_key="input_ids", ids_spans="indices")
    assert [item.borders for item in found if isinstance(item, Document)] == [(0, 2)] * SAMPLES


def test_the_library_reads_what_this_reads(tmp_path: Path) -> None:
    """Random samples of the library's own writer, where it is installed."""
    reason = "needs mosaicml-streaming, which no extra has; recorded/ was written by it"
    streaming = pytest.importorskip("streaming", reason=reason)
    rng, rows = np.random.default_rng(1), []
    columns = {"input_ids": "ndarray:int32", "tag": "str"}
    with streaming.MDSWriter(out=str(tmp_path / "a"), columns=columns, size_limit=4096) as writer:
        for n in range(200):
            ids = rng.integers(0, 128256, n + 1).astype(np.int32)
            writer.write({"input_ids": ids, "tag": "é" * n})
            rows.append(ids.tolist())
    assert ids_of(items(tmp_path / "a", ids_key="input_ids")) == rows


@pytest.mark.parametrize("size", [1, 300, 1 << 30])
def test_parts_give_the_samples_of_the_full_shards(
    monkeypatch: pytest.MonkeyPatch, size: int
) -> None:
    monkeypatch.setattr(units, "UNIT_BYTES", size)
    listing = sources.list_source(SourceConfig(path=str(RECORDED / "mds")), "mine")
    assert len(listing.units) == {1: SAMPLES, 1 << 30: 1}.get(size, len(listing.units))
    found = [item for unit in listing.units for item in listing.documents(unit)]
    names = [
        f"shard.{shard:05}.mds:{number}"
        for shard, count in enumerate(SHARDS)
        for number in range(count)
    ]
    assert [item.id for item in found if isinstance(item, Document)] == names


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A copy of the plain shards without their index."""
    shutil.copytree(RECORDED / "mds", tmp_path / "a")
    (tmp_path / "a" / "index.json").unlink()
    return tmp_path / "a"


def overwrite(path: Path, at: int, content: bytes) -> None:
    old = path.read_bytes()
    path.write_bytes(old[:at] + content + old[at + len(content) :])


@pytest.mark.parametrize(
    ("kept", "good", "reason", "lost"),
    [(-1, 5, "damaged mds", 1), (1200, 0, "damaged mds", 6), (3, 0, "file: damaged mds", 1)],
)
def test_a_shard_that_breaks_off_is_counted_to_its_last_sample(
    folder: Path, kept: int, good: int, reason: str, lost: int
) -> None:
    first = folder / "shard.00000.mds"
    if kept == 1200:  # in the middle of the first sample
        kept = 8 + 4 * 6 + len(columns_json(first)) + 3
    first.write_bytes(first.read_bytes()[:kept])
    found = items(folder, ids_key="input_ids")
    refused = [item for item in found if isinstance(item, Refusal)]
    assert refused == [Refusal(f"shard.00000.mds:{good}", reason, lost)]
    assert len(found) == SAMPLES - 6 + good + 1  # the other shards are read


def columns_json(shard: Path) -> bytes:
    content = shard.read_bytes()
    samples, first = np.frombuffer(content[:8], "<u4").tolist()
    return content[4 + 4 * (samples + 1) : first]


@pytest.mark.parametrize(
    ("at", "content"),
    [
        (0, b"\xff\xff\xff\xff"),  # samples
        (4, b"\xff\xff\xff\x7f"),  # the first offset
        (12, b"\0\0\0\0"),  # offsets that fall
        (32, b"no JSON"),
    ],
)
def test_a_damaged_head_refuses_the_shard(folder: Path, at: int, content: bytes) -> None:
    overwrite(folder / "shard.00000.mds", at, content)
    found = items(folder, ids_key="input_ids")
    assert found[0] == Refusal("shard.00000.mds:0", "file: damaged mds")
    assert len(ids_of(found)) == SAMPLES - 6


def test_damage_inside_a_sample_and_behind_the_last(folder: Path) -> None:
    shard = folder / "shard.00003.mds"
    (first, _) = np.frombuffer(shard.read_bytes()[4:12], "<u4").tolist()
    overwrite(shard, first, b"\xff\xff\0\0")  # the size of a value
    with (folder / "shard.00002.mds").open("ab") as file:
        file.write(b"x")
    refused = [i for i in items(folder, ids_key="input_ids") if isinstance(i, Refusal)]
    assert refused == [
        Refusal("shard.00002.mds:2", "file: damaged mds"),
        Refusal("shard.00003.mds:0", "damaged mds"),
    ]


def test_compressed_damage_is_told_by_its_form(tmp_path: Path) -> None:
    for form, suffix in (("mds_zstd", "zstd"), ("mds_gz", "gz")):
        content = (RECORDED / form / f"shard.00000.mds.{suffix}").read_bytes()
        (tmp_path / f"{form}.mds.{suffix}").write_bytes(content[: len(content) // 2])
    refused = [i for i in items(tmp_path, ids_key="input_ids") if isinstance(i, Refusal)]
    assert sorted(item.reason.removeprefix("file: ") for item in refused) == [
        "damaged gzip",
        "damaged zstd",
    ]


def test_columns_that_cannot_be_ids_or_are_not_there(folder: Path) -> None:
    for key, reason in (
        ("tokens", "no column tokens"),
        ("text", "text is not token ids"),
        ("indices", "indices is not token ids"),
        ("raw", "raw is not token ids"),  # bytes without ids_dtype
    ):
        reasons = {i.reason for i in items(folder, ids_key=key) if isinstance(i, Refusal)}
        assert reasons == {reason}
    for shard in folder.iterdir():
        shard.write_bytes(shard.read_bytes().replace(b'"ndarray", "str"', b'"pkl    ", "str"'))
        shard.write_bytes(shard.read_bytes().replace(b'"pkl    "', b'"pkl"    '))
    (refusal,) = {i.reason for i in items(folder, ids_key="any") if isinstance(i, Refusal)}
    assert refusal == "column any is pkl"


def test_a_sample_above_the_largest_document_is_passed_over(folder: Path) -> None:
    listing = sources.list_source(SourceConfig(path=str(folder), ids_key="input_ids"), "mine", 350)
    found = [item for unit in listing.units for item in listing.documents(unit)]
    reasons = [item.reason if isinstance(item, Refusal) else "" for item in found]
    assert len(found) == SAMPLES and set(reasons) == {"", units.TOO_LARGE}
    assert reasons == sorted(reasons)  # the later ones are the longer ones


def in_subfolders(folder: Path) -> Path:
    """As datatools leaves it: a folder a process, each with an index, and one for all above."""
    base = folder.parent / "b"
    merged: list[Any] = []
    for number in range(2):
        part = base / f"proc{number}-2"
        shutil.copytree(RECORDED / "mds", part)
        rows = json.loads((part / "index.json").read_text())["shards"]
        for row in rows:
            row["raw_data"]["basename"] = f"proc{number}-2/{row['raw_data']['basename']}"
        merged += rows
    (base / "index.json").write_text(json.dumps({"version": 2, "shards": merged}))
    return base


def test_shards_in_subfolders_are_read_once(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    base = in_subfolders(folder)
    assert len(ids_of(items(base, ids_key="input_ids"))) == 2 * SAMPLES
    assert capsys.readouterr().out == ""  # an index is no file that is left out


def test_a_shard_beside_its_compressed_form_is_read_once(tmp_path: Path) -> None:
    """As the library leaves a folder that it has read with keep_zip."""
    shutil.copytree(RECORDED / "mds_gz", tmp_path / "a")
    for shard in (tmp_path / "a").glob("*.gz"):
        shard.with_suffix("").write_bytes(gzip.decompress(shard.read_bytes()))
    assert len(ids_of(items(tmp_path / "a", ids_key="input_ids"))) == SAMPLES


def missing(base: Path) -> str:
    (base / "proc1-2" / "shard.00002.mds").unlink()
    return "lists proc1-2/shard.00002.mds, which is missing"


def cut_off(base: Path) -> str:
    path = base / "proc0-2" / "shard.00001.mds"
    path.write_bytes(path.read_bytes()[:-4])
    return "says that proc0-2/shard.00001.mds has 2008 bytes, and it has 2004"


def left_over(base: Path) -> str:
    shutil.copy(base / "proc0-2" / "shard.00001.mds", base / "more.mds")
    return "does not list more.mds"


def other_format(base: Path) -> str:
    text = (base / "index.json").read_text().replace('"format": "mds"', '"format": "xsv"')
    (base / "index.json").write_text(text)
    return "lists shards of format xsv"


def no_index(base: Path) -> str:
    (base / "index.json").write_text('{"shards": [{}]}')
    return "must be as MosaicML's writer leaves it"


@pytest.mark.parametrize("damage", [missing, cut_off, left_over, other_format, no_index])
def test_shards_that_are_not_what_the_index_lists_are_refused(folder: Path, damage: Any) -> None:
    base = in_subfolders(folder)
    part = damage(base)
    with pytest.raises(DataError) as error:
        items(base, ids_key="input_ids")
    assert part in str(error.value) and str(error.value).startswith("data.sources.mine.path")
