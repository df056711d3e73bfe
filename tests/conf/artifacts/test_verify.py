"""The files of a finished stage against `sha256sum`; a large one is read again when it changed."""

import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from ropewalk.conf.artifacts import digests
from ropewalk.conf.artifacts.verify import LARGE, digests_of, find_damage

CHANGED = "{} is not what was written (sha256)"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "stage"
    (folder / "model").mkdir(parents=True)
    (folder / "small").write_bytes(b"0123")
    (folder / "model" / "large").write_bytes(os.urandom(LARGE))
    return folder


def flip(path: Path) -> None:
    """One byte, at the same size; the time of the change in content is put back."""
    stat, content = path.stat(), bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))


def test_digests_are_those_of_sha256sum_by_relative_path(folder: Path) -> None:
    listed = subprocess.run(
        ["sha256sum", "small", "model/large"], cwd=folder, capture_output=True, text=True
    )
    rows = [line.split() for line in listed.stdout.splitlines()]
    assert digests_of(folder) == {name: digest for digest, name in rows}
    assert list(digests_of(folder, ["model", "missing"])) == ["model/large"]


def test_hidden_files_do_not_count(folder: Path) -> None:
    files = digests_of(folder)
    (folder / ".DS_Store").touch()
    assert digests_of(folder) == files and not find_damage(folder, files)


@pytest.mark.parametrize("name", ["small", "model/large"])
@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (flip, CHANGED),
        (lambda path: path.write_bytes(path.read_bytes()[:-1]), CHANGED),
        (Path.unlink, "{} is missing"),
        (lambda path: [path.unlink(), path.mkdir()], "{} is no file"),
    ],
)
def test_damage_is_found_by_name(
    folder: Path, name: str, damage: Callable[[Path], object], message: str
) -> None:
    files = digests_of(folder)
    assert find_damage(folder, files) == find_damage(folder, files) == ""
    damage(folder / name)
    assert find_damage(folder, files) == message.format(name)


def test_a_folder_that_is_gone_is_damaged(folder: Path) -> None:
    files = digests_of(folder)
    folder.rename(folder.with_name("elsewhere"))
    assert find_damage(folder, files) == "model/large is missing"


def test_a_large_file_is_read_once(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    reads, original = list[str](), digests.file_digest
    monkeypatch.setattr(digests, "file_digest", lambda p: reads.append(p.name) or original(p))  # type: ignore[func-returns-value]
    files = digests_of(folder)
    for _ in range(3):
        assert find_damage(folder, files) == ""
    assert reads == ["large"]
    (folder.parent / ".stage.digests").write_text("garbage")
    assert find_damage(folder, files) == "" and reads == ["large", "large"]
