"""URLs on fsspec's filesystems `memory` and `file`: as on disk; broken files stop the run."""

import gzip
import json
import pickle
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ropewalk.conf.errors import DataError
from ropewalk.conf.sources import SourceConfig
from ropewalk.data import sources
from ropewalk.data.sources import Document, remote, units

Read = Any


@pytest.fixture
def memory() -> Iterator[Any]:
    files = fsspec.filesystem("memory")
    yield files
    files.store.clear()
    files.pseudo_dirs[:] = [""]


def write_files(folder: Path) -> None:
    """A file of every kind, each in its own folder."""
    rows = [{"text": f"row {i}", "n": i} for i in range(50)]
    lines = "".join(json.dumps(row) + "\n" for row in rows).encode()
    table = pa.Table.from_pylist(rows)
    for name in ("lines", "gz", "parquet", "arrow", "text", "html", "tree/one", "tree/two"):
        (folder / name).mkdir(parents=True)
    (folder / "lines" / "a.jsonl").write_bytes(lines)
    (folder / "gz" / "a.jsonl.gz").write_bytes(gzip.compress(lines))
    pq.write_table(table, folder / "parquet" / "a.parquet", row_group_size=7)
    with (
        pa.OSFile(str(folder / "arrow" / "a.arrow"), "wb") as sink,
        pa.ipc.new_stream(sink, table.schema) as writer,
    ):
        writer.write_table(table, max_chunksize=7)
    (folder / "text" / "a.txt").write_text("é")
    (folder / "text" / "b.md").write_bytes(b"\xff")
    (folder / "html" / "a.html").write_text("<p>a")
    for name in ("tree/one/x.c", "tree/one/.hidden", "tree/two/y.c"):
        (folder / name).write_text(name)


KINDS = ["lines", "gz", "parquet", "arrow", "text", "html", "tree"]


@pytest.mark.parametrize("size", [100, 1 << 26])
@pytest.mark.parametrize("name", KINDS)
def test_a_url_gives_the_same_documents_as_a_folder(
    read: Read, tmp_path: Path, memory: Any, monkeypatch: pytest.MonkeyPatch, name: str, size: int
) -> None:
    monkeypatch.setattr(units, "UNIT_BYTES", size)
    write_files(tmp_path)
    memory.put(str(tmp_path), "/bucket", recursive=True)
    expected = read(tmp_path / name)
    assert expected[0]
    assert read(f"memory://bucket/{name}") == expected
    assert read(f"file://{tmp_path / name}") == expected


RECORDED = Path(__file__).parent / "recorded"


@pytest.mark.parametrize("size", [64, 1 << 26])
@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("mds", {"ids_key": "input_ids"}),
        ("mds_gz", {"ids_key": "input_ids"}),
        ("megatron", {"kind": "indexed"}),
        ("megatron", {"kind": "memmap", "pattern": "narrow.bin", "ids_dtype": "uint16"}),
    ],
)
def test_a_url_gives_the_same_token_ids_as_a_folder(
    memory: Any, monkeypatch: pytest.MonkeyPatch, name: str, settings: dict[str, Any], size: int
) -> None:
    monkeypatch.setattr(units, "UNIT_BYTES", size)
    memory.put(str(RECORDED / name), f"/bucket/{name}", recursive=True)

    def ids(path: str) -> dict[str, list[int]]:
        source = SourceConfig(path=path, **settings)
        listing = sources.list_source(source, "mine").cut_at(0, None)
        items = [item for unit in listing.units for item in listing.documents(unit)]
        return {item.id: item.ids.tolist() for item in items}  # type: ignore[union-attr]

    expected = ids(str(RECORDED / name))
    assert len(expected) > 6 and ids(f"memory://bucket/{name}") == expected


def test_a_url_of_one_file_and_a_glob(read: Read, tmp_path: Path, memory: Any) -> None:
    write_files(tmp_path)
    memory.put(str(tmp_path), "/bucket", recursive=True)
    assert read("memory://bucket/text/a.txt") == ({"a.txt": "é"}, {})
    assert set(read("memory://bucket/**/*.c")[0]) == {"tree"}
    assert set(read("memory://bucket/tree/*/*.c", "text")[0]) == {"one/x.c", "two/y.c"}
    assert set(read("memory://bucket/*/a.*", "text", pattern="*.txt")[0]) == {"text/a.txt"}


def test_a_query_does_not_hide_the_suffix(read: Read, memory: Any) -> None:
    memory.pipe("/bucket/a.jsonl.gz?download=true", gzip.compress(b'{"text": "one"}'))
    assert list(read("memory://bucket/a.jsonl.gz?download=true")[0].values()) == ["one"]


