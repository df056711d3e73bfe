"""What lies in the folder of checkpoints. Only `step-N` with a `complete.json` is one; `step-N.tmp` is being written, or a dead run's.
`step-N.torn` was published, and no longer is what was written.

complete.json is written last, by rank 0, when the files of all ranks are there in the sizes that their writers counted.
"""

import hashlib
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ropewalk.conf.artifacts.manifest import first_difference, read_json, write_json
from ropewalk.conf.errors import ConfigError

COMPLETE = "complete.json"
LATEST = "latest"
NAME_PATTERN = "step-" + "[0-9]" * 8
TORN = ".torn"


def sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def checkpoint_name(step: int) -> str:
    return f"step-{step:08d}"


def publish(folder: Path, name: str, facts: dict[str, Any]) -> None:
    """`name.tmp` becomes `name`, and `latest` points to it. Raises: OSError when a file is not there as it was written."""
    temporary, final = folder / f"{name}.tmp", folder / name
    files = dict(_files(temporary, facts["world_size"], facts["zero_stage"]))
    for file, wanted in files.items():
        size = (temporary / file).stat().st_size
        if size != wanted["bytes"]:
            raise OSError(f"{file} has {size} bytes, {wanted['bytes']} were written")
    write_json(temporary / COMPLETE, {**facts, "files": files})
    _sync(temporary)
    shutil.rmtree(final, ignore_errors=True)
    os.replace(temporary, final)
    _sync(folder)
    _point(folder, name)


def _files(temporary: Path, ranks: int, zero_stage: int) -> Iterator[tuple[str, dict[str, Any]]]:
    """What each rank's writer says it wrote, and these lists themselves. Raises: OSError when one wrote less than it must."""
    for rank in range(ranks):
        said = temporary / f"rank-{rank}.json"
        listed = read_json(said)
        if lacking := _lacking(listed, rank, zero_stage):
            raise OSError(f"rank {rank} wrote no {lacking}")
        yield from listed["files"].items()
        yield said.name, {"bytes": said.stat().st_size, "sha256": sha256(said)}


def _lacking(listed: dict[str, Any], rank: int, zero_stage: int) -> str:
    """What was asked for, or what DeepSpeed has of every rank (states, from ZeRO 1 on) and of the first (weights), and is not there."""
    kinds = ["model_states.pt"] * (rank == 0) + ["optim_states.pt"] * (zero_stage > 0)
    wanted = [*listed["asked"], *kinds]
    return next(
        (name for name in wanted if not any(file.endswith(name) for file in listed["files"])), ""
    )


def _point(folder: Path, name: str) -> None:
    """The pointer by another name first, so that it is never half written."""
    temporary = folder / f"{LATEST}.tmp"
    with temporary.open("w") as file:
        file.write(name)
        file.flush()
        os.fsync(file.fileno())
    os.replace(temporary, folder / LATEST)
    _sync(folder)


def _sync(folder: Path) -> None:
    """Names are on disk, not only contents."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def list_checkpoints(folder: Path) -> list[tuple[str, dict[str, Any]]]:
    """Checkpoints that say they are complete, newest first: name and facts. Their files may be torn all the same."""
    there = sorted(folder.glob(NAME_PATTERN), reverse=True) if folder.is_dir() else []
    return [(path.name, facts) for path in there if (facts := _facts(path)) is not None]


def _facts(path: Path) -> dict[str, Any] | None:
    try:
        facts = read_json(path / COMPLETE)
    except (OSError, ValueError):
        return None
    return facts if isinstance(facts, dict) and facts.get("schema") == 1 else None


def find_damage(path: Path, files: dict[str, dict[str, Any]], share: int = 0, of: int = 1) -> str:
    """What is wrong with a part of the files (every `of`-th), sizes first, then hashes; empty when nothing is."""
    mine = sorted(files.items())[share::of]
    for name, wanted in mine:
        if not (path / name).is_file():
            return f"{name} is missing"
        if (size := (path / name).stat().st_size) != wanted["bytes"]:
            return f"{name} has {size} bytes, {wanted['bytes']} were written"
    for name, wanted in mine:
        if sha256(path / name) != wanted["sha256"]:
            return f"{name} is not what was written (sha256)"
    return ""


def refuse_other_content(name: str, was: Any, now: Any) -> None:
    """Raises: ConfigError with the first thing that decides the content and is not what it was."""
    if difference := first_difference(was, now):
        raise ConfigError(
            f"{difference} in the checkpoint {name}; a run is resumed with what it was begun with; set it back, give another name, or "
            "remove train.tmp of this run to start anew"
        )


def prune(folder: Path, published: str, keep_last: int, keep_every: int) -> None:
    """Remove all but the last `keep_last`, those of a step that `keep_every` divides (0: none), and the one just published.

    What was set aside goes too, once a whole one of as late a step stands.
    """
    for name, facts in list_checkpoints(folder)[keep_last:]:
        if name != published and not (keep_every and facts["step"] % keep_every == 0):
            shutil.rmtree(folder / name)
    for path in folder.glob(f"step-*{TORN}"):
        if path.name.removesuffix(TORN) <= published:
            shutil.rmtree(path)


def quarantine(folder: Path, after: str) -> list[str]:
    """Those of later steps than the one loaded (all, after ""), which are torn, get a name that is none; what they are called now."""
    aside = [path for path in sorted(folder.glob(NAME_PATTERN)) if path.name > after]
    for path in aside:
        to = path.with_name(path.name + TORN)
        shutil.rmtree(to, ignore_errors=True)
        os.replace(path, to)
    if aside and after:
        _point(folder, after)
    return [path.name + TORN for path in aside]


def remove_unfinished(folder: Path) -> None:
    """Remove what dead runs left half written."""
    for path in folder.glob("step-*.tmp"):
        shutil.rmtree(path, ignore_errors=True)
