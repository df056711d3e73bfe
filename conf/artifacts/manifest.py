"""The stage contract: write to `output.tmp`, the manifest last, then rename.

An unfinished stage is never read.
"""

import hashlib
import json
import os
import shutil
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from itertools import count
from pathlib import Path
from typing import Any

from ropewalk.conf.artifacts.disk import explain_full_disk
from ropewalk.conf.artifacts.locks import wait_for_lock

MANIFEST = "manifest.json"
CONTENT_FILE = "content.json"  # in a temporary folder: the stage content that it is written for
ABSENT = object()  # a key that only the other side has; not the same as null


def fingerprint(content: object) -> str:
    """sha256 of the canonical JSON of plain values."""
    return hashlib.sha256(
        json.dumps(content, sort_keys=True, separators=(",", ":")).encode()
    ).hexdigest()


def write_json(path: Path, value: object) -> None:
    """Write the whole file or nothing: temporary file, fsync, rename."""
    temporary = path.with_name(path.name + ".tmp")
    with temporary.open("w") as file:
        file.write(json.dumps(value, indent=1, sort_keys=False) + "\n")
        file.flush()
        os.fsync(file.fileno())
    os.replace(temporary, path)


def read_json(path: Path) -> Any:
    return json.loads(path.read_text())


@dataclass(kw_only=True)
class Manifest:
    """Record of a finished stage; its fields are the keys of manifest.json."""

    stage: str
    fingerprint: str
    content: dict[str, Any]
    """Settings and inputs behind the fingerprint, to name the first key that differs."""
    seconds: float = 0.0
    facts: dict[str, Any] = field(default_factory=dict)
    schema: int = 1

    @classmethod
    def for_content(cls, stage: str, content: dict[str, Any]) -> "Manifest":
        return cls(stage=stage, fingerprint=fingerprint(content), content=content)


def read(output: Path) -> Manifest | None:
    """The manifest of a finished stage, or None.

    Returns None for a manifest.json that we did not write. The file is opened without an existence
    check, because another process may rename the folder in between.
    """
    try:
        return Manifest(**read_json(output / MANIFEST))
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
        return None
    except (TypeError, ValueError):  # other keys, or no JSON
        return None


def first_difference(old: object, new: object, path: str = "") -> str | None:
    """The first key that differs, as `key was OLD, is NEW`; None when equal."""
    if isinstance(old, dict) and isinstance(new, dict):
        for key in [*old, *(k for k in new if k not in old)]:
            key_path = f"{path}.{key}" if path else str(key)
            difference = first_difference(old.get(key, ABSENT), new.get(key, ABSENT), key_path)
            if difference:
                return difference
        return None
    if old == new:
        return None
    return f"{path} was {_short(old)}, is {_short(new)}"


def _short(value: object) -> str:
    text = "absent" if value is ABSENT else json.dumps(value)
    return text if len(text) <= 60 else text[:57] + "..."


def workspace(output: Path, content: dict[str, Any], resumable: bool = False) -> Path:
    """The folder `output.tmp`: empty, or with `resumable` as an interrupted stage with the same
    content left it."""
    temporary = temporary_folder(output)
    if not (resumable and _workspace_fingerprint(temporary) == fingerprint(content)):
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir(parents=True)
        write_json(
            temporary / CONTENT_FILE, {"fingerprint": fingerprint(content), "content": content}
        )
    return temporary


def temporary_folder(output: Path) -> Path:
    """The folder that a stage writes to until it is finished."""
    return output.with_name(output.name + ".tmp")


def _workspace_fingerprint(temporary: Path) -> str | None:
    """The fingerprint that the folder was written for. Its manifest has it when the process died
    just before the rename."""
    for name in (CONTENT_FILE, MANIFEST):
        if (temporary / name).is_file():
            return read_json(temporary / name)["fingerprint"]  # type: ignore[no-any-return]
    return None


def publish(temporary: Path, output: Path, manifest: Manifest) -> None:
    """Write the manifest last, then rename the folder, which makes the stage finished."""
    write_json(temporary / MANIFEST, asdict(manifest))
    (temporary / CONTENT_FILE).unlink(missing_ok=True)
    _move_unfinished(output)
    os.replace(temporary, output)


def _move_unfinished(output: Path) -> None:
    """Move a folder without our manifest out of the way: the user may need it, and a rename onto it
    would fail."""
    if output.is_dir() and any(output.iterdir()):
        names = (output.with_name(f"{output.name}.unfinished{n}") for n in count(1))
        aside = next(path for path in names if not path.exists())
        os.replace(output, aside)
        print(f"{output.name}: the folder had no manifest of ropewalk; moved to {aside.name}")


def aside_path(output: Path, manifest: Manifest) -> Path:
    """Where a finished stage with other settings is kept; no finished stage is deleted."""
    return output.with_name(f"{output.name}.{manifest.fingerprint[:8]}")


def set_aside(output: Path, old: Manifest) -> Path:
    """Move a finished stage with other settings out of the way."""
    aside = aside_path(output, old)
    shutil.rmtree(aside, ignore_errors=True)
    os.replace(output, aside)
    return aside


def bring_back(output: Path, expected: Manifest) -> Manifest | None:
    """Move a stage that was set aside back to `output` if it has the expected fingerprint."""
    aside = aside_path(output, expected)
    manifest = read(aside)
    if manifest is None or manifest.fingerprint != expected.fingerprint:
        return None
    _move_unfinished(output)
    os.replace(aside, output)
    return manifest


def is_finished(stage: str, content: dict[str, Any], output: Path) -> bool:
    """Whether `run_stage` would skip the work: finished at `output`, or set aside."""
    expected = Manifest.for_content(stage, content)
    finished = (read(output), read(aside_path(output, expected)))
    return expected.fingerprint in {manifest.fingerprint for manifest in finished if manifest}


def run_stage(
    stage: str,
    content: dict[str, Any],
    output: Path,
    work: Callable[[Path], dict[str, Any]],
    *,
    resumable: bool = False,
) -> tuple[Manifest, str]:
    """Run `work(temporary)`, which returns the metadata, unless `output` is finished with the same
    content.

    Returns the manifest and one line for the user: skipped, brought back, redone because of a key,
    or run.
    """
    manifest, old, reason = Manifest.for_content(stage, content), read(output), ""
    if old is not None:
        if old.fingerprint == manifest.fingerprint:
            return old, f"{stage}: done before with the same settings and inputs; skipped"
        aside = set_aside(output, old)
        difference = first_difference(old.content, content)
        reason = f" (redone: {difference}; the former result is kept in {aside.name})"
    if (finished := bring_back(output, manifest)) is not None:
        return finished, (
            f"{stage}: done before with the same settings and inputs; "
            f"brought back from {aside_path(output, finished).name}"
        )
    started = time.monotonic()
    temporary = workspace(output, content, resumable)
    manifest.facts = work(temporary)
    manifest.seconds = round(time.monotonic() - started, 1)
    publish(temporary, output, manifest)
    return manifest, f"{stage}: done in {manifest.seconds:.1f} s{reason}"


def run_shared(
    stage: str,
    content: dict[str, Any],
    output: Path,
    work: Callable[[Path], dict[str, Any]],
    *,
    resumable: bool = False,
) -> tuple[Manifest, str]:
    """`run_stage` for a part of the cache: where several runs need it at the same time, one writes
    it and the others wait.

    Raises: ConfigError when the disk is full.
    """
    with explain_full_disk(output), wait_for_lock(output, stage):
        return run_stage(stage, content, output, work, resumable=resumable)
