"""The borders of a store's shards, by input order alone, and which of them a task makes. Pure."""

import re
from collections.abc import Sequence

from ropewalk.conf.errors import ConfigError

SHARD_BYTES = 1 << 28  # of the source, so at most 2^28 tokens; part of the store's fingerprint


def borders(sizes: Sequence[int]) -> list[range]:
    """Consecutive units, of `sizes` bytes, joined up to SHARD_BYTES; a larger unit is a shard."""
    if not sizes:
        return []
    shards: list[range] = []
    first = size = 0
    for number, unit_size in enumerate(sizes):
        if number > first and size + unit_size > SHARD_BYTES:
            shards.append(range(first, number))
            first, size = number, 0
        size += unit_size
    return [*shards, range(first, len(sizes))]


def folder_name(number: int) -> str:
    return f"{number:05}"


def parse_task(argument: str) -> tuple[int, int]:
    """`--shard I/N` as `(I, N)`. Raises: ConfigError."""
    match = re.fullmatch(r"(\d+)/(\d+)", argument)
    if match is None or int(match[2]) < 1:
        raise ConfigError(
            f"--shard is {argument}; it must be I/N, task I of N counted from 0; e.g. --shard 0/4"
        )
    task, count = int(match[1]), int(match[2])
    if task >= count:
        raise ConfigError(
            f"--shard is {argument}; i must be below n, tasks are counted from 0; "
            f"the last is {count - 1}/{count}"
        )
    return task, count
