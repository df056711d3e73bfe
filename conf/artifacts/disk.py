"""A disk that is full, read-only or broken, reported as one line wherever it is met."""

import errno
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ropewalk.conf.errors import ConfigError

FULL = (errno.ENOSPC, errno.EDQUOT)
WAYS_OUT = {
    **dict.fromkeys(FULL, "make room there, or set another runs_dir or cache_dir"),
    errno.EROFS: "set a runs_dir and a cache_dir that can be written",
    **dict.fromkeys(
        (errno.EACCES, errno.EPERM),
        "give this user the right to it, or set another runs_dir or cache_dir",
    ),
    **dict.fromkeys((errno.EIO, errno.ESTALE), "look at the disk or the network file system"),
    **dict.fromkeys((errno.EMFILE, errno.ENFILE), "raise the limit of open files (ulimit -n)"),
}
"""Errors of the machine, which no setting's value and no code caused."""


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
    return _os_error_number(error) in FULL


def _os_error_number(error: BaseException) -> int | None:
    """Libraries in Rust (tokenizers, safetensors) raise no OSError; the message has the number."""
    if isinstance(error, OSError) and error.errno is not None:
        return error.errno
    match = re.search(r"\(os error (\d+)\)", str(error))
    return int(match[1]) if match else None


def disk_error(error: BaseException) -> ConfigError | None:
    """The line for an error of the disk; None for any other error."""
    number = _os_error_number(error)
    if number not in WAYS_OUT:
        return None
    path = getattr(error, "filename", None)
    where = f"{path} cannot be read or written" if path else "a file cannot be read or written"
    return ConfigError(
        f"{where}: {os.strerror(number)}; {WAYS_OUT[number]}, and run again: finished parts "
        "are kept"
    )
