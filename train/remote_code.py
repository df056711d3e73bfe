"""Code that comes with a model (`auto_map` of its JSON files): refused, run, or taken along.

It is run only with `model.trust_remote_code`. The code files then go with the trained model, so
that it loads by itself; without it `auto_map` is left out, because what it names was not run.
"""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, PreTrainedConfig
from transformers.dynamic_module_utils import get_relative_imports
from transformers.utils.hub import cached_file

from ropewalk.conf.artifacts.manifest import write_json

FILES = ("config.json", "tokenizer_config.json")


def refusal(path: str, revision: str | None, name: str) -> str:
    """The line for a model called `name` that cannot be read without its own code."""
    config, _ = PreTrainedConfig.get_config_dict(path, revision=revision)
    references = str(config.get("auto_map", {}).get("AutoConfig", "its own file"))
    module = references.rsplit("--", 1)[-1].split(".")[0]
    return (
        f"model.path is {name}; its architecture {config.get('model_type')} is code of its own "
        f"({module}.py), which is not run unasked; read that code and set "
        "model.trust_remote_code=true, or choose a model of an architecture that transformers has"
    )


def problems(config: PreTrainedConfig, name: str) -> list[str]:
    """Why the code of the model called `name` does not build a model; empty when it does.

    Built on the meta device. It also leaves the code in transformers' cache of modules, so that
    the ranks do not write there at the same time.
    """
    if not getattr(config, "auto_map", None):
        return []
    try:
        with torch.device("meta"):
            AutoModelForCausalLM.from_config(config, trust_remote_code=True)
    except Exception as error:  # code that is not ours may raise anything
        return [broken_code(name, error)]
    return []


def broken_code(name: str, error: Exception) -> str:
    """The line for code of the model called `name` that raised `error`."""
    reason = " ".join(str(error).split()) or "no message"
    return (
        f"model.trust_remote_code is True; the code of {name} must build its model with this "
        f"version of transformers; {type(error).__name__}: {reason}; correct that code, or install "
        "what it needs"
    )


def take_along(
    base: str | None, revision: str | None, folder: Path, *, trusted: bool
) -> Iterator[str]:
    """Make `auto_map` in the JSON files of `folder` name only code files that lie there.

    The files come from `base` (a folder or hub name) with all that they import relatively. An entry
    whose code is nowhere, or was not run, is left out. Yields a line for each file that changes.
    """
    for path in (folder / name for name in FILES if (folder / name).is_file()):
        content = json.loads(path.read_text(encoding="utf-8"))
        if "auto_map" not in content:
            continue
        auto_map = {
            key: value
            for key, value in content["auto_map"].items()
            if trusted and all(_copied(base, revision, m, folder) for m in local_modules(value))
        }
        if lost := [key for key in content["auto_map"] if key not in auto_map]:
            reason = "no such code file" if trusted else "model.trust_remote_code is off"
            yield f"model/{path.name}: auto_map without {', '.join(lost)} ({reason})"
            del content["auto_map"]
            write_json(path, content | ({"auto_map": auto_map} if auto_map else {}))


def local_modules(references: Any) -> Iterator[str]:
    """Modules that lie beside the model, of an `auto_map` or one of its values.

    A value is `module.Class`, `repository--module.Class`, or a list of these and null.
    """
    if isinstance(references, dict):
        references = list(references.values())
    for reference in references if isinstance(references, list) else [references]:
        if isinstance(reference, list):
            yield from local_modules(reference)
        elif isinstance(reference, str) and "--" not in reference:
            yield reference.split(".")[0]


def _copied(base: str | None, revision: str | None, module: str, folder: Path) -> bool:
    """Whether `module` and what it imports lie in `folder`, copied there if they did not."""
    target = folder / f"{module}.py"
    if not target.is_file():
        source = base and cached_file(
            base, target.name, revision=revision, _raise_exceptions_for_missing_entries=False
        )
        if not source:
            return False
        shutil.copyfile(source, target)
    imported = [m for m in get_relative_imports(target) if not (folder / f"{m}.py").is_file()]
    return all([_copied(base, revision, m, folder) for m in imported])
