"""A tokenizer without tokenizer.json: converted by transformers, and held against the result."""

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from tokenizers import Tokenizer

from ropewalk.conf.errors import ConfigError
from ropewalk.data.tokenizer.auto_tokenizer import Unreadable, auto_tokenizer
from ropewalk.data.tokenizer.comparison import first_difference
from ropewalk.data.tokenizer.folder import CONFIG, TOKENIZER, rust_tokenizer

SAMPLE = "The quick brown fox, 1234567890 times: jumps over the lazy dog."


def converted(
    path: str, revision: str | None, trust_remote_code: bool, files: dict[str, bytes]
) -> dict[str, bytes]:
    """`files` with the tokenizer.json that transformers makes of them.

    Raises: ConfigError when there is none, or when it would give other ids than its maker.
    """
    wrapper = _load(path, revision, trust_remote_code)
    backend = getattr(wrapper, "backend_tokenizer", None)
    if not isinstance(backend, Tokenizer):
        raise ConfigError(
            f"model.path is {path}; its tokenizer has no fast backend (tokenizer.json); "
            "convert it with transformers and save it beside the model"
        )
    with TemporaryDirectory() as name:
        wrapper.save_pretrained(name)
        written = {file: (Path(name) / file).read_bytes() for file in (TOKENIZER, CONFIG)}
    converted = rust_tokenizer(path, written[TOKENIZER])
    kind = type(wrapper).__name__
    if text := first_difference(converted, backend):
        raise ConfigError(
            f"model.path is {path}; it has no tokenizer.json, and the one that {kind} saves gives "
            f"other ids than {kind} itself, for example of {text[:40]!r}; add a tokenizer.json"
        )
    if _letters(
        converted.decode(converted.encode(SAMPLE, add_special_tokens=False).ids)
    ) != _letters(SAMPLE):
        raise ConfigError(
            f"model.path is {path}; it has no tokenizer.json, and {kind} of transformers makes one "
            "of its files that loses letters; add a tokenizer.json, or name the right "
            f"tokenizer_class in {CONFIG}"
        )
    return {CONFIG: written[CONFIG], **files, TOKENIZER: written[TOKENIZER]}


def _load(path: str, revision: str | None, trust_remote_code: bool) -> Any:
    folder = Path(path).expanduser()
    try:
        return auto_tokenizer(str(folder) if folder.is_dir() else path, revision, trust_remote_code)
    except Unreadable as reason:
        if "trust_remote_code" in str(reason) and not trust_remote_code:
            raise ConfigError(
                f"model.path is {path}; it has no {TOKENIZER}, and its tokenizer is code of its "
                "own, which is not run unasked; read that code and set "
                "model.trust_remote_code=true, or choose another model"
            ) from reason
        raise ConfigError(
            f"model.path is {path}; it must hold a tokenizer that transformers can read; {reason}; "
            f"add a {TOKENIZER}, or for a .model file: pip install sentencepiece tiktoken"
        ) from reason


def _letters(text: str) -> str:
    return "".join(c for c in text.casefold() if c.isalnum())
