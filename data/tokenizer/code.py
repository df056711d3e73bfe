"""The code files that a tokenizer's `auto_map` names, for a model whose code may be run."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any


def code_files(path: str, revision: str | None, config: Mapping[str, Any]) -> dict[str, bytes]:
    """The modules beside the tokenizer in `path` (a folder or hub name), with all that they import
    relatively; `config`: the content of tokenizer_config.json."""
    from transformers.dynamic_module_utils import get_relative_imports
    from transformers.utils.hub import cached_file

    files: dict[str, bytes] = {}
    modules = list(_modules(config.get("auto_map")))
    while modules:
        name = f"{modules.pop()}.py"
        if name in files:
            continue
        file = cached_file(
            path, name, revision=revision, _raise_exceptions_for_missing_entries=False
        )
        if file is not None:
            files[name] = Path(file).read_bytes()
            modules += get_relative_imports(file)
    return files


def _modules(auto_map: Any) -> Iterator[str]:
    """Of `[slow, fast]` classes, or a mapping with them; those of another repository lie there."""
    classes = auto_map.get("AutoTokenizer") if isinstance(auto_map, dict) else auto_map
    for name in classes if isinstance(classes, list) else [classes]:
        if isinstance(name, str) and "--" not in name:
            yield name.split(".")[0]
