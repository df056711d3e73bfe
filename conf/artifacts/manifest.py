"""The stage contract: write to `output.tmp`, the manifest last, then rename. Half a stage is never read."""

import hashlib
import json
import os
import shutil
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from ropewalk.conf.artifacts.disk import explain_full_disk
from ropewalk.conf.artifacts.locks import wait_for_lock

MANIFEST = "manifest.json"
MARK = "content.json"  # in a folder that is being written: what it is for
ABSENT = object()  # a key that one side lacks: not the same as null


def fingerprint(content: Any) -> str:
    """sha256 of the canonical JSON of plain values."""
    return hashlib.sha256(
        json.dumps(content, sort_keys=True, separators=(",", ":")).encode()
    ).hexdigest()


def write_json(path: Path, value: Any) -> None:
    """Written whole or not at all: temporary file, fsync, rename."""
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
    """What a finished stage says of itself."""

    stage: str
    fingerprint: str
    content: Any  # what the fingerprint was taken of: names the first key that differs
    seconds: float = 0.0
    facts: dict[str, Any] = field(default_factory=dict)
    schema: int = 1

    @classmethod
    def of(cls, stage: str, content: Any) -> "Manifest":
        return cls(stage=stage, fingerprint=fingerprint(content), content=content)


def read(output: Path) -> Manifest | None:
    """The manifest of a finished stage, or None; a foreign file of that name is none of ours. Opened without asking first:
    another process may rename the folder between."""
    try:
        return Manifest(**read_json(output / MANIFEST))
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
        return None
    except (TypeError, ValueError):  # other keys, or no JSON
        return None


def first_difference(old: Any, new: Any, at: str = "") -> str | None:
    """The first key that differs, as `key was OLD, is NEW`; None when equal."""
    if isinstance(old, dict) and isinstance(new, dict):
        for key in [*old, *(k for k in new if k not in old)]:
            found = first_difference(
                old.get(key, ABSENT), new.get(key, ABSENT), f"{at}.{key}" if at else str(key)
            )
            if found:
                return found
        return None
    if old == new:
        return None
    return f"{at} was {_short(old)}, is {_short(new)}"


def _short(value: Any) -> str:
    text = "absent" if value is ABSENT else json.dumps(value)
    return text if len(text) <= 60 else text[:57] + "..."


def workspace(output: Path, content: Any, resumable: bool = False) -> Path:
    """`output.tmp`, empty, or as an interrupted stage with the same content left it (`resumable`)."""
    temporary = temporary_of(output)
    if not (resumable and _made_for(temporary) == fingerprint(content)):
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir(parents=True)
        write_json(temporary / MARK, {"fingerprint": fingerprint(content), "content": content})
    return temporary


def temporary_of(output: Path) -> Path:
    """Where a stage writes until it is finished."""
    return output.with_name(output.name + ".tmp")


def _made_for(temporary: Path) -> str | None:
    """The fingerprint of what lies there; its manifest says it where the process died just before the rename."""
    there = [temporary / name for name in (MARK, MANIFEST) if (temporary / name).is_file()]
    return read_json(there[0])["fingerprint"] if there else None


def publish(temporary: Path, output: Path, manifest: Manifest) -> None:
    """Manifest last, then the rename that makes the stage finished."""
    write_json(temporary / MANIFEST, asdict(manifest))
    (temporary / MARK).unlink(missing_ok=True)
    clear(output)
    os.replace(temporary, output)


def clear(output: Path) -> None:
    """A folder that no stage finished is moved out of the way: it is somebody's, and a rename onto it would fail."""
    if output.is_dir() and any(output.iterdir()):
        number = next(
            n
            for n in range(1, 1000)
            if not output.with_name(f"{output.name}.unfinished{n}").exists()
        )
        aside = output.with_name(f"{output.name}.unfinished{number}")
        os.replace(output, aside)
        print(f"{output.name}: what lay there has no manifest of ropewalk's; kept in {aside.name}")


def aside_of(output: Path, made_by: Manifest) -> Path:
    """Where a finished stage of other settings waits; nothing finished is deleted."""
    return output.with_name(f"{output.name}.{made_by.fingerprint[:8]}")


def set_aside(output: Path, old: Manifest) -> Path:
    """Move a finished stage of other settings out of the way."""
    aside = aside_of(output, old)
    shutil.rmtree(aside, ignore_errors=True)
    os.replace(output, aside)
    return aside


def bring_back(output: Path, wanted: Manifest) -> Manifest | None:
    """A stage that was set aside earlier and has the wanted fingerprint stands in its place again."""
    aside = aside_of(output, wanted)
    found = read(aside)
    if found is None or found.fingerprint != wanted.fingerprint:
        return None
    clear(output)
    os.replace(aside, output)
    return found


def stands(stage: str, content: Any, output: Path) -> bool:
    """Whether `run_stage` would find it done: in its place, or set aside."""
    wanted = Manifest.of(stage, content)
    return any(
        found is not None and found.fingerprint == wanted.fingerprint
        for found in (read(output), read(aside_of(output, wanted)))
    )


def run_stage(
    stage: str,
    content: Any,
    output: Path,
    work: Callable[[Path], dict[str, Any]],
    *,
    resumable: bool = False,
) -> tuple[Manifest, str]:
    """Run `work(temporary) -> facts` unless `output` is finished with the same content.

    Returns the manifest and one line that says what was done: skipped, brought back, redone because of a key, or run.
    """
    manifest, old, reason = Manifest.of(stage, content), read(output), ""
    if old is not None:
        if old.fingerprint == manifest.fingerprint:
            return old, f"{stage}: done before with the same settings and inputs; skipped"
        aside = set_aside(output, old)
        reason = f" (redone: {first_difference(old.content, content)}; the former one is kept in {aside.name})"
    if (back := bring_back(output, manifest)) is not None:
        return (
            back,
            f"{stage}: done before with the same settings and inputs; brought back from {aside_of(output, back).name}",
        )
    started = time.monotonic()
    temporary = workspace(output, content, resumable)
    manifest.facts = work(temporary)
    manifest.seconds = round(time.monotonic() - started, 1)
    publish(temporary, output, manifest)
    return manifest, f"{stage}: done in {manifest.seconds:.1f} s{reason}"


def run_shared(
    stage: str,
    content: Any,
    output: Path,
    work: Callable[[Path], dict[str, Any]],
    *,
    resumable: bool = False,
) -> tuple[Manifest, str]:
    """`run_stage` for a part of the cache, which other runs may be making at this moment: one makes it, the others wait.

    Raises: ConfigError for a disk that is full.
    """
    with explain_full_disk(output), wait_for_lock(output, stage):
        return run_stage(stage, content, output, work, resumable=resumable)
