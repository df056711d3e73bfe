"""From a source's settings to its kind, its files as units, and the documents of a unit."""

from collections.abc import Iterator, Set
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ropewalk.conf.data import MAX_DOCUMENT_BYTES
from ropewalk.conf.errors import DataError
from ropewalk.conf.source_ids import TOKEN_FILES
from ropewalk.conf.sources import CONTENT_READ_BY, TABLES, SourceConfig
from ropewalk.data.sources import (
    globs,
    hub,
    indexed,
    kinds,
    local,
    mds_index,
    remote,
    saved_dataset,
    text,
    units,
    unread,
)
from ropewalk.data.sources.columns import Columns, ReadSettings, usable
from ropewalk.data.sources.hub import HubSplit
from ropewalk.data.sources.kinds import FILE_KINDS
from ropewalk.data.sources.units import (
    FILE_PREFIX,
    Document,
    File,
    Location,
    PathMatch,
    Refusal,
    Unit,
)

_SKIPPED_FOLDERS = {  # folders of a source tree without prose of their own
    "test", "tests", "idle_test", "site-packages", "dist-packages", "__pycache__", "lib-dynload",
    "node_modules",
}  # fmt: skip


@dataclass(frozen=True)
class SourceListing:
    """A source's files when it was listed. Picklable: any unit can be read in any process."""

    kind: str
    location: Location | HubSplit
    units: list[Unit]  # in input order
    settings: ReadSettings
    reading: dict[str, Any]
    """The settings that the documents depend on."""
    files: list[File]

    def identity(self, cache: Path) -> dict[str, Any]:
        """Plain values that the documents depend on: reading settings, and name, size and content
        of each file; not where the files lie, nor their times.

        The digests of local files are recorded in `cache`; the first look reads the files.
        """
        digests = self.location.digests(self.files, cache)
        rows = [[f.name, f.size, digests.get(f.name, f.stamp)] for f in self.files]
        return {**self.reading, "files": rows}

    def cut_at(self, begin: int | None, end: int | None) -> "SourceListing":
        """The listing, whose files of bare ids have these tokens around each document."""
        return replace(self, settings=replace(self.settings, marks=(begin, end)))

    def documents(self, unit: Unit) -> Iterator[Document | Refusal]:
        """The unit's documents in input order, with a Refusal in place of each unusable one.

        The units give the same documents together however they are spread over processes.
        Raises: DataError when a remote location breaks off.
        """
        return (usable(item, self.settings.max_bytes) for item in self._items(unit))

    def _items(self, unit: Unit) -> Iterator[Document | Refusal]:
        location = self.location
        if isinstance(location, HubSplit):
            yield from hub.documents(location, unit, self.settings.columns)
        elif self.kind == "tree":
            yield from text.tree_documents(location, unit, self.settings)
        else:
            for name in unit.files:
                refusal = text.refused(location, name)
                if refusal is None:
                    yield from FILE_KINDS[self.kind].documents(location, name, unit, self.settings)
                elif self.kind in (*TABLES, *TOKEN_FILES):
                    yield replace(refusal, reason=FILE_PREFIX + refusal.reason)
                else:
                    yield refusal


def list_source(
    source: SourceConfig, name: str, max_document_bytes: int = MAX_DOCUMENT_BYTES
) -> SourceListing:
    """List a source. Raises: DataError when it is missing, empty, or contradicts its settings."""
    key = f"data.sources.{name}"
    settings = ReadSettings(Columns.from_config(source), max_document_bytes, source.ids_dtype)
    if source.kind == "hub":
        split, shards, files = hub.list_split(source, key)
        reading = {**_reading(source, "hub", settings), "split": split.split}
        return SourceListing("hub", split, shards, settings, reading, files)
    match = _find(source, key, _SKIPPED_FOLDERS if source.kind in ("auto", "tree") else frozenset())
    kind = _kind(source, match, key)
    if source.kind == "auto" and kind != "tree" and match.form == "folder":
        match = _find(source, key, frozenset())  # a folder `test` may hold rows
    if problems := list(source.unread_problems(kind, f"{key}.")):
        raise DataError("\n".join(problems))
    files = _files(source, kind, key, match)
    for line in unread.lines(source, kind, key, match, files):
        print(line)
    if not files:
        raise DataError(
            f"{key}.path is {source.path}; it holds no file for kind {kind}; "
            "correct the path, kind or pattern"
        )
    for line in remote.untracked_changes(files, f"{key}.path"):
        print(line)
    split_files = units.group_units(_split(kind, match.location, files))
    reading = _reading(source, kind, settings)
    return SourceListing(kind, match.location, split_files, settings, reading, files)


