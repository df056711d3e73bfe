"""How a changed file is recognised, and which links are followed."""

import gzip
import hashlib
import os
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest

from ropewalk.conf.sources import SourceConfig
from ropewalk.data import sources

Read = Any
ARCHIVE_TIME = 315_532_800 * 10**9  # 1980, the first time that a zip holds


def cache_key(path: Path, **settings: Any) -> Any:
    """With a new cache, as on another machine."""
    listing = sources.list_source(SourceConfig(path=str(path), **settings), "mine")
    with TemporaryDirectory() as cache:
        return listing.identity(Path(cache))


def write(path: Path, text: bytes, time: int = ARCHIVE_TIME) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(text)
    os.utime(path, ns=(time, time))
    return path


@pytest.mark.parametrize("kind", ["text", "tree"])
@pytest.mark.parametrize("position", [0, 65_536, 200_000, 399_999])
def test_another_text_of_the_same_size_and_time_is_another_source(
    tmp_path: Path, kind: str, position: int
) -> None:
    for folder, change in (("one", b"a"), ("two", b"b"), ("same", b"a")):
        text = bytearray(b"x" * 400_000)
        text[position : position + 1] = change
        write(tmp_path / folder / "p" / "a.txt", bytes(text))
    first, second, same = (
        cache_key(tmp_path / folder, kind=kind) for folder in ("one", "two", "same")
    )
    assert first == same != second


def test_a_text_edited_under_its_time_is_another_source(tmp_path: Path) -> None:
    """In one cache, which has the digest of the text before."""
    cache = tmp_path / "cache"
    for name in ("texts", "texts/a.txt"):  # a folder, and a single file
        digests = []
        for text in (b"one", b"two"):
            write(tmp_path / "texts" / "a.txt", text, ARCHIVE_TIME + 1)
            listing = sources.list_source(SourceConfig(path=str(tmp_path / name)), "mine")
            digests.append(listing.identity(cache))
        assert digests[0] != digests[1]


def test_the_same_text_of_another_time_is_the_same_source(tmp_path: Path) -> None:
    for folder, time in (("one", ARCHIVE_TIME), ("two", ARCHIVE_TIME + 1)):
        write(tmp_path / folder / "a.txt", b"text", time)
    digest = hashlib.sha256(b"text").hexdigest()
    key = cache_key(tmp_path / "one")
    assert key == cache_key(tmp_path / "two") and key["files"] == [["a.txt", 4, digest]]


def test_pipes_and_unreadable_files_are_listed_without_waiting_for_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    os.mkfifo(tmp_path / "pipe.txt")
    write(tmp_path / "a.txt", b"text")
    (tmp_path / "gone.txt").symlink_to("nowhere")
    opened = Path.open

    def denied(self: Path, *args: Any, **kwargs: Any) -> Any:
        if self.parent == tmp_path:
            raise PermissionError(13, "Permission denied")
        return opened(self, *args, **kwargs)

    monkeypatch.setattr(Path, "open", denied)
    files = [["a.txt", 4, None], ["gone.txt", 0, None], ["pipe.txt", 0, None]]
    assert cache_key(tmp_path)["files"] == files


def snapshot(folder: Path) -> Path:
    """A folder of links as in a Hub cache."""
    write(folder / "blobs" / "0a1b", b'{"text": "one"}\n')
    write(folder / "blobs" / "2c3d", gzip.compress(b'{"text": "two"}\n', mtime=0))
    (folder / "snapshots" / "abc").mkdir(parents=True)
    for name, blob in (("a.jsonl", "0a1b"), ("b.jsonl.gz", "2c3d")):
        (folder / "snapshots" / "abc" / name).symlink_to(Path("../../blobs") / blob)
    return folder / "snapshots" / "abc"


def test_a_link_in_the_settings_is_read_under_its_name(read: Read, tmp_path: Path) -> None:
    folder = snapshot(tmp_path)
    assert read(folder / "a.jsonl") == ({"a.jsonl@0": "one"}, {})
    assert list(read(folder / "b.jsonl.gz")[0].values()) == ["two"]


def test_links_are_followed_on_request(read: Read, tmp_path: Path) -> None:
    folder = snapshot(tmp_path)
    assert read(folder, follow_links=True) == ({"a.jsonl@0": "one", "b.jsonl.gz@0": "two"}, {})
    assert len(read(folder / "*.gz", follow_links=True)[0]) == 1
    refused = "file: link leaves the folder (see follow_links)"
    assert read(folder) == ({}, {"a.jsonl": refused, "b.jsonl.gz": refused})


def test_followed_links_change_the_cache_key_only_by_their_files(tmp_path: Path) -> None:
    folder = snapshot(tmp_path)
    followed, left = cache_key(folder, follow_links=True), cache_key(folder)
    assert followed != left and followed.keys() == left.keys()
    write(tmp_path / "blobs" / "0a1b", b'{"text": "new"}\n')
    assert cache_key(folder) == left and cache_key(folder, follow_links=True) != followed
    write(tmp_path / "plain" / "a.jsonl", b"{}")
    assert cache_key(tmp_path / "plain") == cache_key(tmp_path / "plain", follow_links=True)


def test_loops_and_links_to_folders_are_never_followed(read: Read, tmp_path: Path) -> None:
    write(tmp_path / "outside" / "secret.txt", b"secret")
    write(tmp_path / "mine" / "a.txt", b"good")
    (tmp_path / "mine" / "sub").symlink_to(tmp_path / "outside")
    (tmp_path / "mine" / "x.txt").symlink_to("y.txt")
    (tmp_path / "mine" / "y.txt").symlink_to("x.txt")
    refused = {"sub": "link to a folder", "x.txt": "unreadable", "y.txt": "unreadable"}
    assert read(tmp_path / "mine", "text", follow_links=True) == ({"a.txt": "good"}, refused)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"path": "memory://a"}, "only folders of this machine have links; unset it"),
        (
            {"path": "a/b", "kind": "hub"},
            "it is read by kind tree, text, html, jsonl, parquet, arrow, mds, memmap, indexed, and "
            "this is hub",
        ),
    ],
)
def test_follow_links_is_refused_for_kinds_without_links(
    settings: dict[str, Any], message: str
) -> None:
    (line,) = SourceConfig(follow_links=True, **settings).problems("data.sources.mine.")
    assert line.startswith("data.sources.mine.follow_links is True; ") and message in line
    assert not list(
        SourceConfig(path="file:///a", follow_links=True).problems("data.sources.mine.")
    )
