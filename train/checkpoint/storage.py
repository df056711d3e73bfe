"""The folder of checkpoints, by the names in it.

    step-N       a checkpoint, if it has a readable complete.json
    step-N.tmp   being written, or left by a run that died
    step-N.torn  was published, and is damaged

complete.json is written last, by rank 0, when the files of all ranks have the sizes that their
writers counted.
"""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TypedDict

from ropewalk.conf.artifacts.digests import file_digest
from ropewalk.conf.artifacts.manifest import first_difference, read_json
from ropewalk.conf.artifacts.records import (
    DIGEST,
    UNREADABLE,
    read_signed,
    remove,
    signed,
    write_json,
    write_text,
)
from ropewalk.conf.errors import ConfigError

COMPLETE = "complete.json"
SCHEMA = 2
"""Of complete.json. Since 2 it has a digest of its own content."""
LATEST = "latest"
NAME_PATTERN = "step-" + "[0-9]" * 8
TORN = ".torn"


class FileDigest(TypedDict):
    """The record of a written file."""

    bytes: int
    sha256: str


def sync_and_hash(path: Path) -> FileDigest:
    """Raises: OSError."""
    _sync(path)
    return {"bytes": path.stat().st_size, "sha256": file_digest(path)}


def checkpoint_name(step: int) -> str:
    return f"step-{step:08d}"


def publish(folder: Path, name: str, metadata: dict[str, Any]) -> None:
    """Rename `name.tmp` to `name` and point `latest` to it.

    Raises: OSError when a rank wrote less than it must, or a file has another size than was
    written.
    """
    temporary, final = folder / f"{name}.tmp", folder / name
    files = dict(_listed_files(temporary, metadata))
    for file, written in files.items():
        size = (temporary / file).stat().st_size
        if size != written["bytes"]:
            raise OSError(f"{file} has {size} bytes, {written['bytes']} were written")
    write_json(temporary / COMPLETE, signed({**metadata, "files": files}))
    _sync(temporary)
    remove(final)
    os.replace(temporary, final)
    _sync(folder)
    _point(folder, name)


def _listed_files(temporary: Path, metadata: dict[str, Any]) -> Iterator[tuple[str, FileDigest]]:
    """The files in the ranks' lists, and the lists.

    Raises: OSError when a file is not listed, or a rank wrote another step.
    """
    for rank in range(metadata["world_size"]):
        path = temporary / f"rank-{rank}.json"
        file_list = read_json(path)
        if missing := _missing_file(file_list, rank, metadata["zero_stage"]):
            raise OSError(f"rank {rank} wrote no {missing}")
        if _is_of_other_step(temporary, path.name):
            raise OSError(f"rank {rank} wrote another step")
        yield from file_list["files"].items()
        yield path.name, sync_and_hash(path)


def _missing_file(file_list: dict[str, Any], rank: int, zero_stage: int) -> str:
    """A file that the rank should have written and did not list; else empty.

    DeepSpeed writes the weights on rank 0, and from ZeRO 1 on optimizer states on every rank.
    """
    kinds = ["model_states.pt"] * (rank == 0) + ["optim_states.pt"] * (zero_stage > 0)
    for name in [*file_list["asked"], *kinds]:
        if not any(file.endswith(name) for file in file_list["files"]):
            return str(name)
    return ""


def _point(folder: Path, name: str) -> None:
    """Write `latest`, which other programs read."""
    write_text(folder / LATEST, name)
    _sync(folder)


def _sync(path: Path) -> None:
    """Sync a file, or the names in a folder, which syncing its files does not."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def list_checkpoints(folder: Path) -> list[tuple[str, dict[str, Any]]]:
    """Name and metadata of the checkpoints with an undamaged complete.json, newest first.

    Their files are not checked.
    """
    return list(iter_checkpoints(folder))


def iter_checkpoints(folder: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """As `list_checkpoints`, each read when it is asked for."""
    paths = sorted(folder.glob(NAME_PATTERN), reverse=True) if folder.is_dir() else []
    for path in paths:
        if (metadata := _read_metadata(path)) is not None:
            yield path.name, metadata


def _read_metadata(path: Path) -> dict[str, Any] | None:
    """None unless it is what was written, for the step of the folder's name."""
    metadata = read_signed(path / COMPLETE) or _read_unsigned(path / COMPLETE)
    if metadata is None or path.name != checkpoint_name(metadata["step"]):
        return None
    return metadata


def _read_unsigned(path: Path) -> dict[str, Any] | None:
    """As schema 1 was written."""
    try:
        metadata = read_json(path)
    except UNREADABLE:
        return None
    is_first_schema = isinstance(metadata, dict) and metadata.get("schema") == 1
    return metadata if is_first_schema and DIGEST not in metadata else None


def find_damage(
    path: Path, files: dict[str, FileDigest], rank: int = 0, world_size: int = 1
) -> str:
    """Check this rank's share of `files`, sizes first, then hashes.

    Returns the first problem, or an empty string.
    """
    local_files = sorted(files.items())[rank::world_size]
    for name, written in local_files:
        if not (path / name).is_file():
            return f"{name} is missing"
        if (size := (path / name).stat().st_size) != written["bytes"]:
            return f"{name} has {size} bytes, {written['bytes']} were written"
    for name, written in local_files:
        if file_digest(path / name) != written["sha256"]:
            return f"{name} is not what was written (sha256)"
        if name.startswith("rank-") and _is_of_other_step(path, name):
            return f"{name} is of another step"
    return ""


def _is_of_other_step(path: Path, file_list: str) -> bool:
    step = read_json(path / file_list).get("step")
    return step is not None and checkpoint_name(step) != path.name.removesuffix(".tmp")


def refuse_other_content(name: str, saved: object, current: object) -> None:
    """Raises: ConfigError with the first value in which the contents differ."""
    if difference := first_difference(saved, current):
        raise ConfigError(
            f"{difference} in the checkpoint {name}; a run is resumed with the settings it was "
            "started with; set it back, give another name, or remove train.tmp of this run to "
            "start anew"
        )


def prune(folder: Path, published: str, keep_last: int, keep_every: int) -> None:
    """Remove old checkpoints, except the newest `keep_last`, steps that are a multiple of
    `keep_every` (0: none), and `published`.

    A damaged checkpoint is removed too, once one of its step or a later step is published.
    """
    for name, metadata in list_checkpoints(folder)[keep_last:]:
        if name != published and not (keep_every and metadata["step"] % keep_every == 0):
            shutil.rmtree(folder / name)
    for path in folder.glob(f"step-*{TORN}"):
        if path.name.removesuffix(TORN) <= published:
            shutil.rmtree(path) if path.is_dir() else path.unlink()


def quarantine(folder: Path, newest_good: str) -> list[str]:
    """Rename the damaged checkpoints newer than `newest_good` (all if it is empty) to `*.torn`.

    Returns their new names.
    """
    damaged = [path for path in sorted(folder.glob(NAME_PATTERN)) if path.name > newest_good]
    for path in damaged:
        target = path.with_name(path.name + TORN)
        remove(target)
        os.replace(path, target)
    if damaged and newest_good:
        _point(folder, newest_good)
    return [path.name + TORN for path in damaged]


def remove_unfinished(folder: Path) -> None:
    """Remove the half-written checkpoints of a run that died, and a file in the folder's stead."""
    if not folder.is_dir():
        remove(folder)
    for path in folder.glob("step-*.tmp"):
        remove(path)
