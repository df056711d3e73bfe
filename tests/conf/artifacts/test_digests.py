"""Digests of files: equal to `sha256sum`'s, read once, and never those of a former content."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from ropewalk.conf.artifacts import digests
from ropewalk.conf.artifacts.digests import file_digest, file_digests


def sha256sum(path: Path) -> str:
    return subprocess.run(["sha256sum", path], capture_output=True, text=True).stdout.split()[0]


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the files that are hashed."""
    names = list[str]()

    def counted(path: Path) -> str:
        names.append(path.name)
        return file_digest(path)

    monkeypatch.setattr(digests, "file_digest", counted)
    return names


@pytest.mark.parametrize("size", [0, 1, 1 << 18, (1 << 18) + 1])
def test_the_digest_is_that_of_sha256sum(tmp_path: Path, size: int) -> None:
    (tmp_path / "file").write_bytes(os.urandom(size))
    assert file_digest(tmp_path / "file") == sha256sum(tmp_path / "file")


def test_an_unchanged_file_is_read_once(tmp_path: Path, reads: list[str]) -> None:
    folder, cache = tmp_path / "folder", tmp_path / "cache"
    folder.mkdir()
    for name in "ab":
        (folder / name).write_text(name)
    first = file_digests(folder, "ab", cache)
    assert file_digests(folder, "ab", cache) == first
    assert first == {name: sha256sum(folder / name) for name in "ab"}
    assert sorted(reads) == ["a", "b"]


@pytest.mark.parametrize("way", ["write", "replace", "link"])
def test_another_content_of_equal_size_and_time_is_seen(tmp_path: Path, way: str) -> None:
    """Each change directly after a look, so that it may fall into the same tick of the clock."""
    folder, cache, file = tmp_path / "folder", tmp_path / "cache", tmp_path / "folder" / "file"
    folder.mkdir()
    file.write_bytes(b"0000")
    for number in range(20):
        stat = file.stat()
        other = tmp_path / f"other{number}"
        other.write_bytes(b"%4d" % number)
        if way == "write":
            file.write_bytes(other.read_bytes())
        elif way == "replace":
            os.replace(other, file)
        else:
            file.unlink()
            file.symlink_to(other)
        os.utime(file, ns=(stat.st_atime_ns, stat.st_mtime_ns))
        assert file_digests(folder, ["file"], cache) == {"file": sha256sum(file)}


def test_a_clock_of_whole_seconds_is_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the file system keeps whole seconds, a read counts when that second has passed."""
    waits = list[float]()
    monkeypatch.setattr(digests.time, "sleep", waits.append)
    monkeypatch.setattr(digests.time, "time_ns", lambda: 1_700_000_000_500_000_000)
    assert digests._wait_for_next_tick(1_700_000_000_000_000_000)
    assert waits == [1.5]
    assert not digests._wait_for_next_tick(1_700_000_001_000_000_000)  # of a clock that is ahead


@pytest.mark.parametrize("damage", ["", "{", "[]", "digit"])
def test_a_damaged_record_is_made_again(tmp_path: Path, damage: str) -> None:
    (tmp_path / "file").write_text("text")
    expected = file_digests(tmp_path, ["file"], tmp_path / "cache")
    record = next((tmp_path / "cache" / "digests").glob("*.json"))
    digest = expected["file"]
    other = digest[:-1] + ("0" if digest[-1] != "0" else "1")
    record.write_text(record.read_text().replace(digest, other) if damage == "digit" else damage)
    assert file_digests(tmp_path, ["file"], tmp_path / "cache") == expected


def test_a_file_that_cannot_be_read_has_no_digest(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to("nowhere")
    (tmp_path / "folder").mkdir()
    assert file_digests(tmp_path, ["link", "folder", "none"], tmp_path / "cache") == {}


def test_the_record_forgets_files_that_are_gone(tmp_path: Path) -> None:
    for name in "ab":
        (tmp_path / name).write_text(name)
    file_digests(tmp_path, "ab", tmp_path / "cache")
    (tmp_path / "a").unlink()
    shutil.copy(tmp_path / "b", tmp_path / "c")
    file_digests(tmp_path, "bc", tmp_path / "cache")
    record = next((tmp_path / "cache" / "digests").glob("*.json"))
    assert '"a"' not in record.read_text() and '"b"' in record.read_text()


@pytest.mark.parametrize(
    ("age", "waits"), [(-1, []), (0, [0.02]), (5_000_000, [0.015]), (20_000_000, [0.0])]
)
def test_a_tick_of_twenty_milliseconds_is_waited_for(
    monkeypatch: pytest.MonkeyPatch, age: int, waits: list[float]
) -> None:
    """From a tick's first nanosecond to its last; a change in the future never settles."""
    changed, waited = 1_700_000_000_000_000_001, list[float]()
    monkeypatch.setattr(digests.time, "sleep", waited.append)
    monkeypatch.setattr(digests.time, "time_ns", lambda: changed + age)
    assert digests._wait_for_next_tick(changed) == (age >= 0) and waited == waits
    monkeypatch.setattr(digests.time, "time_ns", lambda: changed + 20_000_001)
    assert digests._wait_for_next_tick(changed) and waited == waits
