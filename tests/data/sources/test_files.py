"""Text files and trees: bad files are counted by reason, and the others are read."""

import hashlib
import os
from pathlib import Path
from typing import Any

import pytest

from ropewalk.conf.errors import DataError
from ropewalk.conf.sources import SourceConfig
from ropewalk.data import sources
from ropewalk.data.sources import units

Read = Any


def kind_of(path: Path) -> str:
    return sources.list_source(SourceConfig(path=str(path)), "mine").kind


def test_bad_text_files_are_counted(read: Read, tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes(b"caf\xe9")
    (tmp_path / "b.txt").write_bytes(b" \n")
    (tmp_path / "c.txt").write_text("good")
    assert read(tmp_path) == ({"c.txt": "good"}, {"a.txt": "not UTF-8", "b.txt": "empty"})


KINDS = ["text", "html", "tree", "jsonl", "parquet", "arrow"]
ROWS = {"jsonl", "parquet", "arrow"}  # the number of documents in such a file is unknown
END = {
    "text": ".txt",
    "html": ".html",
    "arrow": ".arrow",
    "tree": ".txt",
    "jsonl": ".jsonl",
    "parquet": ".parquet",
}


@pytest.mark.parametrize("kind", KINDS)
def test_a_link_out_of_the_folder_is_refused(read: Read, tmp_path: Path, kind: str) -> None:
    (tmp_path / "secret").write_text("secret")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / f"a{END[kind]}").symlink_to(tmp_path / "secret")
    assert read(tmp_path / "mine", kind) == (
        {},
        {f"a{END[kind]}": "file: " * (kind in ROWS) + "link leaves the folder (see follow_links)"},
    )


def test_link_into_the_folder_is_read(read: Read, tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("good")
    (tmp_path / "b.txt").symlink_to("a.txt")
    assert read(tmp_path) == ({"a.txt": "good", "b.txt": "good"}, {})


def test_link_to_a_folder_outside_is_not_followed(read: Read, tmp_path: Path) -> None:
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "secret.txt").write_text("secret")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "a.txt").write_text("good")
    (tmp_path / "mine" / "sub").symlink_to(tmp_path / "outside")
    assert read(tmp_path / "mine")[0] == {"a.txt": "good"}


def test_link_to_a_folder_is_counted(read: Read, tmp_path: Path) -> None:
    (tmp_path / "outside").mkdir()
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "a.txt").write_text("good")
    (tmp_path / "mine" / "sub").symlink_to(tmp_path / "outside")
    assert "sub" in read(tmp_path / "mine")[1]


@pytest.mark.parametrize("kind", KINDS)
def test_link_loop_is_counted(read: Read, tmp_path: Path, kind: str) -> None:
    first, second = tmp_path / f"a{END[kind]}", tmp_path / f"b{END[kind]}"
    first.symlink_to(second)
    second.symlink_to(first)
    good, bad = read(tmp_path, kind)
    assert good == {} and set(bad) == {first.name, second.name}


