"""The folder of a base in the Hub's cache, for a base that has a Hub name."""

import json
from pathlib import Path

from huggingface_hub import try_to_load_from_cache

from ropewalk.train.weights.config_file import CONFIG
from ropewalk.train.weights.shards import INDEX, SINGLE


def cached_folder(hub_name: str, revision: str | None) -> Path | None:
    """The folder with all files of the weights; None while some are still to be downloaded."""
    config = try_to_load_from_cache(hub_name, CONFIG, revision=revision)
    if not isinstance(config, str):
        return None
    folder = Path(config).parent
    if (folder / SINGLE).is_file():
        return folder
    try:
        files = json.loads((folder / INDEX).read_bytes())["weight_map"].values()
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None  # transformers downloads it
    return folder if all((folder / str(file)).is_file() for file in files) else None
