"""The stage contract: write to `output.tmp`, the manifest last, then rename.

An unfinished stage is never read, and a finished one only with all its files as it wrote them.
"""

import json
import os
import shutil
import time
from collections.abc import Callable, Collection
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from ropewalk.conf.artifacts.disk import explain_full_disk
from ropewalk.conf.artifacts.locks import wait_for_lock
from ropewalk.conf.artifacts.records import (
    fingerprint,
    move_aside,
    read_json,
    read_signed,
    signed,
    write_json,
)
from ropewalk.conf.artifacts.verify import digests_of, find_damage
from ropewalk.conf.artifacts.workspace import (
    CONTENT_FILE,
    MANIFEST,
    Reuse,
    is_occupied,
    temporary_folder,
    workspace,
)

__all__ = [
    "CONTENT_FILE",
    "MANIFEST",
    "Manifest",
    "Reuse",
    "bring_back",
    "finished",
    "fingerprint",
    "first_difference",
    "is_finished",
    "publish",
    "read",
    "read_json",
    "run_shared",
    "run_stage",
    "set_aside",
    "undamaged",
    "write",
    "temporary_folder",
    "workspace",
    "write_json",
]
ABSENT = object()  # a key that only the other side has; not the same as null


@dataclass(kw_only=True)
class Manifest:
    """Record of a finished stage; its fields are the keys of manifest.json."""

    stage: str
    fingerprint: str
    content: dict[str, Any]
    """Settings and inputs behind the fingerprint, to name the first key that differs."""
    seconds: float = 0.0
    facts: dict[str, Any] = field(default_factory=dict)
    files: dict[str, str] = field(default_factory=dict)
    """sha256 of each file of the stage, by its path in the folder."""
    digest: str = ""
    """Of the other values: a manifest in which one was edited counts as none."""
    schema: int = 1

    @classmethod
    def for_content(cls, stage: str, content: dict[str, Any]) -> "Manifest":
        return cls(stage=stage, fingerprint=fingerprint(content), content=content)


def read(output: Path) -> Manifest | None:
    """The manifest of a finished stage, whose files are not looked at; or None.

    Returns None for a manifest.json that is damaged, of a version that recorded no digests, or not
    ours. The file is opened without an existence check, because another process may rename the
    folder in between.
    """
    record = read_signed(output / MANIFEST)
    try:
        return None if record is None else Manifest(**record)
    except TypeError:  # other keys
        return None


def write(output: Path, manifest: Manifest) -> None:
    """Sign the manifest and write it into the folder."""
    manifest.digest = signed(asdict(manifest))["digest"]
    write_json(output / MANIFEST, asdict(manifest))


def finished(output: Path) -> Manifest | None:
    """The manifest of a finished stage all of whose files are as it wrote them; or None."""
    manifest = read(output)
    return None if manifest is None or find_damage(output, manifest.files) else manifest


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


def publish(
    temporary: Path, output: Path, manifest: Manifest, names: Collection[str] | None = None
) -> None:
    """Write the manifest last, then rename the folder, which makes the stage finished.

    `names`: the files and folders that the manifest vouches for; None: all.
    """
    (temporary / CONTENT_FILE).unlink(missing_ok=True)
    (temporary / MANIFEST).unlink(missing_ok=True)
    manifest.files = digests_of(temporary, names, of=output)
    write(temporary, manifest)
    if is_occupied(output):  # since the work began; a rename onto it would fail
        print(f"{output} was not empty; moved to {move_aside(output, 'unfinished').name}")
    os.replace(temporary, output)


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
    manifest, damaged = undamaged(expected.stage, aside)
    if manifest is None or damaged or manifest.fingerprint != expected.fingerprint:
        return None
    os.replace(aside, output)
    return manifest


def undamaged(stage: str, output: Path) -> tuple[Manifest | None, Path | None]:
    """The manifest of a stage that is finished with other settings or undamaged.

    A folder of another state is moved aside, with a line: where it lies now is the second value.
    """
    manifest = read(output)
    if manifest is None and not is_occupied(output):
        return None, None
    if manifest is None:
        problem, state = "has no manifest.json that this version of ropewalk wrote", "unfinished"
    elif damage := find_damage(output, manifest.files):
        problem, state = f"is damaged: {damage}", "damaged"
    else:
        return manifest, None
    aside = move_aside(output, state)
    print(f"{stage}: {output} {problem}; moved to {aside.name}", flush=True)
    return None, aside


def is_finished(stage: str, content: dict[str, Any], output: Path) -> bool:
    """Whether `run_stage` would skip the work: finished at `output`, or set aside."""
    expected = Manifest.for_content(stage, content)
    results = (finished(output), finished(aside_path(output, expected)))
    return expected.fingerprint in {manifest.fingerprint for manifest in results if manifest}


def run_stage(
    stage: str,
    content: dict[str, Any],
    output: Path,
    work: Callable[[Path], dict[str, Any]],
    *,
    resumable: bool = False,
    reuse: Reuse | None = None,
    names: Collection[str] | None = None,
) -> tuple[Manifest, str]:
    """Run `work(temporary)`, which returns the metadata, unless `output` is finished with the same
    content and undamaged.

    `reuse(damaged, temporary)` moves from a damaged folder what can be verified by itself; `names`
    as in `publish`. Returns the manifest and one line for the user: skipped, brought back, redone
    because of a key, or run.
    """
    manifest, old, damaged, reason = Manifest.for_content(stage, content), read(output), None, ""
    if old is not None and old.fingerprint != manifest.fingerprint:
        aside = set_aside(output, old)
        difference = first_difference(old.content, content)
        reason = f" (redone: {difference}; the former result is kept in {aside.name})"
    else:
        old, damaged = undamaged(stage, output)
        if old is not None:
            return old, f"{stage}: done before with the same settings and inputs; skipped"
    if (result := bring_back(output, manifest)) is not None:
        return result, (
            f"{stage}: done before with the same settings and inputs; "
            f"brought back from {aside_path(output, result).name}"
        )
    started = time.monotonic()
    temporary = workspace(output, content, resumable, reuse, damaged)
    manifest.facts = work(temporary)
    manifest.seconds = round(time.monotonic() - started, 1)
    publish(temporary, output, manifest, names)
    return manifest, f"{stage}: done in {manifest.seconds:.1f} s{reason}"


def run_shared(
    stage: str,
    content: dict[str, Any],
    output: Path,
    work: Callable[[Path], dict[str, Any]],
    *,
    resumable: bool = False,
    reuse: Reuse | None = None,
) -> tuple[Manifest, str]:
    """`run_stage` for a part of the cache: where several runs need it at the same time, one writes
    it and the others wait.

    Raises: ConfigError when the disk is full.
    """
    with explain_full_disk(output), wait_for_lock(output, stage):
        return run_stage(stage, content, output, work, resumable=resumable, reuse=reuse)
