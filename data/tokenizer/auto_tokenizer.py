"""AutoTokenizer of transformers, without its log lines, and with one error for what it raises."""

from typing import Any

from ropewalk.data.tokenizer.folder import first_line


class Unreadable(Exception):
    """transformers cannot load a tokenizer; the text says why."""


def auto_tokenizer(path: str, revision: str | None = None, trust_remote_code: bool = False) -> Any:
    """The tokenizer that transformers makes of a folder or hub name. Raises: Unreadable."""
    from transformers import AutoTokenizer
    from transformers.utils import logging

    level = logging.get_verbosity()
    logging.set_verbosity_error()  # what its lines are about is compared here
    try:
        return AutoTokenizer.from_pretrained(
            path, revision=revision, trust_remote_code=trust_remote_code
        )
    except Exception as error:  # a hundred classes, and a model's own code, raise what they like
        raise Unreadable(f"{type(error).__name__}: {first_line(error)}") from error
    finally:
        logging.set_verbosity(level)
