"""A dataset by its name on a hub, or a folder that `datasets` understands: streamed, a shard of it a unit."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from ropewalk.conf.errors import DataError
from ropewalk.conf.sources import SourceConfig
from ropewalk.data.sources import units
from ropewalk.data.sources.columns import Columns
from ropewalk.data.sources.units import Document, Refusal, Unit


@dataclass(frozen=True)
class Hub:
    """One split at one commit."""

    path: str
    config: str | None
    split: str
    revision: str | None
    key: str  # the setting that holds it, for messages


def find(source: SourceConfig, key: str) -> tuple[Hub, list[Unit], Any]:
    """The dataset, its shards, and which commit or times its files are of. Raises: DataError."""
    import datasets

    assert source.path is not None, key
    try:
        builder = datasets.load_dataset_builder(
            source.path, name=source.config, revision=source.revision
        )
    except (
        Exception
    ) as error:  # of the hub, of the network, of the folder: each has errors of its own
        raise DataError(
            f"{key}.path is {source.path}; kind hub needs a dataset that can be loaded; {_line(error)}"
        ) from error
    files = builder.config.data_files or {}
    place = Hub(source.path, source.config, _split(source, key, list(files)), source.revision, key)
    origin = [list(map(str, stamp)) for stamp in files[place.split].origin_metadata]
    commits = {stamp[1] for stamp in origin if len(stamp) == 2}
    if len(commits) == 1:
        place = Hub(place.path, place.config, place.split, commits.pop(), key)
    count, known = (
        _opened(place, Columns.of(source)).num_shards,
        (builder.info.splits or {}).get(place.split),
    )
    size = known.num_bytes // count if known and known.num_bytes else units.UNIT_BYTES
    return place, [Unit((place.split,), size, shard, shard + 1) for shard in range(count)], origin


def _split(source: SourceConfig, key: str, names: list[str]) -> str:
    names = [str(name) for name in names]
    if source.split in names:
        return str(source.split)
    if source.split is None and len(names) == 1:
        return names[0]
    raise DataError(
        f"{key}.split is {source.split or 'not set'}; the dataset has {', '.join(names) or 'no split'}; set it to one of them"
    )


def documents(place: Hub, unit: Unit, columns: Columns) -> Iterator[Document | Refusal]:
    """The rows of a shard; a document's id is its split, shard and row. Raises: DataError where the stream breaks off."""
    shard = unit.start
    rows = iter(_opened(place, columns).shard(_opened(place, columns).num_shards, shard))
    row = 0
    while True:
        try:
            values = next(rows)
        except StopIteration:
            return
        except Exception as error:
            raise DataError(
                f"{place.key}.path is {place.path}; shard {shard} of {place.split} broke off at row {row} ({_line(error)}); "
                "run again, or correct the dataset"
            ) from error
        yield columns.document(values, f"{place.split}/{shard}:{row}")
        row += 1


@lru_cache(maxsize=8)
def _opened(place: Hub, columns: Columns) -> Any:
    """The streamed split with the columns that are read: others, such as images, are not decoded. Raises: DataError."""
    import datasets

    try:
        found = datasets.load_dataset(
            place.path,
            name=place.config,
            split=place.split,
            revision=place.revision,
            streaming=True,
        )
    except Exception as error:
        raise DataError(
            f"{place.key}.path is {place.path}; its split {place.split} could not be opened; {_line(error)}"
        ) from error
    names = found.column_names
    if missing := [key for key in columns.names if names is not None and key not in names]:
        raise DataError(
            f"{place.key} reads column {', '.join(missing)}; the dataset has {', '.join(names)}; "
            "set text_key, template or id_key to what it has"
        )
    return found if names is None else found.select_columns(columns.names)


def _line(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}".splitlines()[0]
