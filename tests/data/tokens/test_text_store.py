"""A store made in shards: the same bytes for any process, order or accident; no shard is redone."""

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from stores import build, by_bytes, content_of, stored, text_store, texts

from ropewalk.conf.artifacts import manifest
from ropewalk.conf.artifacts.locks import lock_of
from ropewalk.conf.errors import ConfigError, DataError
from ropewalk.data.sources import Document, SourceListing, units
from ropewalk.data.tokens import shards, store, write
from ropewalk.data.tokens.arrow_table import read_table
from ropewalk.data.tokens.text_store import TextStore

LENGTHS = [300, 900, 20, 450, 450, 2500, 10, 800]  # bytes of the files
SHARDS = [
    [300],
    [900, 20],
    [450, 450],
    [2500],
    [10, 800],
]  # consecutive files, up to 1000 bytes together


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shards, "SHARD_BYTES", 1000)
    monkeypatch.setattr(units, "UNIT_BYTES", 1)  # a file each


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return texts(tmp_path / "texts", LENGTHS)


@pytest.fixture
def expected(folder: Path, tmp_path: Path) -> dict[str, str]:
    """The files of the store as one process makes it without interruption."""
    target = build(text_store(folder, tmp_path / "expected"))
    assert len(list(target.glob("0*"))) == 5
    return content_of(tmp_path / "expected")


def tmp_of(target: TextStore) -> Path:
    return target.folder.with_name(target.folder.name + ".tmp")


def test_shards_hold_consecutive_files_up_to_their_size(folder: Path, tmp_path: Path) -> None:
    target = text_store(folder, tmp_path / "cache")
    opened = store.load(build(target), 0.2)
    assert [[LENGTHS[n] for n in units] for units in target.shards] == SHARDS
    assert [s["tokens"] for s in opened.metadata["shards"]] == [sum(s) for s in SHARDS]
    read = [bytes(opened.document(i).astype("u1")) for i in range(len(LENGTHS))]
    assert read == [(folder / name).read_bytes() for name in opened.ids]


def test_borders_of_nothing_and_of_units_without_a_size() -> None:
    assert shards.borders([]) == []
    assert shards.borders([0, 0, 1001, 0, 0]) == [range(0, 2), range(2, 3), range(3, 5)]


@pytest.mark.parametrize("workers", [2, 7])
def test_workers_change_no_byte(
    folder: Path, tmp_path: Path, expected: dict[str, str], workers: int
) -> None:
    build(text_store(folder, tmp_path / "cache", workers=workers))
    assert content_of(tmp_path / "cache") == expected


def test_tasks_in_any_order_change_no_byte(
    folder: Path, tmp_path: Path, expected: dict[str, str]
) -> None:
    target = text_store(folder, tmp_path / "cache")
    for numbers in ([3], [4, 0], [1, 2, 3]):
        assert not target.folder.exists()
        target.make(numbers)
    assert target.missing() == []
    target.publish()
    assert content_of(tmp_path / "cache") == expected


def test_finished_shards_are_not_written_again(folder: Path, tmp_path: Path) -> None:
    target = text_store(folder, tmp_path / "cache")
    target.make([1, 3])
    before = {p: p.stat().st_mtime_ns for p in tmp_of(target).rglob("*.*")}
    assert (target.missing(), len(before)) == ([0, 2, 4], 7)
    target.make([0, 1, 2, 3, 4])
    assert {p: p.stat().st_mtime_ns for p in before} == before
    build(target)
    modified = {p: p.stat().st_mtime_ns for p in target.folder.rglob("*.*")}
    build(target)
    target.make([0, 1])  # shards of a published store
    assert {p: p.stat().st_mtime_ns for p in target.folder.rglob("*.*")} == modified
    assert not tmp_of(target).exists() and not list(target.folder.parent.rglob("*.0*.lock"))


def test_a_shard_that_another_process_holds_is_waited_for_after_the_others(
    folder: Path, tmp_path: Path
) -> None:
    target = text_store(folder, tmp_path / "cache")
    shard = target.folder.with_name(f"{target.folder.name}.{shards.folder_name(1)}")
    with ThreadPoolExecutor(1) as pool:
        with lock_of(shard):
            future = pool.submit(target.make, [0, 1, 2])
            deadline = time.monotonic() + 30
            while target.missing() != [1, 3, 4] and time.monotonic() < deadline:
                time.sleep(0.01)
            assert target.missing() == [1, 3, 4]
        future.result(30)
    assert target.missing() == [3, 4]


def test_a_store_without_all_shards_is_not_published(folder: Path, tmp_path: Path) -> None:
    target = text_store(folder, tmp_path / "cache")
    target.make([0, 1, 2, 4])
    with pytest.raises(AssertionError, match="a shard is missing"):
        target.publish()
    assert manifest.read(target.folder) is None and target.missing() == [3]


