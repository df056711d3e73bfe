"""JSON files: written whole or not at all, and signed with a digest of their own content.

A signed record in which a value was edited, or a byte changed, reads as if it were missing.
"""

import hashlib
import json
import os
import shutil
from itertools import count
from pathlib import Path
from typing import Any

DIGEST = "digest"
UNREADABLE = (FileNotFoundError, NotADirectoryError, IsADirectoryError, ValueError, RecursionError)
"""Errors of a missing file, a folder in its stead, and of text that is no JSON."""


def fingerprint(content: object) -> str:
    """sha256 of the canonical JSON of plain values."""
    return hashlib.sha256(
        json.dumps(content, sort_keys=True, separators=(",", ":")).encode()
    ).hexdigest()


def write_json(path: Path, value: object) -> None:
    """Write the whole file or nothing: temporary file, fsync, rename."""
    write_text(path, json.dumps(value, indent=1, sort_keys=False) + "\n")


def write_text(path: Path, text: str) -> None:
    """Write the whole file or nothing. A folder in its stead is moved aside."""
    temporary = path.with_name(path.name + ".tmp")
    for occupied in (temporary, path):
        if occupied.is_dir():
            aside = move_aside(occupied, "damaged")
            print(f"{occupied} is a folder where a file belongs; moved to {aside.name}", flush=True)
    with temporary.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    os.replace(temporary, path)


def read_json(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


def signed(record: dict[str, Any]) -> dict[str, Any]:
    """`record` with the digest of its other values, as JSON stores them."""
    unsigned = {key: value for key, value in record.items() if key != DIGEST}
    return {**unsigned, DIGEST: fingerprint(json.loads(json.dumps(unsigned)))}


def read_signed(path: Path) -> dict[str, Any] | None:
    """A record as it was signed; None when it is missing, damaged, edited or not ours."""
    try:
        record = read_json(path)
    except UNREADABLE:
        return None
    return record if is_signed(record) else None


def is_signed(record: object) -> bool:
    return isinstance(record, dict) and signed(record)[DIGEST] == record.get(DIGEST)


def move_aside(path: Path, state: str) -> Path:
    """Rename `path` to the first free one of `NAME.STATE1`, `NAME.STATE2`, ..."""
    names = (path.with_name(f"{path.name}.{state}{n}") for n in count(1))
    aside = next(name for name in names if not os.path.lexists(name))
    os.replace(path, aside)
    return aside


def remove(path: Path) -> None:
    """Remove a folder with its content, a file, or nothing."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)
