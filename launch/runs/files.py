"""The files of a run, as far as they can be read. What is no plain file is not opened: reading a
pipe would wait for ever."""

import json
from pathlib import Path
from typing import Any

import yaml

from ropewalk.conf.artifacts import manifest
from ropewalk.conf.artifacts.manifest import MANIFEST, Manifest
from ropewalk.conf.artifacts.records import read_json, read_signed

LARGEST_RECORD = 64 << 20
"""Bytes. A larger file is none of the records that a run writes."""
FIRST_TAIL, LARGEST_TAIL = 1 << 16, 1 << 24
"""Bytes of metrics.jsonl: a line names the sequences of its batch, so it may be long."""
LINES = 20
"""Of the end, enough for the seconds of a step."""


def record(path: Path) -> dict[str, Any] | None:
    """A signed record; None when it is missing, damaged or no file. Raises: OSError."""
    return read_signed(path) if _is_small_file(path) else None


def stage_manifest(folder: Path) -> Manifest | None:
    """The manifest of a finished stage. Raises: OSError."""
    return manifest.read(folder) if _is_small_file(folder / MANIFEST) else None


def values(path: Path) -> dict[str, Any]:
    """A JSON object that is not signed; empty when there is no such file. Raises: OSError."""
    content = read_json(path) if _is_small_file(path) else {}
    return content if isinstance(content, dict) else {}


def settings(path: Path) -> dict[str, Any]:
    """The frozen settings as plain values; empty when there is no such file.

    Raises: OSError, ValueError.
    """
    if not _is_small_file(path):
        return {}
    try:
        loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
        values = yaml.load(path.read_text(encoding="utf-8"), loader)
    except yaml.YAMLError as error:
        raise ValueError(f"{path.name} is no YAML") from error
    return values if isinstance(values, dict) else {}


def last_lines(path: Path) -> list[dict[str, Any]]:
    """The last complete lines of a metrics.jsonl, at most `LINES`, in order; only its end is read.

    A last line without an end, which a killed run may leave, is ignored, as in a resume.
    Raises: OSError; ValueError for another line that is no JSON object.
    """
    if not path.is_file():
        return []
    size, tail = path.stat().st_size, FIRST_TAIL
    lines = _complete_lines(path, size, tail)
    while not lines and tail < min(size, LARGEST_TAIL):
        tail *= 4
        lines = _complete_lines(path, size, tail)
    return [_parsed(line, path.name) for line in lines[-LINES:]]


def all_lines(path: Path) -> list[dict[str, Any]]:
    """Every complete line of a metrics.jsonl, as `last_lines`."""
    if not path.is_file():
        return []
    return [_parsed(line, path.name) for line in path.read_bytes().split(b"\n")[:-1] if line]


def _complete_lines(path: Path, size: int, tail: int) -> list[bytes]:
    with path.open("rb") as file:
        file.seek(max(0, size - tail))
        pieces = file.read(tail).split(b"\n")[:-1]
    return [line for line in (pieces if tail >= size else pieces[1:]) if line]


def _parsed(line: bytes, name: str) -> dict[str, Any]:
    try:
        row = json.loads(line)
    except (ValueError, RecursionError):
        row = None
    if not isinstance(row, dict) or not isinstance(row.get("step"), int):
        raise ValueError(f"a line at the end of {name} is damaged")
    return row


def _is_small_file(path: Path) -> bool:
    return path.is_file() and path.stat().st_size <= LARGEST_RECORD
