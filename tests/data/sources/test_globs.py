"""Globs against Python's own, and paths that are globs as sources."""

import glob
import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ropewalk.conf.errors import DataError
from ropewalk.data.sources import globs

Read = Any
FILES = [
    "a.txt",
    "b.md",
    "x/a.txt",
    "x/b.md",
    "x/y/a.txt",
    "x/y/z/a.txt",
    "xx/a.txt",
    "xx/y/b.md",
    "y/x/a.txt",
]
PART = st.sampled_from(["*", "**", "x", "y", "x*", "?", "[xy]", "[!x]", "*.txt", "a.*", "a.txt"])


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    base = tmp_path_factory.mktemp("globs")
    for name in FILES:
        (base / name).parent.mkdir(parents=True, exist_ok=True)
        (base / name).write_text(f"{name} is here")
    return base


@settings(max_examples=300, deadline=None)
@given(parts=st.lists(PART, min_size=1, max_size=4))
def test_a_glob_matches_the_same_files_as_in_python(folder: Path, parts: list[str]) -> None:
    pattern = "/".join(parts)
    matching = {
        f
        for f in glob.glob(pattern, root_dir=folder, recursive=True)
        if not f.endswith("/") and (folder / f).is_file()
    }
    assert {name for name in FILES if globs.matches(name, pattern)} == matching
    parents = {
        parent.as_posix() for name in matching for parent in Path(name).parents if parent.name
    }
    assert all(globs.may_contain(parent, pattern) for parent in parents)


@pytest.mark.parametrize(
    "pattern", ["**/*.txt", "*.txt", "x/*", "x/**/a.txt", "[xy]/*/*.txt", "x*/y/*"]
)
def test_a_source_reads_the_files_of_its_glob(read: Read, folder: Path, pattern: str) -> None:
    good, bad = read(folder / pattern, "text")
    assert bad == {}
    paths = glob.glob(str(folder / pattern), recursive=True)
    assert sorted(good.values()) == sorted(Path(f).read_text() for f in paths if Path(f).is_file())


def test_ids_count_from_the_folder_before_the_first_star(read: Read, folder: Path) -> None:
    assert set(read(folder / "x/*/*.txt")[0]) == {"y/a.txt"}


def test_folders_without_a_possible_match_are_not_entered(
    read: Read, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    entered, real = [], os.scandir
    monkeypatch.setattr(os, "scandir", lambda path: entered.append(Path(path).name) or real(path))
    assert set(read(folder / "x*/*.txt", "text")[0]) == {"x/a.txt", "xx/a.txt"}
    assert entered == [folder.name, "x", "xx"]


def test_a_folder_with_a_bracket_in_its_name_is_itself(read: Read, tmp_path: Path) -> None:
    (tmp_path / "books[1]").mkdir()
    (tmp_path / "books[1]" / "a.txt").write_text("good")
    (tmp_path / "books1").mkdir()
    (tmp_path / "books1" / "b.txt").write_text("other")
    assert read(tmp_path / "books[1]")[0] == {"a.txt": "good"}


@pytest.mark.parametrize("pattern", ["*.parquet", "nowhere/**/*.txt"])
def test_a_glob_without_a_match_is_refused(read: Read, folder: Path, pattern: str) -> None:
    with pytest.raises(
        DataError, match=r"^data\.sources\.mine\.path is .*; no file matches it; correct the glob$"
    ):
        read(folder / pattern)


def test_pattern_is_for_names_and_with_a_slash_for_paths(read: Read, folder: Path) -> None:
    assert set(read(folder, "text", pattern="b.*")[0]) == {"b.md", "x/b.md", "xx/y/b.md"}
    assert set(read(folder, "text", pattern="x/*.*")[0]) == {"x/a.txt", "x/b.md"}


def test_a_glob_goes_through_no_link_to_a_folder(read: Read, tmp_path: Path) -> None:
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "secret.txt").write_text("secret")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "a.txt").write_text("good")
    (tmp_path / "mine" / "sub").symlink_to(tmp_path / "outside")
    (tmp_path / "mine" / "loop").symlink_to(tmp_path / "mine")
    refused = {"sub": "link leaves the folder", "loop": "link to a folder"}
    assert read(tmp_path / "mine" / "**" / "*.txt") == ({"a.txt": "good"}, refused)


def test_a_glob_may_name_a_folder_of_tests(read: Read, tmp_path: Path) -> None:
    (tmp_path / "a" / "test").mkdir(parents=True)
    (tmp_path / "a" / "test" / "rows.jsonl").write_text('{"text": "one"}')
    assert read(tmp_path / "**" / "test" / "*.jsonl")[0] == {"a/test/rows.jsonl@0": "one"}
