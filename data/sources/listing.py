"""From a source's settings to what is there: its kind, its files, and units that are read by themselves."""

from collections.abc import Iterator, Set
from typing import Any

from ropewalk.conf import sources
from ropewalk.conf.errors import DataError
from ropewalk.conf.sources import SourceConfig
from ropewalk.data.sources import (
    globs,
    hub,
    jsonl,
    kinds,
    local,
    remote,
    saved,
    tables,
    texts,
    units,
)
from ropewalk.data.sources.units import File, Found, Listed, Unit

_PARTS = {"arrow": tables.cut_arrow, "jsonl": jsonl.cut, "parquet": tables.cut_parquet}
_NO_SOURCE = {  # folders of a source tree that hold no text of its own
    "test", "tests", "idle_test", "site-packages", "dist-packages", "__pycache__", "lib-dynload", "node_modules",
}  # fmt: skip


def listed(source: SourceConfig, name: str) -> Listed:
    """A source as it lies there now. Raises: DataError for one that is not there, is empty, or is not what its settings say."""
    key = f"data.sources.{name}"
    if source.kind == "hub":
        place, parts, origin = hub.find(source, key)
        return Listed(
            "hub", place, parts, {**_choices(source, "hub"), "split": place.split, "files": origin}
        )
    found = _find(source, key, _NO_SOURCE if source.kind in ("auto", "tree") else frozenset())
    kind = _kind(source, found, key)
    if (
        source.kind == "auto" and kind != "tree" and found.how == "folder"
    ):  # a folder `test` of rows holds rows
        found = _find(source, key, frozenset())
    if wrong := list(sources.misplaced(source, kind, key)):
        raise DataError("\n".join(wrong))
    files = _files(source, kind, key, found)
    if not files:
        raise DataError(
            f"{key}.path is {source.path}; it holds no file for kind {kind}; correct the path, kind or pattern"
        )
    for line in remote.unnoticed(files, f"{key}.path"):
        print(line)
    identity = {
        **_choices(source, kind),
        "files": [[file.name, file.size, file.stamp] for file in files],
    }
    return Listed(kind, found.place, units.grouped(_cut(kind, found.place, files)), identity)


def _choices(source: SourceConfig, kind: str) -> dict[str, Any]:
    """What the settings say of reading, where the kind reads it."""
    keys = [
        *(("text_key", "template", "id_key") if kind in sources.TABLES else ()),
        *(("config",) * (kind == "hub")),
    ]
    return {
        "kind": kind,
        **{key: value for key in keys if (value := getattr(source, key)) is not None},
    }


def _find(source: SourceConfig, key: str, without: Set[str]) -> Found:
    path = (source.path or "").removeprefix("file://").removeprefix("local://")
    if "://" in path:
        found = remote.find(path, f"{key}.path", without)
    else:
        found = local.find(path, without, source.follow_links)
    if not found.how:
        raise DataError(
            f"{key}.path is {source.path}; it must be an existing file or folder, a glob or a URL; correct the path, or for a "
            f"dataset on the hub set {key}.kind=hub"
        )
    if found.how == "glob" and not found.files:
        raise DataError(f"{key}.path is {source.path}; no file matches it; correct the glob")
    return found


def _kind(source: SourceConfig, found: Found, key: str) -> str:
    """The reader of a source; `auto` looks at the names. Raises: DataError when two kinds lie in one folder."""
    if source.kind != "auto":
        return source.kind
    if source.path == local.STDLIB:
        return "tree"
    names = [file.name for file in found.files if not file.folder and _wanted(source, file)]
    if unread := kinds.unread(names):
        suffix, way_out = unread
        chosen = "" if found.how == "file" else f" and {key}.pattern=*{suffix}"
        raise DataError(
            f"{key}.kind is auto; {source.path} holds {suffix}, which no kind reads; {way_out}, or set {key}.kind=text{chosen} "
            "to take it as it is"
        )
    speak = kinds.named(names, alone=found.how == "file")
    if len(speak) > 1:
        raise DataError(
            f"{key}.kind is auto; {source.path} holds {' and '.join(speak)}; set {key}.kind to one of them"
        )
    return speak[0] if speak else ("text" if found.how == "file" else "tree")


def _files(source: SourceConfig, kind: str, key: str, found: Found) -> list[File]:
    """Those that the kind reads. A link to a folder is kept, to be refused by name."""
    if found.how == "file":
        return found.files
    files = saved.chosen(source, key, found.place, found.files) if kind == "arrow" else found.files
    if kind != "tree" and source.pattern is None and found.how == "folder":
        return [file for file in files if file.folder or kinds.read_by(kind, file.name)]
    return [file for file in files if file.folder or _wanted(source, file)]


def _wanted(source: SourceConfig, file: File) -> bool:
    pattern = source.pattern or ("*.py" if source.path == local.STDLIB else "*")
    return globs.matches(file.name if "/" in pattern else file.name.split("/")[-1], pattern)


def _cut(kind: str, place: Any, files: list[File]) -> Iterator[Unit]:
    """Units of at least a file's part or a whole tree, in input order. Borders depend on the files alone."""
    if kind == "tree":
        yield from texts.cut_trees(files)
        return
    for file in files:
        if kind in _PARTS and file.size > units.UNIT_BYTES and place.refusal(file.name) is None:
            yield from _PARTS[kind](place, file.name, file.size)
        else:
            yield Unit((file.name,), file.size)
