"""A full disk is reported in one line, by the kernel's error number; no other error is."""

import errno
import os
from pathlib import Path

import pytest

from ropewalk.conf.artifacts.disk import disk_error, explain_full_disk
from ropewalk.conf.artifacts.manifest import run_shared
from ropewalk.conf.errors import ConfigError

MESSAGE = (
    r"^cache_dir is /big/cache; its disk must have room [^\n]* and is full; make room or set "
    r"another cache_dir[^\n]*$"
)


def write_to(path: str) -> None:
    with open(path, "wb") as file:
        file.write(b"x")


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.ENOSPC, "No space left on device"),
        OSError(errno.EDQUOT, "Disk quota exceeded"),
        Exception("No space left on device (os error 28)"),
    ],
)
def test_a_full_disk_is_a_config_error(error: Exception) -> None:
    with pytest.raises(ConfigError, match=MESSAGE), explain_full_disk(Path("/big/cache/plans/abc")):
        raise error


def test_a_write_to_dev_full_is_a_full_disk() -> None:
    with pytest.raises(ConfigError, match=MESSAGE), explain_full_disk(Path("/big/cache/plans/abc")):
        write_to("/dev/full")


@pytest.mark.parametrize(
    "error", [OSError(errno.EIO, "x"), OSError("3 requested and 1 written"), ValueError("28")]
)
def test_another_error_passes_unchanged(error: Exception) -> None:
    with pytest.raises(type(error)) as raised, explain_full_disk(Path("/big/cache/plans/abc")):
        raise error
    assert raised.value is error


def test_run_shared_reports_a_full_disk(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=f"^cache_dir is {tmp_path}; "):
        run_shared("lay", {}, tmp_path / "plans" / "abc", lambda _: write_to("/dev/full"))  # type: ignore[arg-type, return-value]


@pytest.mark.parametrize(
    "number", [errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EIO, errno.EMFILE]
)
def test_an_error_of_the_disk_is_one_line_with_the_file(number: int) -> None:
    error = disk_error(OSError(number, os.strerror(number), "/runs/a/rope.json"))
    assert error is not None and "\n" not in str(error) and error.exit_code == 2
    assert str(error).startswith(
        f"/runs/a/rope.json cannot be read or written: {os.strerror(number)}; "
    )


def test_an_error_of_rust_is_known_by_its_number() -> None:
    error = disk_error(Exception("IoError(Read-only file system (os error 30))"))
    assert error is not None and os.strerror(errno.EROFS) in str(error)


@pytest.mark.parametrize("error", [FileNotFoundError(2, "x", "y"), ValueError("28"), OSError("x")])
def test_other_errors_are_not_explained_as_the_disks(error: Exception) -> None:
    assert disk_error(error) is None
