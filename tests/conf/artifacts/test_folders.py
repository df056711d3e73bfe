"""Names and folders at the limits of Linux: 255 bytes in a name, 4,095 in a path."""

import os
from pathlib import Path

import pytest

from ropewalk.conf.artifacts import folders


@pytest.mark.parametrize(
    ("name", "problem"),
    [
        ("run", None),
        ("a" * 239, None),
        ("a" * 240, "it has 240 bytes, and a run's name may have 239"),
        ("ü" * 119, None),
        ("ü" * 120, "it has 240 bytes"),
        ("", "it is empty"),
        (" ", "it is empty"),
        (".", "it leads to another folder"),
        ("..", "it leads to another folder"),
        ("a/b", "it leads to another folder"),
        ("a\0b", "it has a NUL byte"),
        (".a", "a dot at the beginning hides it"),
        ("a.", None),
        ("a\nb", "it has a line break or another control character"),
    ],
)
def test_names_that_are_no_folder_of_a_run(name: str, problem: str | None) -> None:
    told = folders.name_problem(name)
    assert told is None if problem is None else str(told).startswith(problem)


@pytest.mark.parametrize(
    ("path", "good"),
    [
        ("/" + "a" * 255, True),
        ("/" + "a" * 256, False),
        ("/a" * 2047 + "/", True),
        ("/a" * 2047 + "/b", False),
    ],
)
def test_a_path_has_names_of_255_bytes_and_4095_in_all(path: str, good: bool) -> None:
    assert (folders._why_no_path(Path(path)) is None) is good or len(str(Path(path))) < len(path)
    assert folders._why_no_path(Path("/a\0b")) == "it has a NUL byte"


def test_a_long_text_is_shown_with_dots_in_sixty_characters() -> None:
    assert folders.shortened("a" * 60) == "a" * 60
    assert folders.shortened("a" * 61) == "a" * 57 + "..."


def test_a_folder_must_allow_both_to_write_and_to_enter(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Root may do both anywhere, so the system's answer is stood in for."""
    for allowed in range(8):
        monkeypatch.setattr(folders.os, "access", lambda _, mode, a=allowed: mode & ~a == 0)
        problem = folders._why_unwritable(tmp_path / "new" / "folder")
        may = bool(allowed & os.W_OK) and bool(allowed & os.X_OK)
        assert (problem is None) is may, allowed
        assert may or problem == f"{tmp_path} may not be written to"


def test_a_file_and_a_broken_link_are_no_folder(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    assert folders.folder_problems("runs_dir", str(tmp_path), "new") == []
    for name, reason in (("file", "is a file"), ("link", "is a link that leads nowhere")):
        (line,) = folders.folder_problems("runs_dir", str(tmp_path / name), "run")
        assert line.startswith(f"runs_dir is {tmp_path / name}") and reason in line