def _reading(source: SourceConfig, kind: str, settings: ReadSettings) -> dict[str, Any]:
    """The kind, and the settings that its reader reads and that are set."""
    keys = [key for key, kinds in CONTENT_READ_BY.items() if kind in kinds]
    values = {key: getattr(source, key) for key in keys}
    if settings.max_bytes != MAX_DOCUMENT_BYTES:
        values["max_document_bytes"] = settings.max_bytes
    return {"kind": kind, **{key: value for key, value in values.items() if value is not None}}


def _find(source: SourceConfig, key: str, skip_folders: Set[str]) -> PathMatch:
    path = (source.path or "").removeprefix("file://").removeprefix("local://")
    if "://" in path:
        match = remote.find(path, f"{key}.path", skip_folders)
    else:
        match = local.find(path, skip_folders, source.follow_links)
    if match.form == "nothing":
        raise DataError(
            f"{key}.path is {source.path}; it must be an existing file or folder, a glob or a URL; "
            f"correct the path, or for a dataset of the Hugging Face Hub set {key}.kind=hub"
        )
    if match.form == "glob" and not match.files:
        raise DataError(f"{key}.path is {source.path}; no file matches it; correct the glob")
    return match


def _kind(source: SourceConfig, match: PathMatch, key: str) -> str:
    """The kind as set, or for `auto` by file names. Raises: DataError for a folder of two kinds."""
    if source.kind != "auto":
        return source.kind
    if source.path == local.STDLIB:
        return "tree"
    single_file = match.form == "file"
    names = [file.name for file in match.files if not file.folder and _is_selected(source, file)]
    if unreadable := kinds.unreadable_suffix(names):
        suffix, way_out = unreadable
        pattern = "" if single_file else f" and {key}.pattern=*{suffix}"
        raise DataError(
            f"{key}.kind is auto; {source.path} holds {suffix}, which no kind reads; {way_out}, "
            f"or set {key}.kind=text{pattern} to take it as it is"
        )
    candidates = kinds.kinds_of(names, single_file)
    if len(candidates) > 1:
        raise DataError(
            f"{key}.kind is auto; {source.path} holds {' and '.join(candidates)}; "
            f"set {key}.kind to one of them"
        )
    return (candidates or ["text" if single_file else "tree"])[0]


def _files(source: SourceConfig, kind: str, key: str, match: PathMatch) -> list[File]:
    """The files that the kind reads. A link to a folder stays, to be refused by name."""
    if kind == "indexed":
        indexed.refuse_halves(source, key, match)
    if match.form == "file":
        return match.files
    files = match.files
    if kind == "mds":
        files = mds_index.data_files(source, key, match.location, files)
    if kind == "arrow":
        files = saved_dataset.data_files(source, key, match.location, files)
    if kind != "tree" and source.pattern is None and match.form == "folder":
        return [file for file in files if file.folder or kinds.is_read_by(kind, file.name)]
    files = [file for file in files if file.folder or _is_selected(source, file)]
    if kind == "tree" and source.pattern is None:
        files = [file for file in files if not kinds.is_leftover(kind, file.name)]
    return files


def _is_selected(source: SourceConfig, file: File) -> bool:
    pattern = source.pattern or ("*.py" if source.path == local.STDLIB else "*")
    return globs.matches(file.name if "/" in pattern else file.name.split("/")[-1], pattern)


def _split(kind: str, location: Location, files: list[File]) -> Iterator[Unit]:
    """Units in input order: a tree, a file or a part of one. They depend on the files alone."""
    if kind == "tree":
        yield from text.split_trees(files)
        return
    split = FILE_KINDS[kind].split
    for file in files:
        if split and file.size > units.UNIT_BYTES and location.refusal(file.name) is None:
            yield from split(location, file.name, file.size)
        else:
            yield Unit((file.name,), file.size)
