"""`RunTokenizer`: the ids of tokenizer.json, the special tokens, and the files as they came."""

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from tokenizers import Tokenizer

from ropewalk.conf.artifacts.manifest import fingerprint
from ropewalk.conf.errors import ConfigError
from ropewalk.data.tokenizer import folder as folders
from ropewalk.data.tokenizer.code import code_files
from ropewalk.data.tokenizer.comparison import PROBES
from ropewalk.data.tokenizer.convert import converted
from ropewalk.data.tokenizer.folder import CONFIG, TOKENIZER

MACHINE_KEYS = {
    "is_local", "local_files_only", "name_or_path", "cache_dir", "_commit_hash",
    "transformers_version",
}  # fmt: skip

DECODED = 512  # first ids, each decoded alone: a broken decoder shows at once


@dataclass(frozen=True)
class RunTokenizer:
    """A tokenizer and its files.

    `backend` neither pads nor truncates. Special tokens in a text are encoded as text: a document
    that contains `<|endoftext|>` does not end there.
    """

    path: str
    """For messages: the folder or hub name that it came from."""
    backend: Tokenizer
    files: Mapping[str, bytes]
    """By the path inside the folder; `save` writes them."""
    special_tokens: Mapping[str, str] = field(default_factory=dict)
    """The strings of `bos` and `eos`, where the files name them."""

    @classmethod
    def of(
        cls, path: str, files: Mapping[str, bytes], model_config: Mapping[str, Any]
    ) -> "RunTokenizer":
        """From files with a tokenizer.json. Raises: ConfigError for one that cannot be used."""
        backend = folders.rust_tokenizer(path, files[TOKENIZER])
        backend.no_padding()
        backend.no_truncation()
        backend.encode_special_tokens = True
        _refuse_unusable(path, backend)
        folders.refuse_contradictions(path, files, backend)
        return cls(path, backend, files, folders.special_tokens(path, files, model_config, backend))


def _refuse_unusable(path: str, backend: Tokenizer) -> None:
    """Raises: ConfigError for a tokenizer that draws its ids, or cannot encode or decode."""
    if dropout := getattr(backend.model, "dropout", None):
        raise ConfigError(
            f"model.path is {path}; its {TOKENIZER} leaves out merges at random (dropout "
            f"{dropout:g}); a text must have the same ids each time; set dropout of its model to "
            "null"
        )
    try:
        encodings = backend.encode_batch_fast([*PROBES], add_special_tokens=False)
        backend.decode_batch([encoding.ids for encoding in encodings], skip_special_tokens=False)
        backend.decode_batch([[number] for number in range(DECODED)], skip_special_tokens=False)
    except BaseException as error:  # the package raises Exception, and panics of Rust beside it
        if not isinstance(error, Exception) and type(error).__name__ != "PanicException":
            raise
        raise ConfigError(
            f"model.path is {path}; its {TOKENIZER} must encode and decode any text; "
            f"{folders.first_line(error)}; give it an unknown token, or another tokenizer"
        ) from error


def load(path: str, revision: str | None = None, trust_remote_code: bool = False) -> RunTokenizer:
    """From a folder or a Hub name. Raises: ConfigError when it is missing or cannot be used."""
    files = folders.read_files(path, revision)
    if not files and not trust_remote_code:
        raise ConfigError(
            f"model.path is {path}; it must hold a tokenizer, and has no {TOKENIZER} nor another "
            "tokenizer's file; copy the files of the tokenizer beside the model"
        )
    config = folders.parse(path, CONFIG, files[CONFIG]) if CONFIG in files else {}
    if trust_remote_code:
        files |= code_files(path, revision, config)
    if TOKENIZER not in files:
        files = converted(path, revision, trust_remote_code, files)
    return RunTokenizer.of(path, files, folders.read_model_config(path, revision))


def save(tokenizer: RunTokenizer, folder: Path) -> None:
    """Write the files as they came."""
    for name, content in tokenizer.files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)


def encoding_fingerprint(tokenizer: RunTokenizer) -> str:
    """Fingerprint of tokenizer.json without padding and truncation: equal ones give equal ids."""
    content = json.loads(tokenizer.backend.to_str())
    content["padding"] = content["truncation"] = None
    return fingerprint(content)


def files_fingerprint(tokenizer: RunTokenizer) -> str:
    """Fingerprint of the other files that `save` writes, without keys that differ by machine.

    They hold special tokens, the chat template and the like, and are copied into the trained model.
    """
    files = {name: data for name, data in tokenizer.files.items() if name != TOKENIZER}
    return fingerprint({name: _canonical(name, data) for name, data in files.items()})


def _canonical(name: str, data: bytes) -> object:
    if name != CONFIG:
        return hashlib.sha256(data).hexdigest()
    content: dict[str, Any] = json.loads(data)
    return {key: value for key, value in content.items() if key not in MACHINE_KEYS}


def vocab_size(tokenizer: RunTokenizer) -> int:
    """The largest id plus one; ids may have gaps, so it can exceed the number of tokens."""
    return int(max(tokenizer.backend.get_vocab().values())) + 1


def size_problems(tokenizer: RunTokenizer, base: str, rows: int | None) -> list[str]:
    """A line when the tokenizer has ids beyond the `rows` of the embeddings of `base`."""
    size = vocab_size(tokenizer)
    if rows is None or size <= rows:
        return []
    return [
        f"model.path is {base}; its tokenizer has ids up to {size - 1}, and vocab_size in its "
        f"config.json is {rows}; every id needs an embedding; give the model its own tokenizer"
    ]


def text_encoder(tokenizer: RunTokenizer) -> Callable[[str], np.ndarray]:
    """A function from a text to token ids (tokens,) int64, without special tokens."""

    def encode(text: str) -> np.ndarray:
        (encoding,) = tokenizer.backend.encode_batch_fast([text], add_special_tokens=False)
        return np.asarray(encoding.ids, dtype=np.int64)

    return encode


def text_decoder(tokenizer: RunTokenizer) -> Callable[[Iterable[int]], str]:
    """A function from token ids to their text, without special tokens."""
    return lambda ids: str(tokenizer.backend.decode([int(i) for i in ids]))


def bos_id(tokenizer: RunTokenizer) -> int | None:
    """Id of the token that transformers' tokenizer names `bos_token`; None without one.

    A null in tokenizer_config.json counts before an id in the model's config.json.
    """
    config = json.loads(tokenizer.files.get(CONFIG, b"{}"))
    if config.get("bos_token", "") is None:
        return None
    token = tokenizer.special_tokens.get("bos")
    number = tokenizer.backend.token_to_id(token) if token else None
    return None if number is None else int(number)


def token_id(tokenizer: RunTokenizer, key: str, name: str) -> int:
    """Id of the token `name` in setting `key`: `bos`, `eos` or the token's string.

    Raises: ConfigError for a token that the tokenizer lacks.
    """
    token = tokenizer.special_tokens.get(name) if name in ("bos", "eos") else name
    number = tokenizer.backend.token_to_id(token) if token else None
    if number is None:
        existing = [f"{own} ({text})" for own, text in tokenizer.special_tokens.items()]
        example = f", such as {' or '.join(existing)}" if existing else ""
        raise ConfigError(
            f"{key} is {name}; it must be one token of the model's tokenizer, which has no such; "
            f"choose one that it has{example}, or unset {key}"
        )
    return int(number)
