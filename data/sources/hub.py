"""A dataset of the Hugging Face Hub, or a folder that `datasets` loads: one unit a shard."""

import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ropewalk.conf.artifacts.digests import file_digests
from ropewalk.conf.errors import DataError
from ropewalk.conf.sources import SourceConfig
from ropewalk.data.sources import units
from ropewalk.data.sources.columns import Columns
from ropewalk.data.sources.remote import summary
from ropewalk.data.sources.units import Document, File, Refusal, Unit

if TYPE_CHECKING:
    from datasets import IterableDataset


@dataclass(frozen=True)
class HubSplit:
    """One split of a dataset at one commit."""

    path: str
    config: str | None
    split: str
    revision: str | None
    key: str  # the setting that names it, for messages

    def digests(self, files: Sequence[File], cache: Path) -> dict[str, str]:
        """sha256 of the files of a folder, by name, recorded in `cache`; those of the Hub have
        their commit."""
        folder = Path(self.path)
        return file_digests(folder, [f.name for f in files], cache) if folder.is_dir() else {}


def list_split(source: SourceConfig, key: str) -> tuple[HubSplit, list[Unit], list[File]]:
    """The split, its shards, and its files, those of the Hub with their commits as stamps.

    Raises: DataError.
    """
    import datasets

    assert source.path is not None, key
    try:
        builder = datasets.load_dataset_builder(
            source.path, name=source.config, revision=source.revision
        )
    except Exception as error:  # the hub, the network and the folder raise their own errors
        raise DataError(
            f"{key}.path is {source.path}; kind hub needs a dataset that can be loaded; "
            f"{summary(error)}"
        ) from error
    files = builder.config.data_files or {}
    name = _split_name(source, key, [str(name) for name in files])
    origin = [[str(value) for value in stamp] for stamp in files[name].origin_metadata]
    commits = {stamp[1] for stamp in origin if len(stamp) == 2}
    revision = commits.pop() if len(commits) == 1 else source.revision
    split = HubSplit(source.path, source.config, name, revision, key)
    count = _stream(split, Columns.from_config(source)).num_shards
    info = (builder.info.splits or {}).get(name)
    size = info.num_bytes // count if info and info.num_bytes else units.UNIT_BYTES
    shards = [Unit((name,), size, shard, shard + 1) for shard in range(count)]
    return split, shards, _files(source.path, files[name], origin)


def _files(path: str, names: Iterable[str], origin: list[list[str]]) -> list[File]:
    """Those of a folder by their names in it; those of the Hub by repository and commit."""
    folder = Path(path).absolute()
    if not folder.is_dir():
        return [File(" ".join(stamp[:-1]), 0, "".join(stamp[-1:])) for stamp in origin]
    paths = [Path(name) for name in names]
    return [File(os.path.relpath(p, folder), p.stat().st_size, None) for p in paths]


def _split_name(source: SourceConfig, key: str, names: list[str]) -> str:
    if source.split in names:
        return str(source.split)
    if source.split is None and len(names) == 1:
        return names[0]
    raise DataError(
        f"{key}.split is {source.split or 'not set'}; "
        f"the dataset has {', '.join(names) or 'no split'}; set it to one of them"
    )


def documents(split: HubSplit, unit: Unit, columns: Columns) -> Iterator[Document | Refusal]:
    """The rows of a shard; an id is split, shard and row. Raises: DataError when it breaks off."""
    shard = unit.start
    stream = _stream(split, columns)
    rows = iter(stream.shard(stream.num_shards, shard))
    row = 0
    while True:
        try:
            values = next(rows)
        except StopIteration:
            return
        except Exception as error:
            raise DataError(
                f"{split.key}.path is {split.path}; shard {shard} of {split.split} broke off at "
                f"row {row} ({summary(error)}); run again, or correct the dataset"
            ) from error
        yield columns.document(values, f"{split.split}/{shard}:{row}")
        row += 1


@lru_cache(maxsize=8)
def _stream(split: HubSplit, columns: Columns) -> "IterableDataset":
    """The split with only the columns that are read, so that no image is decoded.

    Raises: DataError.
    """
    import datasets

    try:
        stream: Any = datasets.load_dataset(
            split.path,
            name=split.config,
            split=split.split,
            revision=split.revision,
            streaming=True,
        )
    except Exception as error:
        raise DataError(
            f"{split.key}.path is {split.path}; its split {split.split} could not be opened; "
            f"{summary(error)}"
        ) from error
    names = stream.column_names
    if names is None:
        return stream  # type: ignore[no-any-return]
    if missing := [key for key in columns.names if key not in names]:
        raise DataError(
            f"{split.key} reads column {', '.join(missing)}; the dataset has {', '.join(names)}; "
            "set text_key, template or id_key to what it has"
        )
    return stream.select_columns(columns.names)  # type: ignore[no-any-return]
