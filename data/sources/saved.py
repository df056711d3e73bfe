"""A folder that `datasets` saved (`save_to_disk`): which of its Arrow files are the dataset."""

import json
from typing import Any

from ropewalk.conf.errors import DataError
from ropewalk.conf.sources import SourceConfig
from ropewalk.data.sources.units import File

_DICT, _STATE = "dataset_dict.json", "state.json"


def chosen(source: SourceConfig, key: str, place: Any, files: list[File]) -> list[File]:
    """The files of the split that is asked for, without what a folder's `state.json` does not name: `map` leaves its cache
    there, which is no document. Raises: DataError for a file that is named and not there."""
    folder = _split(source, key, place, files)
    files = [file for file in files if file.name.startswith(folder)]
    for state in [file.name for file in files if file.name.split("/")[-1] == _STATE]:
        inside = state.removesuffix(_STATE)
        named = {inside + name for name in _named(place, state, key)}
        if missing := sorted(named - {file.name for file in files}):
            raise DataError(
                f"{key}.path is {source.path}; {state} names {missing[0]}, which is not there; save the dataset again"
            )
        files = [
            file
            for file in files
            if file.name in named or file.name.rpartition("/")[0] != inside.rstrip("/")
        ]
    return files


def _split(source: SourceConfig, key: str, place: Any, files: list[File]) -> str:
    """The folder of a split and a slash; nothing where the dataset has no splits."""
    has = (
        [str(s) for s in _read(place, _DICT, key, "splits")]
        if _DICT in {file.name for file in files}
        else []
    )
    if source.split in has or (source.split is None and len(has) == 1):
        return f"{source.split or has[0]}/"
    if source.split is None and not has:
        return ""
    way_out = f"set it to one of {', '.join(has)}" if has else "unset it"
    raise DataError(
        f"{key}.split is {source.split or 'not set'}; it must name a split of the saved dataset, which has "
        f"{len(has) or 'none'}; {way_out}"
    )


def _named(place: Any, state: str, key: str) -> list[str]:
    try:
        return [str(file["filename"]) for file in _read(place, state, key, "_data_files")]
    except (TypeError, KeyError) as error:
        raise DataError(
            f"{key}.path holds {state}; it must be as datasets writes it; save the dataset again"
        ) from error


def _read(place: Any, name: str, key: str, field: str) -> Any:
    try:
        with place.open(name) as file:
            return json.load(file)[field]
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise DataError(
            f"{key}.path holds {name}; it must be as datasets writes it; save the dataset again"
        ) from error
