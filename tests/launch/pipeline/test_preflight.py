"""The preflight: every problem that is knowable before the first long stage, told at once."""

from pathlib import Path

import pytest

from ropewalk.launch.cli import main

LONGEST = "n" * 255  # NAME_MAX of Linux's file systems


def refusal(capsys: pytest.CaptureFixture[str], *arguments: str) -> list[str]:
    """The problem lines of a command that is refused."""
    with pytest.raises(SystemExit) as stopped:
        main(arguments)
    captured = capsys.readouterr()
    head, *lines = captured.err.splitlines()
    assert (stopped.value.code, head) == (2, "config error:"), captured.err
    return lines


def settings(folder: Path, *more: str) -> list[str]:
    places = [f"runs_dir={folder / 'runs'}", f"cache_dir={folder / 'cache'}"]
    return ["recipe=demo", *places, *more]


def test_model_sources_and_folders_that_are_missing_are_told_together(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    (tmp_path / "runs").write_text("a file")
    paths = [f"model.path={tmp_path / 'none'}", f"data.sources.stdlib.path={tmp_path / 'nothing'}"]
    lines = refusal(capsys, "run", *settings(tmp_path, *paths))
    assert [line.split(" is ")[0] for line in lines] == [
        "runs_dir",
        "model.path",
        "data.sources.stdlib.path",
    ]
    assert "is a file" in lines[0] and not (tmp_path / "cache").exists()


@pytest.mark.parametrize("key", ["runs_dir", "cache_dir"])
@pytest.mark.parametrize("place", ["file", "file/below", "link", LONGEST + "n"])
def test_folders_that_cannot_be_made_are_refused(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, key: str, place: str
) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    (line,) = refusal(capsys, "rope", *settings(tmp_path, f"{key}={tmp_path / place}"))
    assert line.startswith(f"{key} is {tmp_path / place}; it must be a folder")
