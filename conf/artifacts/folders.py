"""Folders that a run writes to: whether they can be made and written, before hours are spent."""

import os
import tempfile
from pathlib import Path

RUNS_DIR, CACHE_DIR = "runs", "~/.cache/ropewalk"
"""Defaults of the settings `runs_dir` and `cache_dir`."""
SWEEPS = "sweeps"
"""The folder of all sweeps, in runs_dir."""
MAX_NAME_BYTES = 255
"""Of one part of a path, on the file systems of Linux (NAME_MAX)."""
MAX_RUN_NAME_BYTES = MAX_NAME_BYTES - 16
"""Of a run's name; its lock and what is moved aside have longer ones."""
MAX_PATH_BYTES = 4095
"""Of a whole path (PATH_MAX without the final NUL)."""


def name_problem(name: str) -> str | None:
    """Why a text is no name of a folder; None if it is one."""
    if not name.strip():
        return "it is empty"
    if name in (".", "..") or "/" in name or "\0" in name:
        return "it leads to another folder" if "\0" not in name else "it has a NUL byte"
    if name == SWEEPS:
        return "that folder is for sweeps"
    if name.startswith("."):
        return "a dot at the beginning hides it"
    if any(not character.isprintable() for character in name):
        return "it has a line break or another control character"
    if (size := len(os.fsencode(name))) > MAX_RUN_NAME_BYTES:
        return f"it has {size} bytes, and a run's name may have {MAX_RUN_NAME_BYTES}"
    return None


def shortened(text: str, limit: int = 60) -> str:
    """For messages: at most `limit` characters."""
    return text if len(text) <= limit else f"{text[: limit - 3]}..."


def folder_problems(key: str, folder: str, name: str = "") -> list[str]:
    """A line when `folder/name` cannot be made here, or is no folder that can be written to."""
    path = Path(folder).expanduser() / name
    reason = _why_no_path(path) or _why_unwritable(path)
    if reason is None:
        return []
    return [
        f"{key} is {shortened(folder, 400)}; it must be a folder that can be made and written to, "
        f"and {reason}; set another {key}"
    ]


def _why_no_path(path: Path) -> str | None:
    text = os.fsencode(path)
    if b"\0" in text:
        return "it has a NUL byte"
    long = [part for part in text.split(b"/") if len(part) > MAX_NAME_BYTES]
    if long or len(text) > MAX_PATH_BYTES:
        return (
            f"a file system takes {MAX_NAME_BYTES} bytes in a name and {MAX_PATH_BYTES} in a path"
        )
    return None


def _why_unwritable(path: Path) -> str | None:
    nearest = next(
        part for part in (path.absolute(), *path.absolute().parents) if os.path.lexists(part)
    )
    if nearest.is_symlink() and not nearest.exists():
        return f"{nearest} is a link that leads nowhere"
    if not nearest.is_dir():
        return f"{nearest} is a file"
    if not os.access(nearest, os.W_OK | os.X_OK):
        return f"{nearest} may not be written to"
    return _why_no_folder_can_be_made(nearest)


def _why_no_folder_can_be_made(parent: Path) -> str | None:
    """For file systems without a disk, such as /proc: they refuse what the rights allow.

    Only there is a folder made on trial: a look writes nothing elsewhere.
    """
    if os.statvfs(parent).f_blocks:
        return None
    try:
        os.rmdir(tempfile.mkdtemp(dir=parent))
    except OSError as error:
        return f"{parent} takes no folder ({error.strerror})"
    return None
