"""Whether what a command will write fits the disks it goes to, before hours are spent."""

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Need:
    """Bytes that a part of the work takes at least in a folder, which may not exist yet."""

    key: str
    """The setting that names the folder."""
    folder: Path
    part: str
    """What is written, for the message."""
    size: int


def space_problems(needs: Sequence[Need]) -> list[str]:
    """A line for each disk that has less room than the parts that go there need in all."""
    by_disk: dict[int, list[Need]] = {}
    for need in needs:
        if need.size > 0:
            by_disk.setdefault(existing(need.folder).stat().st_dev, []).append(need)
    return [line for group in by_disk.values() if (line := _problem(group))]


def _problem(needs: Sequence[Need]) -> str | None:
    free = shutil.disk_usage(existing(needs[0].folder)).free
    if sum(need.size for need in needs) <= free:
        return None
    parts = " and ".join(f"{need.part} {gib(need.size)}" for need in needs)
    keys = list(dict.fromkeys(need.key for need in needs))
    return (
        f"{keys[0]} is {needs[0].folder}; its disk must have room for {parts} at least, and has "
        f"{gib(free)}; make room, or set another {' or '.join(keys)}"
    )


def existing(folder: Path) -> Path:
    """The folder, or the nearest one above it that exists."""
    folder = folder.absolute()
    return next(path for path in (folder, *folder.parents) if path.is_dir())


def gib(size: int) -> str:
    """Bytes as GiB, for messages."""
    return f"{size / 2**30:,.1f} GiB"


def folder_bytes(folder: Path) -> int:
    """Bytes of all files below a folder; 0 without one."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
