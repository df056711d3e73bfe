"""A folder that `datasets` saved (`save_to_disk`): which of its Arrow files are the dataset."""

import json
from typing import Any

from ropewalk.conf.errors import DataError
from ropewalk.conf.sources import SourceConfig
from ropewalk.data.sources.units import File, Location

_DICT, _STATE = "dataset_dict.json", "state.json"


def data_files(source: SourceConfig, key: str, location: Location, files: list[File]) -> list[File]:
    """The files of the split in the settings that the folder's `state.json` lists.

    `map` leaves cache files in the folder, which `state.json` does not list.
    Raises: DataError for a listed file that is missing.
    """
    folder = _split_folder(source, key, location, files)
    files = [file for file in files if file.name.startswith(folder)]
    for state in [file.name for file in files if file.name.split("/")[-1] == _STATE]:
        prefix = state.removesuffix(_STATE)
        listed = {prefix + name for name in _listed(location, state, key)}
        if missing := sorted(listed - {file.name for file in files}):
            raise DataError(
                f"{key}.path is {source.path}; {state} names {missing[0]}, which is missing; "
                "save the dataset again"
            )
        files = [
            file
            for file in files
            if file.name in listed or file.name.rpartition("/")[0] != prefix.rstrip("/")
        ]
    return files


def _split_folder(source: SourceConfig, key: str, location: Location, files: list[File]) -> str:
    """The folder of the split with a slash; empty for a dataset without splits."""
    splits: list[str] = []
    if _DICT in {file.name for file in files}:
        splits = [str(split) for split in _read(location, _DICT, key, "splits")]
    if source.split in splits or (source.split is None and len(splits) == 1):
        return f"{source.split or splits[0]}/"
    if source.split is None and not splits:
        return ""
    way_out = f"set it to one of {', '.join(splits)}" if splits else "unset it"
    raise DataError(
        f"{key}.split is {source.split or 'not set'}; it must name a split of the saved dataset, "
        f"which has {len(splits) or 'none'}; {way_out}"
    )


def _listed(location: Location, state: str, key: str) -> list[str]:
    try:
        return [str(file["filename"]) for file in _read(location, state, key, "_data_files")]
    except (TypeError, KeyError) as error:
        raise _malformed(key, state) from error


def _read(location: Location, name: str, key: str, field: str) -> Any:
    try:
        with location.open(name) as file:
            return json.load(file)[field]
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise _malformed(key, name) from error


def _malformed(key: str, name: str) -> DataError:
    return DataError(
        f"{key}.path holds {name}; it must be as datasets writes it; save the dataset again"
    )