def test_another_size_of_the_shards_is_another_store(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    single = text_store(folder, tmp_path)
    monkeypatch.setattr(shards, "SHARD_BYTES", 2000)
    assert text_store(folder, tmp_path).folder != single.folder


def test_full_disk_is_reported_in_a_line_and_finished_shards_stay(
    folder: Path, tmp_path: Path, expected: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """With /dev/full, so that the kernel reports it."""
    target = text_store(folder, tmp_path / "cache")
    target.make([0, 1])
    before = {p: p.stat().st_mtime_ns for p in tmp_of(target).rglob("*.*")}
    monkeypatch.setattr(write, "TOKENS", "/dev/full")
    with pytest.raises(
        ConfigError, match=r"^cache_dir is .*; its disk must have room .* full; make room [^\n]*$"
    ):
        build(target)
    assert target.missing() == [2, 3, 4]
    monkeypatch.setattr(write, "TOKENS", "tokens.bin")
    assert {p: p.stat().st_mtime_ns for p in before} == before
    build(target)
    assert content_of(tmp_path / "cache") == expected


def test_another_os_error_is_not_reported_as_a_full_disk(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(write, "TOKENS", "no/such/folder")
    with pytest.raises(FileNotFoundError):
        build(text_store(folder, tmp_path / "cache"))


def test_a_refused_token_leaves_the_finished_shards(folder: Path, tmp_path: Path) -> None:
    def odd(texts: list[str]) -> list:  # type: ignore[type-arg]
        return [
            ids + (1000 if "5 rope" in text else 0)
            for text, ids in zip(texts, by_bytes(texts), strict=True)
        ]

    target = text_store(folder, tmp_path / "cache", encode=odd)
    with pytest.raises(
        DataError, match=r"^document 005\.txt of source mine has token id 1\d\d\d; "
    ):
        build(target)
    assert target.missing() == [3, 4]


def test_a_repeated_id_in_a_later_shard_is_counted_and_not_trained_on(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        SourceListing,
        "documents",
        lambda listing, unit: [Document(unit.files[0][2], (folder / unit.files[0]).read_text())],
    )
    (folder / "011.txt").write_text("another one")  # its id is that of 001.txt now
    opened = store.load(build(text_store(folder, tmp_path / "cache")), 0.2)
    assert sorted(opened.ids) == list("01234567")
    assert opened.metadata["refused"] == {"id seen before": 1}
    assert (
        bytes(opened.document(opened.ids.index("1")).astype("u1"))
        == (folder / "001.txt").read_bytes()
    )


def cut_short(file: Path) -> None:
    os.truncate(file, file.stat().st_size - 2)


def changed(file: Path) -> None:
    file.write_bytes(file.read_bytes()[::-1])


def test_a_short_shard_is_refused_and_made_again_after_deletion(
    folder: Path, tmp_path: Path, expected: dict[str, str]
) -> None:
    target = text_store(folder, tmp_path / "cache")
    target.make(target.missing())
    shard = tmp_of(target) / "00003"
    cut_short(shard / "tokens.bin")
    message = (
        rf"^{shard}/tokens\.bin is 4,998 bytes; by its manifest it must be 5,000; "
        rf"delete {shard} and run again$"
    )
    for refuse in (target.publish, target.verify):
        with pytest.raises(DataError, match=message):
            refuse()
    shutil.rmtree(shard)
    assert target.missing() == [3]
    build(target)
    assert content_of(tmp_path / "cache") == expected


def test_a_shard_of_other_bytes_is_refused_before_a_merge(folder: Path, tmp_path: Path) -> None:
    target = text_store(folder, tmp_path / "cache", workers=3)
    target.make(target.missing())
    target.verify()
    shard = tmp_of(target) / "00001"
    changed(shard / "tokens.bin")
    with pytest.raises(
        DataError, match=rf"^{shard}/tokens\.bin has sha256 [^\n]*; delete {shard} and run again$"
    ):
        target.verify()


@pytest.mark.parametrize("number", [0, 3, 4])
@pytest.mark.parametrize(
    "damage", [cut_short, Path.unlink, lambda file: file.write_bytes(file.read_bytes() + b"xx")]
)
def test_a_finished_store_with_a_shard_of_another_size_is_not_read(
    folder: Path,
    tmp_path: Path,
    expected: dict[str, str],
    number: int,
    damage: Callable[[Path], object],
) -> None:
    """Both ways out of the message work."""
    target = text_store(folder, tmp_path / "cache")
    shard = build(target) / shards.folder_name(number)
    damage(shard / "tokens.bin")
    with pytest.raises(
        DataError,
        match=rf"^{shard}/tokens\.bin is [\d,]* bytes; .* must be .*; delete {target.folder} and",
    ):
        store.load(target.folder, 0.2)
    shutil.rmtree(shard)
    target.folder.rename(tmp_of(target))
    assert target.missing() == [number]
    build(target)
    assert content_of(tmp_path / "cache") == expected
    shutil.rmtree(target.folder)
    build(target)
    assert content_of(tmp_path / "cache") == expected


# -- processes --

CHILD = """
import os, signal, sys, time
from pathlib import Path
sys.path.insert(0, {tests!r})
from stores import by_bytes, text_store
from ropewalk.data.tokens import shards
from ropewalk.data.sources import units
shards.SHARD_BYTES, units.UNIT_BYTES = 1000, 1
def encode(texts):
    if {die!r} and any({die!r} in text for text in texts):
        os.kill(os.getpid(), signal.SIGKILL)
    time.sleep(0.02)
    return by_bytes(texts)
target = text_store(Path({folder!r}), Path({cache!r}), encode)
target.make({numbers})
if {publish}:
    target.publish()
"""


def child(
    folder: Path, cache: Path, numbers: str, die: str = "", publish: bool = False
) -> subprocess.Popen[bytes]:
    """A process that makes `numbers`; it kills itself on the text `die`."""
    names = {
        "tests": str(Path(__file__).parents[2] / "helpers"),
        "folder": str(folder),
        "cache": str(cache),
    }
    code = CHILD.format(**names, numbers=numbers, die=die, publish=publish)
    return subprocess.Popen(
        [sys.executable, "-c", code], env={**os.environ, "OMP_NUM_THREADS": "1"}
    )


@pytest.mark.parametrize("shard", [0, 2, 4])
def test_killed_at_any_shard_and_run_again(
    folder: Path, tmp_path: Path, expected: dict[str, str], shard: int
) -> None:
    target, first_file = text_store(folder, tmp_path / "cache"), sum(map(len, SHARDS[:shard]))
    died = child(folder, tmp_path / "cache", "range(5)", die=f"{first_file} rope")
    assert died.wait(60) == -signal.SIGKILL
    assert target.missing() == list(range(shard, 5))
    before = {
        p: p.stat().st_mtime_ns
        for n in range(shard)
        for p in (tmp_of(target) / shards.folder_name(n)).iterdir()
    }
    assert (tmp_of(target) / f"{shard:05}.tmp").is_dir()  # the killed process was writing it
    target.make(target.missing())
    assert {p: p.stat().st_mtime_ns for p in before} == before and len(before) == 3 * shard
    target.publish()
    assert content_of(tmp_path / "cache") == expected


@pytest.mark.parametrize(
    "tasks", [["[0, 4]", "[1]", "[2]", "[3]"], ["range(5)"] * 3], ids=["shared out", "all of all"]
)
def test_processes_side_by_side(
    folder: Path, tmp_path: Path, expected: dict[str, str], tasks: list[str]
) -> None:
    """Separate or equal shards: no shard is made twice, and the last process publishes."""
    running = [
        child(folder, tmp_path / "cache", numbers, publish=len(set(tasks)) == 1)
        for numbers in tasks
    ]
    assert [process.wait(60) for process in running] == [0] * len(tasks)
    build(text_store(folder, tmp_path / "cache"))
    assert content_of(tmp_path / "cache") == expected


def test_killed_just_before_the_rename_loses_no_shard(
    folder: Path, tmp_path: Path, expected: dict[str, str]
) -> None:
    """Its manifest is written and the marker of the workspace is removed."""
    target = text_store(folder, tmp_path / "cache")
    build(target)
    target.folder.rename(tmp_of(target))
    before = sorted(p.stat().st_mtime_ns for p in tmp_of(target).glob("0*/*"))
    assert target.missing() == []
    build(target)
    assert (
        sorted(p.stat().st_mtime_ns for p in target.folder.glob("0*/*")) == before
        and len(before) == 15
    )
    assert content_of(tmp_path / "cache") == expected


def test_a_store_of_one_process_equals_one_written_by_hand(folder: Path, tmp_path: Path) -> None:
    """Checks the oracle of the tests above against separate documents."""
    numbers = iter(range(len(LENGTHS)))
    parts = [
        [
            Document(f"{n:03}.txt", (folder / f"{n:03}.txt").read_text())
            for _, n in zip(s, numbers, strict=False)
        ]
        for s in SHARDS
    ]
    by_hand, single = (
        stored(tmp_path / "hand", *parts, heldout=0.2),
        store.load(build(text_store(folder, tmp_path / "cache")), 0.2),
    )
    assert {k: v for k, v in single.metadata.items() if k != "kind"} == by_hand.metadata
    assert read_table(tmp_path / "hand" / store.DOCUMENTS).equals(
        read_table(text_store(folder, tmp_path / "cache").folder / store.DOCUMENTS)
    )
