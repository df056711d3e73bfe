"""The folder `output.tmp` that a stage writes to until it is finished."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ropewalk.conf.artifacts.records import (
    fingerprint,
    move_aside,
    read_signed,
    remove,
    signed,
    write_json,
)

MANIFEST = "manifest.json"
CONTENT_FILE = "content.json"  # in a temporary folder: the stage content that it is written for
Reuse = Callable[[Path, Path], None]
"""Moves the parts of a damaged folder that can be verified by themselves into the temporary one."""


def temporary_folder(output: Path) -> Path:
    return output.with_name(output.name + ".tmp")


def workspace(
    output: Path,
    content: dict[str, Any],
    resumable: bool,
    reuse: Reuse | None = None,
    damaged: Path | None = None,
) -> Path:
    """The folder `output.tmp`: empty, or with `resumable` as an interrupted stage with the same
    content left it.

    `damaged`: a former result, from which `reuse` takes parts.
    """
    temporary = temporary_folder(output)
    fingerprint_of_former = _workspace_fingerprint(temporary)
    damaged_folders = [damaged] if damaged is not None else []
    if not resumable or fingerprint_of_former != fingerprint(content):
        if resumable and fingerprint_of_former is None and is_occupied(temporary):
            damaged_folders.append(_move_damaged(temporary))
        remove(temporary)
        temporary.mkdir(parents=True)
    if read_signed(temporary / CONTENT_FILE) is None:
        record = {"fingerprint": fingerprint(content), "content": content}
        write_json(temporary / CONTENT_FILE, signed(record))
    if reuse is not None:
        for folder in damaged_folders:
            reuse(folder, temporary)
    return temporary


def _move_damaged(temporary: Path) -> Path:
    aside = move_aside(temporary, "damaged")
    print(f"{temporary} has no {CONTENT_FILE} that can be read; moved to {aside.name}", flush=True)
    return aside


def is_occupied(folder: Path) -> bool:
    """Whether there is more than an empty folder, onto which a folder can be renamed."""
    return os.path.lexists(folder) and not (folder.is_dir() and not any(folder.iterdir()))


def _workspace_fingerprint(temporary: Path) -> str | None:
    """The fingerprint that the folder was written for. Its manifest has it when the process died
    just before the rename."""
    for name in (CONTENT_FILE, MANIFEST):
        if record := read_signed(temporary / name):
            return record["fingerprint"]  # type: ignore[no-any-return]
    return None
