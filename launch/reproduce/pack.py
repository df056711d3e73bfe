"""`ropewalk pack RUN`: what another needs to repeat a run, in one archive.

A tar without times and users: the same run gives the same bytes.
"""

import io
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from ropewalk.conf.artifacts.manifest import MANIFEST
from ropewalk.conf.artifacts.records import move_aside
from ropewalk.conf.errors import ConfigError
from ropewalk.launch.reproduce import evidence
from ropewalk.launch.reproduce.evidence import Evidence
from ropewalk.launch.reproduce.packages import lock

FILES = (
    *(MANIFEST, "rope.json", "data/ledger.json", "train/metrics.jsonl", "eval/results.json"),
    *("data/manifest.json", "train/manifest.json", "eval/manifest.json"),
)
"""Of a run and of each of its phases, as far as they are there."""
WEIGHTS = ("train/model", "train/adapter")
NOT_IN_A_RECIPE = ("schema", "phase", "runs_dir", "cache_dir")
"""Settings that a recipe does not choose."""


def write(run: str, output: str | None, weights: bool) -> Path:
    """Write NAME.tar, or `output`, and return its path. Raises: ConfigError."""
    known = evidence.read(run)
    if known.folder is None:
        raise ConfigError(f"{run} is a pack; a run's folder is packed; name the folder")
    target = Path(output or f"{known.record['name']}.tar").expanduser()
    if target.exists():
        print(f"{target} was there; moved to {move_aside(target, 'former').name}", flush=True)
    files: dict[str, bytes | Path] = {**dict(_texts(known)), **dict(_files(known.folder, weights))}
    temporary = target.with_name(f"{target.name}.tmp")
    with tarfile.open(temporary, "w", format=tarfile.GNU_FORMAT) as archive:
        for name in sorted(files):
            _add(archive, name, files[name])
    temporary.replace(target)
    return target


def _texts(known: Evidence) -> Iterator[tuple[str, bytes]]:
    """The recipe, and the lock of the packages that the training was made with."""
    name = known.record["name"]
    yield f"recipe/{name}.yaml", recipe(known.record["settings"]).encode()
    yield "packages.txt", lock(known.environment.get("packages", {})).encode()


def recipe(settings: dict[str, Any]) -> str:
    """The settings as a recipe for `--config-dir`; PATH stands for the user's folders."""
    chosen = {key: value for key, value in settings.items() if key not in NOT_IN_A_RECIPE}
    method = chosen["rope"]["method"]
    head = f"# @package _global_\ndefaults:\n  - override /rope: {method}\n\n"
    return head + yaml.safe_dump(chosen, sort_keys=False, allow_unicode=True)


def _files(folder: Path, weights: bool) -> Iterator[tuple[str, Path]]:
    roots = [folder, *sorted(path for path in folder.glob("phases/*") if path.is_dir())]
    for root in roots:
        names = [root / name for name in FILES]
        if weights:
            names += [path for name in WEIGHTS for path in sorted((root / name).rglob("*"))]
        yield from ((p.relative_to(folder).as_posix(), p) for p in names if p.is_file())


def _add(archive: tarfile.TarFile, name: str, content: bytes | Path) -> None:
    member = tarfile.TarInfo(name)
    member.mode = 0o644
    if isinstance(content, bytes):
        member.size = len(content)
        archive.addfile(member, io.BytesIO(content))
        return
    member.size = content.stat().st_size
    with content.open("rb") as stream:
        archive.addfile(member, stream)
