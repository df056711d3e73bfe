"""A user's message in the model's chat template, as token ids."""

from collections.abc import Callable
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from ropewalk.conf.errors import ConfigError, DataError
from ropewalk.data.tokenizer.auto_tokenizer import Unreadable, auto_tokenizer
from ropewalk.data.tokenizer.folder import first_line
from ropewalk.data.tokenizer.run_tokenizer import RunTokenizer, save

CHAT_FORM = "eval.ruler.form is chat"


def chat_encoder(tokenizer: RunTokenizer) -> Callable[[str, str], np.ndarray]:
    """A function from a user's message and the first words of the reply to token ids (tokens,).

    The ids are those of the template's text up to the reply's header, and of the words after it.
    Special tokens are read in the template and refused in the message. Raises: ConfigError
    without a chat template, at the first call; DataError for a special token in a message.
    """
    template = cache(lambda: _template(tokenizer))

    def encode(message: str, reply: str = "") -> np.ndarray:
        if _ids(tokenizer, message, special=True) != _ids(tokenizer, message, special=False):
            raise DataError(
                "a chat message has a special token of the tokenizer in its text, which would end "
                "the message there; it must be plain text; choose another haystack or "
                "eval.ruler.form=base"
            )
        text = _rendered(template(), message)
        return np.asarray(_ids(tokenizer, text + reply, special=True), np.int64)

    return encode


def _template(tokenizer: RunTokenizer) -> Any:
    """transformers' tokenizer of the same files. Raises: ConfigError."""
    with TemporaryDirectory() as folder:
        save(tokenizer, Path(folder))
        try:
            loaded = auto_tokenizer(folder)
        except Unreadable as reason:
            raise ConfigError(f"{CHAT_FORM}; {reason}; set eval.ruler.form=base") from None
    if not loaded.chat_template:
        raise ConfigError(
            f"{CHAT_FORM}; the model's tokenizer must have a chat template, and it has none; "
            "set eval.ruler.form=base, or add chat_template.jinja to the model"
        )
    return loaded


def _rendered(template: Any, message: str) -> str:
    messages = [{"role": "user", "content": message}]
    try:
        text = template.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    except Exception as error:  # of jinja, or what a template itself raises
        raise ConfigError(
            f"{CHAT_FORM}; the model's chat template must take one user's message; "
            f"{first_line(error)}; set eval.ruler.form=base"
        ) from error
    if message.strip() not in text:
        raise ConfigError(
            f"{CHAT_FORM}; the model's chat template must leave a question as it is, and changes "
            "its text; set eval.ruler.form=base"
        )
    return str(text)


def _ids(tokenizer: RunTokenizer, text: str, special: bool) -> list[int]:
    """`special`: the names of special tokens in the text are these tokens."""
    backend = tokenizer.backend
    backend.encode_special_tokens = not special
    try:
        return list(backend.encode_batch_fast([text], add_special_tokens=False)[0].ids)
    finally:
        backend.encode_special_tokens = True
