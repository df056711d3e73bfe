"""A manifest, and the files of its run that lie beside it, from a run's folder or from a pack."""

import json
import tarfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ropewalk.conf.artifacts.manifest import MANIFEST
from ropewalk.conf.artifacts.records import is_signed
from ropewalk.conf.errors import ConfigError

SCHEMA = 1
"""Version of a manifest's keys. Keys are added, never renamed."""
LARGEST_FILE = 256 << 20
"""Bytes of a file of a pack that is read into memory."""


@dataclass(frozen=True)
class Evidence:
    """What is known of a run. Files by their path within the run's folder."""

    record: Mapping[str, Any]
    folder: Path | None = None
    members: Mapping[str, bytes] = field(default_factory=dict)

    def read(self, name: str) -> bytes | None:
        """A file's content; None where it is not at hand."""
        if name in self.members:
            return self.members[name]
        if self.folder is None or not (self.folder / name).is_file():
            return None
        return (self.folder / name).read_bytes()

    def json(self, name: str) -> Any:
        """A JSON file's content; None where it is not at hand, or is none."""
        try:
            return json.loads(self.read(name) or b"null")
        except ValueError:
            return None

    def lines(self) -> list[dict[str, Any]] | None:
        """The lines of metrics.jsonl; None where they are not at hand."""
        content = self.read("train/metrics.jsonl")
        return None if content is None else [json.loads(line) for line in content.splitlines()]

    def phase(self, name: str) -> "Evidence | None":
        """An earlier phase, by its folder within the run's."""
        record = self.json(f"{name}/{MANIFEST}")
        if not is_signed(record):
            return None
        inner = {
            key.removeprefix(f"{name}/"): value
            for key, value in self.members.items()
            if key.startswith(f"{name}/")
        }
        return Evidence(record, self.folder and self.folder / name, inner)

    @property
    def environment(self) -> dict[str, Any]:
        """That of the training, or of the last stage before one."""
        stages = self.record["stages"]
        made = [
            stages[name].get("environment") for name in ("train", "data", "rope") if name in stages
        ]
        name = next(filter(None, made), self.record.get("environment"))
        return self.record["environments"].get(name) or {}  # type: ignore[no-any-return]


def read(text: str) -> Evidence:
    """The evidence at `text`: a run's folder, its manifest.json, or a pack.

    Raises: ConfigError when there is none, when it is damaged or edited, or of a newer version.
    """
    path = Path(text).expanduser()
    file = path / MANIFEST if path.is_dir() else path
    if not file.is_file():
        raise ConfigError(
            f"{text} is no manifest; it must be a run's folder, its manifest.json, or an archive "
            "of ropewalk pack; correct the path"
        )
    if tarfile.is_tarfile(file):
        members = _members(file)
        return Evidence(checked(members.get(MANIFEST, b""), text), None, members)
    return Evidence(checked(file.read_bytes(), text), file.parent)


def checked(content: bytes, name: str) -> dict[str, Any]:
    """The record in a manifest's bytes. Raises: ConfigError."""
    try:
        record = json.loads(content)
    except ValueError:
        record = None
    schema = record.get("schema") if isinstance(record, dict) else None
    if isinstance(schema, int) and schema > SCHEMA:
        version = (record.get("versions") or {}).get("ropewalk", "unknown")
        raise ConfigError(
            f"{name} is a manifest of schema {schema}; this version of ropewalk reads {SCHEMA}; "
            f"use the version that wrote it ({version})"
        )
    if not is_signed(record):
        raise ConfigError(
            f"{name} is damaged or edited; a manifest must be as a run wrote it; take it from the "
            "run's folder again"
        )
    if "settings" not in record or "results" not in record:
        raise ConfigError(
            f"{name} has no settings and results; it must bind them, and an older version of "
            "ropewalk wrote it; run its command again"
        )
    return record  # type: ignore[no-any-return]


def _members(file: Path) -> dict[str, bytes]:
    """The files of a pack. Nothing is written, so that no name in it can lead anywhere."""
    with tarfile.open(file) as archive:
        return {
            member.name: stream.read()
            for member in archive
            if member.isfile() and member.size <= LARGEST_FILE
            if (stream := archive.extractfile(member)) is not None
        }