def test_a_folder_with_a_link_to_itself_is_read_once(read: Read, tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("good")
    (tmp_path / "again").symlink_to(tmp_path)
    assert read(tmp_path)[0] == {"a.txt": "good"}


@pytest.mark.parametrize("kind", KINDS)
def test_dangling_link_is_unreadable(read: Read, tmp_path: Path, kind: str) -> None:
    (tmp_path / f"a{END[kind]}").symlink_to("nowhere")
    assert list(read(tmp_path, kind)[1].values()) == ["file: " * (kind in ROWS) + "unreadable"]


@pytest.mark.parametrize("kind", KINDS)
def test_a_file_without_read_permission_is_unreadable(
    read: Read, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    (tmp_path / f"a{END[kind]}").write_text("anything")

    def denied(*_: object, **__: object) -> None:
        raise PermissionError(
            13, "Permission denied"
        )  # root may read everything, so chmod proves nothing in CI

    monkeypatch.setattr(Path, "open", denied)
    monkeypatch.setattr("pyarrow.memory_map", denied)
    assert list(read(tmp_path, kind)[1].values()) == ["file: " * (kind in ROWS) + "unreadable"]


def test_a_folder_without_read_permission_is_refused(
    read: Read, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
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


def test_a_file_name_that_is_not_utf8_is_refused(read: Read, tmp_path: Path) -> None:
    with open(os.fsencode(tmp_path) + b"/x\xff.txt", "wb") as file:
        file.write(b"good")
    good, bad = read(tmp_path)
    assert good == {}
    assert list(bad.values()) == ["file name is not UTF-8"]
    assert all(where.encode() for where in bad)  # the location must be writable too


def test_tree_joins_the_files_of_a_folder_in_order(read: Read, tmp_path: Path) -> None:
    (tmp_path / "pack" / "sub").mkdir(parents=True)
    (tmp_path / "pack" / "b.py").write_text("b = 2\n")
    (tmp_path / "pack" / "sub" / "a.py").write_text("a = 1\n")
    (tmp_path / "alone.py").write_text("c = 3\n")
    assert read(tmp_path, "tree") == (
        {
            "alone.py": "# alone.py\nc = 3\n\n",
            "pack": "# pack/b.py\nb = 2\n\n# pack/sub/a.py\na = 1\n\n",
        },
        {},
    )


def test_tree_refuses_one_file_and_keeps_the_others(read: Read, tmp_path: Path) -> None:
    (tmp_path / "pack").mkdir()
    (tmp_path / "pack" / "a.py").write_bytes(b"\xff\xfe")
    (tmp_path / "pack" / "b.py").write_text("b = 2\n")
    assert read(tmp_path, "tree") == (
        {"pack": "# pack/b.py\nb = 2\n\n"},
        {"pack/a.py": "not UTF-8"},
    )


@pytest.mark.parametrize(
    ("names", "kind"),
    [
        (["a.txt", "b.md"], "text"),
        (["a.jsonl", "b.jsonl.gz"], "jsonl"),
        (["a.parquet"], "parquet"),
        (["a.arrow", "state.jsn"], "arrow"),
        (["a.html", "b.htm"], "html"),
        (["a.html", "b.css"], "tree"),
        (["a.py", "b.c"], "tree"),
        pytest.param(["a.py", "README.md"], "tree", id="code with a readme"),
    ],
)
def test_auto_kind(read: Read, tmp_path: Path, names: list[str], kind: str) -> None:
    for name in names:
        (tmp_path / name).write_text("a")
    assert kind_of(tmp_path) == kind


def test_auto_kind_ignores_skipped_folders(read: Read, tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("good")
    (tmp_path / ".cache").mkdir()
    (tmp_path / ".cache" / "b.jsonl").write_text("{}")
    assert read(tmp_path)[0] == {"a.txt": "good"}


def test_two_kinds_in_a_folder_are_refused_with_the_way_out(read: Read, tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").touch()
    (tmp_path / "b.parquet").touch()
    with pytest.raises(DataError, match=r"holds jsonl and parquet; set data\.sources\.mine\.kind"):
        read(tmp_path)


def test_single_file_is_a_source(read: Read, tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"text": "one"}\n')
    (tmp_path / "b.jsonl").write_text('{"text": "two"}\n')
    assert read(tmp_path / "a.jsonl") == ({"a.jsonl@0": "one"}, {})


def test_a_pattern_selects_files(read: Read, tmp_path: Path) -> None:
    (tmp_path / "a.py").write_text("a")
    (tmp_path / "b.c").write_text("b")
    assert read(tmp_path, "text", pattern="*.c") == ({"b.c": "b"}, {})


def test_missing_path_is_refused_by_its_key(read: Read, tmp_path: Path) -> None:
    with pytest.raises(
        DataError, match=r"data\.sources\.mine\.path is .*gone; it must be an existing"
    ):
        read(tmp_path / "gone")


def test_rows_in_a_folder_named_test_are_read_and_a_source_tree_leaves_its_tests_out(
    read: Read, tmp_path: Path
) -> None:
    for name, text in (
        ("data/train/a.jsonl", '{"text": "one"}'),
        ("data/test/b.jsonl", '{"text": "two"}'),
    ):
        (tmp_path / name).parent.mkdir(parents=True)
        (tmp_path / name).write_text(text)
    assert read(tmp_path / "data")[0] == {"train/a.jsonl@0": "one", "test/b.jsonl@0": "two"}
    for name in ("code/a/x.py", "code/a/tests/test_x.py", "code/tests/rows.jsonl"):
        (tmp_path / name).parent.mkdir(parents=True)
        (tmp_path / name).write_text("x = 1\n")
    assert read(tmp_path / "code")[0] == {"a": "# a/x.py\nx = 1\n\n"}


@pytest.mark.parametrize("names", [["a.html", "b.txt"], ["a.txt", "b.jsonl", "c.arrow"]])
def test_auto_refuses_ambiguous_folders(tmp_path: Path, names: list[str]) -> None:
    for name in names:
        (tmp_path / name).write_text("a")
    with pytest.raises(
        DataError, match=r"^data\.sources\.mine\.kind is auto; .* set data\.sources\.mine\.kind"
    ):
        kind_of(tmp_path)


def test_text_with_a_nul_byte_is_refused_and_leaves_the_rest_of_its_tree(
    read: Read, tmp_path: Path
) -> None:
    (tmp_path / "p").mkdir()
    (tmp_path / "p" / "a.c").write_bytes(b"a\0b")
    (tmp_path / "p" / "b.c").write_bytes(b"good")
    assert read(tmp_path, "tree") == ({"p": "# p/b.c\ngood\n\n"}, {"p/a.c": "NUL byte"})
    assert read(tmp_path, "text", pattern="*.c") == ({"p/b.c": "good"}, {"p/a.c": "NUL byte"})


def test_a_pipe_is_refused_without_waiting(read: Read, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "a.txt")
    assert read(tmp_path, "text") == ({}, {"a.txt": "not a regular file"})


@pytest.mark.parametrize("kind", ["auto", *KINDS])
def test_empty_listing_is_refused(read: Read, tmp_path: Path, kind: str) -> None:
    with pytest.raises(
        DataError,
        match=rf"holds no file for kind {'tree' if kind == 'auto' else kind}; correct the path",
    ):
        read(tmp_path, kind)


def test_a_setting_that_the_detected_kind_does_not_read_is_refused(
    read: Read, tmp_path: Path
) -> None:
    (tmp_path / "a.txt").write_text("good")
    for key in ("id_key", "split", "revision"):
        with pytest.raises(
            DataError, match=rf"^data\.sources\.mine\.{key} is 'x'; .* this is text; unset one"
        ):
            read(tmp_path, **{key: "x"})


def test_small_files_share_a_unit_and_a_tree_is_never_cut(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("a/1", "a/2", "a/3", "b/1", "c/1", "d"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("x" * 10)
    monkeypatch.setattr(units, "UNIT_BYTES", 20)
    configs = (
        SourceConfig(path=str(tmp_path), kind=kind, pattern="*") for kind in ("tree", "text")
    )
    trees, texts = (sources.list_source(config, "mine").units for config in configs)
    assert [(u.files, u.size) for u in trees] == [
        (("a/1", "a/2", "a/3"), 30),
        (("b/1", "c/1"), 20),
        (("d",), 10),
    ]
    assert [u.files for u in texts] == [("a/1", "a/2"), ("a/3", "b/1"), ("c/1", "d")]


def test_cache_key_depends_on_files_and_settings_not_on_the_folder(tmp_path: Path) -> None:
    for folder in ("one", "two"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "a.jsonl").write_text('{"text": "a", "body": "b"}')
        os.utime(tmp_path / folder / "a.jsonl", ns=(7, 7))

    def cache_key(folder: str, **settings: Any) -> Any:
        listing = sources.list_source(SourceConfig(path=str(tmp_path / folder), **settings), "mine")
        return listing.identity(tmp_path / "cache")

    digest = hashlib.sha256(b'{"text": "a", "body": "b"}').hexdigest()
    files = [["a.jsonl", 26, digest]]
    assert (
        cache_key("one")
        == {"kind": "jsonl", "text_key": "text", "files": files}
        == cache_key("two")
    )
    choices = [
        {},
        {"text_key": "body"},
        {"template": "{body}"},
        {"id_key": "body"},
        {"kind": "tree"},
    ]
    assert len({str(cache_key("one", **choice)) for choice in choices}) == 5
    assert cache_key("one", kind="tree") == {"kind": "tree", "files": files}
    os.utime(tmp_path / "two" / "a.jsonl", ns=(8, 8))
    assert cache_key("one") == cache_key("two")


def test_standard_library_gives_packages_without_their_tests() -> None:
    listing = sources.list_source(SourceConfig(path="python:stdlib"), "stdlib")
    files = [Path(name) for unit in listing.units for name in unit.files]
    assert listing.kind == "tree"
    assert Path("json/decoder.py") in files
    assert not [
        p for p in files if {"test", "tests", "site-packages"} & set(p.parts) or p.suffix != ".py"
    ]


@pytest.mark.parametrize(
    ("kind", "text"), [("text", "good"), ("html", "good"), ("tree", "# a.x\ngood\n\n")]
)
def test_a_byte_order_mark_is_not_text(read: Read, tmp_path: Path, kind: str, text: str) -> None:
    (tmp_path / "a.x").write_bytes(b"\xef\xbb\xbfgood")
    assert list(read(tmp_path, kind, pattern="*.x")[0].values()) == [text]
