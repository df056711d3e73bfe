"""A full disk is told in a line, by the kernel's own word; nothing else is taken for one."""

import errno
from pathlib import Path

import pytest

from ropewalk.conf.artifacts.disk import explain_full_disk
from ropewalk.conf.artifacts.manifest import run_shared
from ropewalk.conf.errors import ConfigError

SAID = r"^cache_dir is /big/cache; its disk must have room [^\n]* and is full; make room or set another cache_dir[^\n]*$"


def written(path: str) -> None:
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
def test_a_full_disk_is_told(error: Exception) -> None:
    with pytest.raises(ConfigError, match=SAID), explain_full_disk(Path("/big/cache/plans/abc")):
        raise error


def test_the_kernel_says_it() -> None:
    with pytest.raises(ConfigError, match=SAID), explain_full_disk(Path("/big/cache/plans/abc")):
        written("/dev/full")


@pytest.mark.parametrize(
    "error", [OSError(errno.EIO, "x"), OSError("3 requested and 1 written"), ValueError("28")]
)
def test_another_error_is_not_taken_for_one(error: Exception) -> None:
    with pytest.raises(type(error)) as raised, explain_full_disk(Path("/big/cache/plans/abc")):
        raise error
    assert raised.value is error


def test_every_part_of_the_cache_tells_it(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=f"^cache_dir is {tmp_path}; "):
        run_shared("lay", {}, tmp_path / "plans" / "abc", lambda _: written("/dev/full"))  # type: ignore[arg-type, return-value]
