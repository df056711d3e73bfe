"""Files beside a base's weights that go with the trained model: generation settings, licences."""

import json
import shutil
from pathlib import Path

from transformers import GenerationConfig

GENERATION = "generation_config.json"
LICENCES = ("LICENSE*", "LICENCE*", "COPYING*", "NOTICE*", "USE_POLICY*")


def generation_problems(folder: Path, name: str) -> list[str]:
    """Why generation_config.json of the base called `name` cannot be kept; empty when it can.

    transformers takes its defaults in place of a file that it cannot read, without a word.
    """
    path = folder / GENERATION
    if not path.is_file():
        return []
    head = f"model.path is {name}; its {GENERATION}"
    try:
        content = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError) as error:
        return [f"{head} is no JSON: {error}; correct it, or remove it for transformers' defaults"]
    if not isinstance(content, dict):
        return [f"{head} is a JSON {type(content).__name__}; it must be an object; correct it"]
    limit = content.get("max_length")
    if limit is not None and (type(limit) is not int or limit < 1):
        return [f"{head} has max_length {limit!r}; it must be a whole number above 0; correct it"]
    try:
        GenerationConfig.from_dict(content)
    except (ValueError, TypeError, AttributeError, KeyError) as error:
        reason = " ".join(str(error).split())
        return [f"{head} must be readable by transformers; {reason}; correct it"]
    return []


def take_licences(base: Path, folder: Path) -> list[str]:
    """Copy the licence files of a base's folder to `folder`. Returns their names."""
    files = sorted({path for pattern in LICENCES for path in base.glob(pattern) if path.is_file()})
    for path in files:
        shutil.copyfile(path, folder / path.name)
    return [path.name for path in files]
