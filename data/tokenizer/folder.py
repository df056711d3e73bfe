"""The tokenizer's files in a folder or on the hub: read as bytes, parsed, refused in one line."""

import codecs
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer

from ropewalk.conf.errors import ConfigError

TOKENIZER, CONFIG = "tokenizer.json", "tokenizer_config.json"
NAMES = (
    *(TOKENIZER, CONFIG, "special_tokens_map.json", "added_tokens.json"),
    *("chat_template.jinja", "chat_template.json", "vocab.json", "merges.txt", "vocab.txt"),
    *("tokenizer.model", "spiece.model", "sentencepiece.bpe.model", "tekken.json"),
)
PATTERNS = ("*.model", "*.tiktoken", "additional_chat_templates/*.jinja")
"""In a folder only: the hub is asked for names."""
LFS_POINTER = b"version https://git-lfs"


def read_files(path: str, revision: str | None) -> dict[str, bytes]:
    """The content of each file of a tokenizer, by its path inside the folder or hub repository.

    Raises: ConfigError for a file that cannot be read.
    """
    folder = Path(path).expanduser()
    if not folder.is_dir():
        return _read_hub_files(path, revision)
    paths = {folder / name for name in NAMES}
    paths |= {found for pattern in PATTERNS for found in folder.glob(pattern)}
    try:
        contents = {p: p.read_bytes() for p in sorted(paths) if p.exists()}
    except OSError as error:
        raise ConfigError(
            f"model.path is {path}; the files of its tokenizer must be readable; "
            f"{error.filename}: {error.strerror}; correct it"
        ) from error
    return {p.relative_to(folder).as_posix(): content for p, content in contents.items()}


def _read_hub_files(name: str, revision: str | None) -> dict[str, bytes]:
    from transformers.utils.hub import cached_file

    files = {}
    try:
        for file in NAMES:
            path = cached_file(
                name, file, revision=revision, _raise_exceptions_for_missing_entries=False
            )
            if path is not None:
                files[file] = Path(path).read_bytes()
    except (OSError, ValueError) as error:
        raise ConfigError(
            f"model.path is {name}; it must hold a tokenizer; {first_line(error)}"
        ) from error
    return files


def read_model_config(path: str, revision: str | None) -> dict[str, Any]:
    """The content of config.json beside the tokenizer; {} without one. Raises: ConfigError."""
    folder = Path(path).expanduser()
    if not folder.is_dir():
        from transformers import PreTrainedConfig

        try:
            return dict(PreTrainedConfig.get_config_dict(path, revision=revision)[0])
        except (OSError, ValueError):
            return {}
    file = folder / "config.json"
    return parse(path, file.name, file.read_bytes()) if file.is_file() else {}


def first_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return lines[0].strip() if lines else type(error).__name__


def parse(path: str, name: str, content: bytes) -> dict[str, Any]:
    """The JSON object in file `name` of `path`. Raises: ConfigError."""
    if content.startswith(LFS_POINTER):
        raise _error(path, name, "a pointer of git-lfs", "fetch the file: git lfs pull")
    if content.startswith(codecs.BOM_UTF8):
        reason = "it begins with a byte order mark, which servers cannot read"
        raise _error(path, name, reason, "save it as UTF-8 without one")
    try:
        value = json.loads(content.decode("utf-8"))
    except (ValueError, RecursionError) as error:
        raise _error(path, name, first_line(error), "download it again") from error
    if not isinstance(value, dict):
        raise _error(path, name, f"a {type(value).__name__}, not an object", "download it again")
    return value


def rust_tokenizer(path: str, content: bytes) -> Tokenizer:
    """tokenizer.json as the package tokenizers reads it. Raises: ConfigError."""
    try:
        tokenizer = Tokenizer.from_str(content.decode("utf-8"))
    except Exception as error:  # the package raises no narrower class
        parse(path, TOKENIZER, content)  # what is no JSON object has a better line
        raise _error(path, TOKENIZER, first_line(error), "download it again") from error
    if not tokenizer.get_vocab_size():
        raise _error(path, TOKENIZER, "its vocabulary is empty", "download it again")
    return tokenizer


def _error(path: str, name: str, reason: str, way_out: str) -> ConfigError:
    return ConfigError(f"model.path is {path}; its {name} must be readable; {reason}; {way_out}")


def special_tokens(
    path: str, files: Mapping[str, bytes], model_config: Mapping[str, Any], tokenizer: Tokenizer
) -> dict[str, str]:
    """The strings of `bos` and `eos` that the files name, or else the ids in `model_config`.

    Raises: ConfigError.
    """
    tokens = {}
    for name in ("bos", "eos"):
        number = model_config.get(f"{name}_token_id")
        first = number[0] if isinstance(number, list) and number else number
        if isinstance(first, int) and first >= 0 and (token := tokenizer.id_to_token(first)):
            tokens[name] = token
    for file in ("special_tokens_map.json", CONFIG):
        content = parse(path, file, files[file]) if file in files else {}
        for name in ("bos", "eos"):
            value = content.get(f"{name}_token")
            text = value.get("content") if isinstance(value, dict) else value
            if isinstance(text, str) and _is_unicode(text):
                tokens |= {name: text} if text else {}
            elif value is not None:
                reason = f"{name}_token is {value!r}, not text"
                raise _error(path, file, reason, "correct it")
    return tokens


def _is_unicode(text: str) -> bool:
    """Whether UTF-8 can hold it: JSON may name half of a surrogate pair."""
    return text.encode("utf-8", "ignore").decode() == text


def refuse_contradictions(path: str, files: Mapping[str, bytes], tokenizer: Tokenizer) -> None:
    """Raises: ConfigError for a word that tokenizer_config.json adds to tokenizer.json.

    Special tokens may be added: they are text in a document, and change no id.
    """
    added = (
        parse(path, CONFIG, files[CONFIG]).get("added_tokens_decoder") if CONFIG in files else {}
    )
    if not isinstance(added or {}, dict):
        raise _error(path, CONFIG, "added_tokens_decoder is no object of ids", "correct it")
    for number, token in (added or {}).items():
        word = token.get("content") if isinstance(token, dict) else token
        special = token.get("special", False) if isinstance(token, dict) else True
        if not isinstance(word, str) or not _is_unicode(word) or not number.isdecimal():
            reason = f"added_tokens_decoder has {number}: {token!r}, no id and token"
            raise _error(path, CONFIG, reason, "correct it")
        if not special and tokenizer.token_to_id(word) != int(number):
            raise ConfigError(
                f"model.path is {path}; its {CONFIG} has {word!r} as token {number}, and its "
                f"{TOKENIZER} has it as {tokenizer.token_to_id(word)}; they must agree; correct "
                "the one that the model was not trained with"
            )
