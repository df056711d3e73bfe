"""What transformers makes of the tokenizer's files, as servers load them.

For some class names, transformers 5 builds the tokenizer from the class and takes only the words
from tokenizer.json. tokenizer_config.json is then changed so that the file is read.
"""

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import transformers
from tokenizers import Tokenizer

from ropewalk.conf.artifacts.records import fingerprint, read_signed, signed, write_json
from ropewalk.data.tokenizer.auto_tokenizer import Unreadable, auto_tokenizer
from ropewalk.data.tokenizer.comparison import first_difference
from ropewalk.data.tokenizer.folder import CONFIG
from ropewalk.data.tokenizer.run_tokenizer import RunTokenizer, save

FORMAT = 2  # of the cached answers: raise when the same files give another answer
FILE_CLASS = "PreTrainedTokenizerFast"
"""Reads tokenizer.json as it is, in versions 4 and 5 of transformers."""


def for_readers(
    tokenizer: RunTokenizer,
    model_config: Mapping[str, Any],
    cache: Path,
    trust_remote_code: bool = False,
) -> tuple[RunTokenizer, str | None]:
    """The tokenizer with files that transformers reads with the same ids; and a line, or None.

    `model_config`: the content of the base's config.json, whose `model_type` decides the class too.
    The answer is kept in the folder `cache`, because loading a large tokenizer takes seconds.
    """
    digests = {name: hashlib.sha256(data).hexdigest() for name, data in tokenizer.files.items()}
    key = [FORMAT, transformers.__version__, digests, dict(model_config), trust_remote_code]
    file = cache / f"readers-{fingerprint(key)[:16]}.json"
    if (answer := read_signed(file)) is None:
        config, line = _readable_config(tokenizer, model_config, trust_remote_code)
        answer = signed({"config": config, "line": line})
        cache.mkdir(parents=True, exist_ok=True)
        write_json(file, answer)
    return _with_config(tokenizer, answer["config"]), answer["line"]


def _with_config(tokenizer: RunTokenizer, config: dict[str, Any] | None) -> RunTokenizer:
    """With another tokenizer_config.json; None: as it came."""
    if config is None:
        return tokenizer
    text = json.dumps(config, indent=2) + "\n"
    return replace(tokenizer, files={**tokenizer.files, CONFIG: text.encode()})


def _readable_config(
    tokenizer: RunTokenizer, model_config: Mapping[str, Any], trust_remote_code: bool
) -> tuple[dict[str, Any] | None, str | None]:
    """The content of tokenizer_config.json with which transformers reads the file's ids.

    None: as it came. The line says what changed, or that no content does.
    """
    reason: str | None = None
    for candidate in _candidates(tokenizer, trust_remote_code):
        named = _with_config(tokenizer, candidate)
        difference = _difference(named, model_config, trust_remote_code)
        if difference is None:
            return candidate, reason and (
                f"{reason}; tokenizer.json is used, and {CONFIG} of the trained model names "
                f"{FILE_CLASS}, so that others read the same"
            )
        reason = reason or f"the base's tokenizer: {difference}"
    return None, (
        f"{reason}; tokenizer.json is used, but AutoTokenizer of transformers "
        f"{transformers.__version__} gives the trained model's texts other ids than it was trained "
        f"on: load its tokenizer by {FILE_CLASS}.from_pretrained"
    )


def _candidates(
    tokenizer: RunTokenizer, trust_remote_code: bool
) -> Iterator[dict[str, Any] | None]:
    """tokenizer_config.json as it came, without code that is not run; with a class that reads the
    file; then also with the file's own added tokens."""
    config = json.loads(tokenizer.files.get(CONFIG, b"{}"))
    if trust_remote_code or "auto_map" not in config:
        yield None
    if "auto_map" in config:
        auto_map = config.pop("auto_map")
        if isinstance(auto_map, dict) and (rest := auto_map.keys() - {"AutoTokenizer"}):
            config["auto_map"] = {key: auto_map[key] for key in rest}
        yield config
    config = dict(config)
    config["tokenizer_class"] = FILE_CLASS
    yield config
    flags = ("content", "lstrip", "normalized", "rstrip", "single_word", "special")
    added = tokenizer.backend.get_added_tokens_decoder()
    decoder = {str(i): {flag: getattr(t, flag) for flag in flags} for i, t in added.items()}
    yield {**config, "added_tokens_decoder": decoder}


def _difference(
    tokenizer: RunTokenizer, model_config: Mapping[str, Any], trust_remote_code: bool
) -> str | None:
    """How transformers' tokenizer differs from tokenizer.json, in words; None: the same ids."""
    with TemporaryDirectory() as name:
        folder = Path(name)
        save(tokenizer, folder)
        (folder / "config.json").write_text(json.dumps(dict(model_config)), encoding="utf-8")
        try:
            reader = auto_tokenizer(name, trust_remote_code=trust_remote_code)
        except Unreadable as reason:
            return f"transformers cannot load it ({str(reason).replace(name, 'its folder')})"
    backend = getattr(reader, "backend_tokenizer", None)
    kind = type(reader).__name__
    if not isinstance(backend, Tokenizer):
        return f"{kind} of transformers does not read tokenizer.json"
    if (text := first_difference(tokenizer.backend, backend)) is None:
        return None
    return f"{kind} of transformers splits text in its own way, for example {text[:40]!r}"
