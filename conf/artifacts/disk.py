"""A full disk, reported as one line of error wherever it is met."""

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ropewalk.conf.errors import ConfigError

FULL = (errno.ENOSPC, errno.EDQUOT)


@contextmanager
def explain_full_disk(folder: Path) -> Iterator[None]:
    """For writes to `folder`, a part of the cache: CACHE/KIND/NAME.

    Raises: ConfigError when the disk is full.
    """
    try:
        yield
    except Exception as error:
        if not _is_full(error):
            raise
        raise ConfigError(
            f"cache_dir is {folder.parents[1]}; its disk must have room for tokens, about half "
            "the size of the text, and plans, and is full; make room or set another cache_dir, "
            "and run again: finished parts are kept"
        ) from None


def _is_full(error: Exception) -> bool:
    """Libraries in Rust (tokenizers, safetensors) raise no OSError; the message has the number."""
    return getattr(error, "errno", None) in FULL or any(
        f"(os error {number})" in str(error) for number in FULL
    )
