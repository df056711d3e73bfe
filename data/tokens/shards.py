"""Where the shards of a token store begin and end, and which of them a task makes: by input order alone. Pure."""

import re
from collections.abc import Sequence

from ropewalk.conf.errors import ConfigError

SHARD_BYTES = (
    1 << 28
)  # of the source, so at most 2^28 tokens of plain text; a part of the store's format


def borders(sizes: Sequence[int]) -> list[range]:
    """Consecutive units, of `sizes` bytes, up to SHARD_BYTES together; a larger unit is a shard by itself."""
    found, first, size = [], 0, 0
    for number, bytes_ in enumerate(sizes):
        if number > first and size + bytes_ > SHARD_BYTES:
            found.append(range(first, number))
            first, size = number, 0
        size += bytes_
    return [*found, range(first, len(sizes))] if len(sizes) else []


def name(number: int) -> str:
    """The folder of a shard."""
    return f"{number:05}"


def task(word: str) -> tuple[int, int]:
    """What `--shard I/N` says. Raises: ConfigError."""
    found = re.fullmatch(r"(\d+)/(\d+)", word)
    if found is None or int(found[2]) < 1:
        raise ConfigError(
            f"--shard is {word}; it must be I/N, task I of N counted from 0; e.g. --shard 0/4"
        )
    number, count = int(found[1]), int(found[2])
    if number >= count:
        raise ConfigError(
            f"--shard is {word}; i must be below n, tasks are counted from 0; the last is {count - 1}/{count}"
        )
    return number, count
