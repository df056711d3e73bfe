"""What a base is known by: its content. Two bases with one identity train the same model."""

import json
from pathlib import Path
from typing import Any

from transformers.utils.hub import cached_file, extract_commit_hash

from ropewalk.conf.artifacts.digests import file_digests
from ropewalk.conf.artifacts.manifest import fingerprint
from ropewalk.conf.errors import ConfigError

FILES = (
    "config.json", "generation_config.json", "adapter_config.json", "*.safetensors",
    "*.safetensors.index.json",
)  # fmt: skip
"""What a model is loaded from, and what is copied into the trained one. The tokenizer is known by
the data stage."""
CODE = "*.py"
"""Of a model with code of its own, which its config names in `auto_map`."""
NOTES = ("transformers_version", "_name_or_path")
"""Keys of config.json without effect on the model."""


def folder_identity(folder: Path, cache: Path) -> str:
    """Fingerprint of the files of a Hugging Face model folder; their digests lie in `cache`.

    Raises: ConfigError for a file that cannot be read.
    """
    config, digests = _json(folder / "config.json"), folder_files(folder, cache)
    if config:
        del digests["config.json"]
    settings = {key: value for key, value in config.items() if key not in NOTES}
    return fingerprint({"config": settings, "files": digests})


def folder_files(folder: Path, cache: Path) -> dict[str, str]:
    """sha256 of each file that a model folder is loaded from, by name.

    Raises: ConfigError for a file that cannot be read.
    """
    config = _json(folder / "config.json")
    names = [*_names(folder, (*FILES, CODE) if "auto_map" in config else FILES), *_shards(folder)]
    names = sorted(set(names))
    digests = file_digests(folder, names, cache)
    for name in names:
        if name not in digests:
            raise ConfigError(
                f"model.path is {folder.name}; its {name} cannot be read; give a folder with all "
                "files of the model"
            )
    return digests


def hub_files(name: str, commit: str, cache: Path) -> dict[str, str]:
    """As `folder_files`, of a hub model at a commit, as far as it was downloaded."""
    config = cached_file(name, "config.json", revision=commit)
    return folder_files(Path(str(config)).parent, cache)


def _names(folder: Path, patterns: tuple[str, ...]) -> list[str]:
    return [path.name for pattern in patterns for path in folder.glob(pattern)]


def _shards(folder: Path) -> list[str]:
    """The files that an index names, wherever they lie."""
    maps = [_json(path).get("weight_map") for path in folder.glob("*.safetensors.index.json")]
    names = [name for files in maps if isinstance(files, dict) for name in files.values()]
    return [name for name in names if isinstance(name, str)]


def _json(path: Path) -> dict[str, Any]:
    """The object in a JSON file; empty when it is none, whose bytes then count as they are."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def commit_identity(commit: str) -> str:
    """Fingerprint of a hub model at a commit, which git knows by its content."""
    return fingerprint({"commit": commit})


def hub_commit(name: str, revision: str | None) -> str:
    """The commit that a branch or tag of a hub model points to now; the one last downloaded when
    the hub cannot be reached.

    Raises: ConfigError when there is none.
    """
    try:
        file = cached_file(name, "config.json", revision=revision or "main")
        commit = extract_commit_hash(file, None)
    except (OSError, ValueError) as error:
        reason = " ".join(str(error).strip().splitlines()[:1])
        raise ConfigError(
            f"model.path is {name}; its config must be readable by transformers; {reason}"
        ) from None
    if commit is None:
        raise ConfigError(
            f"model.path is {name}; the commit of revision {revision or 'main'} must be known, "
            "and the hub's cache does not tell it; download the model again, or give its folder"
        )
    return commit