def test_identity_changes_with_the_content_and_not_with_the_bucket(memory: Any) -> None:
    def cache_key(bucket: str) -> Any:
        return sources.list_source(SourceConfig(path=f"memory://{bucket}"), "mine").identity(
            Path("unused")
        )

    memory.pipe("/one/a.txt", b"first")
    before = cache_key("one")
    memory.pipe("/one/a.txt", b"other")
    assert cache_key("one") != before
    memory.copy("/one/a.txt", "/two/a.txt")
    assert [row[:2] for row in cache_key("two")["files"]] == [["a.txt", 5]]


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("memory://nowhere", r"it must be an existing file or folder, a glob or a URL"),
        ("memory://nowhere/*.txt", r"no file matches it; correct the glob"),
        ("nosuch://bucket/a", r"it needs a package that reads such URLs; .*nosuch"),
    ],
)
def test_urls_without_files_are_refused(read: Read, url: str, message: str) -> None:
    with pytest.raises(DataError, match=rf"^data\.sources\.mine\.path is .*; {message}") as error:
        read(url)
    assert "\n" not in str(error.value)


def test_a_protocol_without_its_package_names_the_package(
    read: Read, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(__import__("sys").modules, "s3fs", None)
    with pytest.raises(
        DataError,
        match=r"^data\.sources\.mine\.path is s3://b/a; it needs a package .*Install s3fs",
    ):
        read("s3://b/a")


class Lost(Exception):
    """An exception of a driver that is not an OSError."""


@pytest.mark.parametrize("error", [Lost, OSError, TimeoutError, PermissionError])
@pytest.mark.parametrize("name", KINDS)
def test_a_broken_connection_stops_the_run_and_is_not_counted_as_damage(
    read: Read,
    tmp_path: Path,
    memory: Any,
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    error: type[Exception],
) -> None:
    write_files(tmp_path)
    memory.put(str(tmp_path), "/bucket", recursive=True)
    from fsspec.implementations.memory import MemoryFile

    def lost(*_: Any) -> None:
        raise error("the line is dead")

    monkeypatch.setattr(MemoryFile, "read", lost)
    message = (
        r"^data\.sources\.mine\.path is memory://bucket/.*could not be read to its end "
        rf"\({error.__name__}: .*; run again"
    )
    with pytest.raises(DataError, match=message):
        read(f"memory://bucket/{name}")


def test_a_failed_listing_is_refused(
    read: Read, memory: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def lost(*_: Any, **__: Any) -> None:
        raise Lost("no credentials\nat all")

    monkeypatch.setattr(type(memory), "find", lost)
    with pytest.raises(
        DataError, match=r"it could not be listed \(Lost: no credentials\); correct the URL"
    ) as error:
        read("memory://bucket")
    assert "\n" not in str(error.value)


def test_a_path_out_of_the_folder_is_refused(
    read: Read, memory: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    memory.pipe("/bucket/a.txt", b"good")
    real = type(memory).find

    def find(self: Any, *args: Any, **kwargs: Any) -> Any:
        return {**real(self, *args, **kwargs), "/bucket/../b.txt": {"size": 3, "created": "now"}}

    monkeypatch.setattr(type(memory), "find", find)
    assert read("memory://bucket") == ({"a.txt": "good"}, {"../b.txt": "path leaves the folder"})


def test_units_are_read_in_another_process_form(memory: Any) -> None:
    memory.pipe("/bucket/a.txt", b"good")
    source = SourceConfig(path="memory://bucket")
    listing = pickle.loads(pickle.dumps(sources.list_source(source, "mine")))
    assert list(listing.documents(listing.units[0])) == [Document("a.txt", "good")]


def test_a_file_without_a_known_size_is_read_whole(
    memory: Any, read: Read, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Like some web servers: no size, or no ranges."""
    monkeypatch.setattr(units, "UNIT_BYTES", 10)
    memory.pipe("/bucket/a.jsonl", b'{"text": "one"}\n' * 5)
    real = type(memory).info
    for info in ({"size": None}, {"partial": False}):
        monkeypatch.setattr(
            type(memory), "info", lambda self, path, info=info: {**real(self, path), **info}
        )
        assert (
            len(sources.list_source(SourceConfig(path="memory://bucket/a.jsonl"), "mine").units)
            == 1
        )
        assert len(read("memory://bucket/a.jsonl")[0]) == 5


@pytest.mark.parametrize(
    ("info", "size"),
    [
        ({"size": 7}, 7),
        ({"size": 7, "partial": True}, 7),
        ({"size": 7, "partial": False}, 0),
        ({"size": None}, 0),
        ({}, 0),
    ],
)
def test_only_a_file_whose_parts_a_server_sends_has_a_size(info: dict[str, Any], size: int) -> None:
    place = remote.Remote("memory://bucket", "data.sources.mine.path")
    file = remote._file(place, "a.jsonl", {**info, "checksum": "c"})
    assert (file.name, file.size, file.stamp) == ("a.jsonl", size, "c")
    assert remote._file(place, "a/../b.jsonl", info).stamp is None


def without_time(memory: Any, monkeypatch: pytest.MonkeyPatch, **info: Any) -> None:
    """A server that gives no time."""
    real = type(memory).info
    overrides = {"created": None, **info}
    monkeypatch.setattr(type(memory), "info", lambda self, path: {**real(self, path), **overrides})


def stamp(url: str) -> Any:
    ((_, _, value),) = sources.list_source(SourceConfig(path=url), "mine").identity(Path("unused"))[
        "files"
    ]
    return value


@pytest.mark.parametrize("info", [{}, {"partial": False}, {"size": None}])
def test_two_texts_without_stamps_are_two_sources(
    memory: Any,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    info: dict[str, Any],
) -> None:
    without_time(memory, monkeypatch, **info)
    for bucket, text in (("one", "aaa"), ("two", "bbb"), ("same", "aaa")):
        memory.pipe(f"/{bucket}/data.jsonl", f'{{"text": "{text}"}}'.encode())
    first, second, same = (
        stamp(f"memory://{bucket}/data.jsonl") for bucket in ("one", "two", "same")
    )
    assert first != second and first == same  # read whole: the content itself is known
    assert capsys.readouterr().out == ""


def test_a_long_text_without_stamps_is_known_by_its_url_and_head_with_a_warning(
    memory: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    without_time(memory, monkeypatch, partial=False)
    for bucket in ("one", "two"):
        memory.pipe(f"/{bucket}/data.jsonl?key=secret", b'{"text": "a"}\n' * 100_000)
    urls = [f"memory://{bucket}/data.jsonl?key=secret" for bucket in ("one", "two")]
    stamps = [stamp(url) for url in urls]
    assert stamps[0] != stamps[1] and stamp(urls[0]) == stamps[0]
    assert "secret" not in stamps[0]
    (line,) = set(capsys.readouterr().out.splitlines())
    assert line.startswith(
        "data.sources.mine.path: the server gives no time, tag or digest of data.jsonl; "
    )
    memory.pipe("/one/data.jsonl?key=secret", b'{"text": "b"}\n' * 100_000)
    assert stamp(urls[0]) != stamps[0]
    memory.pipe("/one/data.jsonl?key=secret", b'{"text": "a"}\n' * 100_001)
    assert stamp(urls[0]) != stamps[0]


def test_another_head_of_a_long_text_of_equal_size_and_time_is_another_source(
    memory: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    without_time(memory, monkeypatch, mtime=1)
    stamps = set()
    for text in (b'{"text": "a"}\n', b'{"text": "b"}\n'):
        memory.pipe("/one/data.jsonl", text * 100_000)
        stamps.add(stamp("memory://one/data.jsonl"))
    assert len(stamps) == 2


@pytest.mark.parametrize(
    "info", [{"mtime": 1}, {"Last-Modified": "now"}, {"etag": 'W/"65a-3f"'}, {"etag": "x"}]
)
def test_a_tag_is_of_one_url_and_a_digest_of_any(
    memory: Any, monkeypatch: pytest.MonkeyPatch, info: dict[str, Any]
) -> None:
    """A time, and a tag that is made of one, are no identity: the text is read."""
    for bucket, text in (("one", b"same"), ("two", b"same"), ("other", b"emas")):
        memory.pipe(f"/{bucket}/a.txt", text)
    with pytest.MonkeyPatch.context() as patch:
        without_time(memory, patch, **info)
        one, two, other = (stamp(f"memory://{bucket}/a.txt") for bucket in ("one", "two", "other"))
        assert one != other and (one == two) == (info != {"etag": "x"})
    without_time(memory, monkeypatch, ETag="digest", **info)  # as a bucket's is
    assert stamp("memory://one/a.txt") == stamp("memory://two/a.txt") == "digest"


def test_the_url_hash_ignores_the_user() -> None:
    from ropewalk.data.sources.remote import _url_hash

    assert (
        _url_hash("https://me:secret@host/a")
        == _url_hash("https://host/a")
        != _url_hash("https://host/b")
    )
    assert _url_hash("https://host/a@b") != _url_hash("https://host/b")


def test_an_unreadable_head_of_a_file_stops_the_run(
    read: Read, memory: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from fsspec.implementations.memory import MemoryFile

    memory.pipe("/bucket/a.txt", b"text")
    without_time(memory, monkeypatch)

    def lost(*_: Any) -> None:
        raise Lost("the line is dead")

    monkeypatch.setattr(MemoryFile, "read", lost)
    with pytest.raises(
        DataError, match=r"a.txt could not be read to its end \(Lost: the line is dead\); run again"
    ):
        read("memory://bucket/a.txt")
