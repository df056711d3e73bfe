"""The shards that MosaicML's index.json lists: none may be missing, cut off or left over."""

import json
from collections.abc import Iterator
from typing import Any

from ropewalk.conf.errors import DataError
from ropewalk.conf.sources import SourceConfig
from ropewalk.data.sources import compressed, mds
from ropewalk.data.sources.units import File, Location, has_suffix

INDEX = "index.json"


def is_index(name: str) -> bool:
    return name.split("/")[-1] == INDEX


def data_files(source: SourceConfig, key: str, location: Location, files: list[File]) -> list[File]:
    """The shards, each once, in the order of their names.

    An index of a folder above lists those of the folders below, and is read alone. A shard that
    lies there compressed and not is read as the latter. Without an index.json every shard is taken.

    Raises: DataError for a shard that is missing, unlisted, or has another size than listed.
    """
    sizes = {file.name: file.size for file in files}
    for index in _outermost([name for name in sizes if is_index(name)]):
        folder = index.removesuffix(INDEX)
        listed = [_shard_of(source, key, index, row, sizes) for row in _rows(location, index, key)]
        shards = {n for n in sizes if n.startswith(folder) and has_suffix(n, mds.SUFFIXES)}
        if unlisted := sorted({_plain(name) for name in shards} - set(listed)):
            raise DataError(
                f"{key}.path is {source.path}; {index} does not list {unlisted[0]}; an index has "
                "every shard of its folder; write the index again, or move the shard away"
            )
    return [
        file for file in files if _plain(file.name) == file.name or _plain(file.name) not in sizes
    ]


def _outermost(names: list[str]) -> Iterator[str]:
    """The indices that lie in no other one's folder."""
    folders: list[str] = []
    for name in sorted(names, key=lambda name: (name.count("/"), name)):
        if not any(name.startswith(folder) for folder in folders):
            folders.append(name.removesuffix(INDEX))
            yield name


def _plain(name: str) -> str:
    """The name without the suffix of a compression."""
    suffix = next((s for s in compressed.SUFFIXES if has_suffix(name, f".mds{s}")), "")
    return name.removesuffix(suffix)


def _shard_of(
    source: SourceConfig, key: str, index: str, row: dict[str, Any], sizes: dict[str, int]
) -> str:
    """The name of a listed shard without its compression. Raises: DataError."""
    folder = index.removesuffix(INDEX)
    try:
        forms = [row[form] for form in ("raw_data", "zip_data") if row[form] is not None]
        names = {folder + form["basename"]: int(form["bytes"]) for form in forms}
        raw, form = folder + row["raw_data"]["basename"], row["format"]
    except (TypeError, KeyError, ValueError) as error:
        raise _malformed(key, index) from error
    problem = None
    present = next((name for name in names if name in sizes), None)
    if form != "mds":
        problem = f"lists shards of format {form}, and kind mds reads mds"
    elif present is None:
        problem = f"lists {raw}, which is missing"
    elif not has_suffix(present, mds.SUFFIXES):
        problem = f"lists {present}, whose compression is not read (zstd, gz, bz2 or none are)"
    elif sizes[present] not in (0, names[present]):
        problem = f"says that {present} has {names[present]} bytes, and it has {sizes[present]}"
    if problem is not None:
        raise DataError(
            f"{key}.path is {source.path}; {index} {problem}; every shard must be there as its "
            "writer left it; copy the folder again"
        )
    return raw


def _rows(location: Location, index: str, key: str) -> list[dict[str, Any]]:
    try:
        with location.open(index) as file:
            rows = json.load(file)["shards"]
        return list(rows)
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise _malformed(key, index) from error


def _malformed(key: str, index: str) -> DataError:
    return DataError(
        f"{key}.path holds {index}; it must be as MosaicML's writer leaves it; copy it again"
    )
