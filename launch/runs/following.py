"""The command to type next, from the command that is recorded, and what is recorded of one."""

import os
import re
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ropewalk.conf.artifacts.folders import RUNS_DIR
from ropewalk.launch.pipeline.order import ORDER, VERB_STAGES
from ropewalk.launch.runs import files

LEFT_OUT = "=PATH"
"""What the record has in place of the user's folders."""


def without_folders(words: Sequence[str]) -> list[str]:
    """Words as typed, for records: with PATH in place of the user's folders, without Hydra's."""
    shown = [word for word in words if not word.startswith("hydra.")]
    return [re.sub(r"=(~|/|file:).*", LEFT_OUT, word) for word in shown]


def words_of(command: object) -> list[str]:
    """The words of a recorded command from the verb on; none where it has no verb of a run."""
    try:
        words = shlex.split(command) if isinstance(command, str) else []
    except ValueError:
        return []
    return words[1:] if len(words) > 1 and words[1] in VERB_STAGES else []


def again(words: list[str], run: Path, name: str) -> str:
    """The same command, to be typed in this folder."""
    if not words:
        return ""
    verb, *settings = words
    frozen = files.settings(run / "config.yaml") if any(LEFT_OUT in w for w in settings) else {}
    settings = [_with_path(word, frozen) for word in settings if not word.startswith("runs_dir=")]
    if name != run.name:
        settings = [
            *(word for word in settings if not word.startswith("name=")),
            f"name={run.name}",
        ]
    if os.path.abspath(run.parent) != os.path.abspath(RUNS_DIR):
        settings.append(f"runs_dir={run.parent}")
    return shlex.join(["ropewalk", verb, *settings])


def after(words: list[str], run: Path, name: str, done: set[str], trains: bool) -> str:
    """The next stage that is not done, with the same settings; empty when nothing is left."""
    order = [*(ORDER if trains else [stage for stage in ORDER if stage != "train"])]
    stages = [*order, *(["export"] if trains else [])]
    verb = next((stage for stage in stages if stage not in done), None)
    return again([verb, *words[1:]], run, name) if verb and words else ""


def _with_path(word: str, frozen: Mapping[str, Any]) -> str:
    """A setting with the folder that config.yaml has for it."""
    key, _, value = word.partition("=")
    node: Any = frozen
    for part in key.lstrip("+").split("."):
        node = node.get(part) if isinstance(node, Mapping) else None
    return f"{key}={node}" if f"={value}" == LEFT_OUT and isinstance(node, str) else word
