"""All settings of a run as plain values, without the user's folders, and back."""

import os
import re
from collections.abc import Iterator, Mapping
from typing import Any

import yaml

from ropewalk.conf import check
from ropewalk.conf.schema import Config
from ropewalk.launch.environment import shown

LEFT_OUT = "PATH"
"""What stands in place of a folder of the user's, as in the recorded command."""
OF_USER = re.compile(r"(~|/|file:/).*", re.S)
HOMES = re.compile(r"/(home|Users)/[^/\s\"']+")
"""Folders of users anywhere in a text."""
OMITTED = ("launch",)
"""Accounts, partitions and variables of a cluster; no number depends on them."""
Key = tuple[str | int, ...]


def values(config: Config) -> dict[str, Any]:
    """The settings as config.yaml has them."""
    plain: dict[str, Any] = yaml.safe_load(check.to_yaml(config))
    return plain


def recorded(plain: Mapping[str, Any]) -> dict[str, Any]:
    """The settings for a manifest: without folders, secrets, and how the machines were come by."""
    return {key: without_folders(value) for key, value in plain.items() if key not in OMITTED}


def without_folders(plain: Any) -> Any:
    """A copy in which a folder of the user's is `PATH`, and a secret is not shown."""
    if isinstance(plain, dict):
        return {key: without_folders(value) for key, value in plain.items()}
    if isinstance(plain, list):
        return [without_folders(value) for value in plain]
    return _shown(plain) if isinstance(plain, str) else plain


def _shown(text: str) -> str:
    home = os.path.expanduser("~")
    if OF_USER.fullmatch(text) or HOMES.search(text) or (len(home) > 1 and home in text):
        return LEFT_OUT
    if shown.SECRET_VALUE_PREFIX.search(text):
        return shown.HIDDEN
    return shown.USER_OF_URL.sub(r"\1***@", text)


def left_out(plain: Mapping[str, Any], kept: Any) -> list[str]:
    """The keys whose value in the recorded settings is another than in `plain`."""
    pairs = (pair for pair in leaves(plain) if pair[0][0] not in OMITTED)
    return [dotted(key) for key, value in pairs if select(kept, key) != value]


def leaves(plain: Any, key: Key = ()) -> Iterator[tuple[Key, Any]]:
    """Each value that is no section and no list, with its key."""
    pairs: Any = ()
    if isinstance(plain, dict):
        pairs = plain.items()
    elif isinstance(plain, list):
        pairs = enumerate(plain)
    else:
        yield key, plain
    for name, value in pairs:
        yield from leaves(value, (*key, name))


def dotted(key: Key) -> str:
    """`phases[0].train.steps`. A key of a phase has dots of its own."""
    parts = (f"[{part}]" if isinstance(part, int) else f".{part}" for part in key)
    return "".join(parts).removeprefix(".")


def select(plain: Any, key: Key) -> Any:
    """The value at a key; None where there is none."""
    for part in key:
        is_there = (isinstance(plain, dict) and part in plain) or (
            isinstance(plain, list) and isinstance(part, int) and part < len(plain)
        )
        if not is_there:
            return None
        plain = plain[part]
    return plain


def replaced(plain: Any, new: Mapping[str, Any], key: Key = ()) -> Any:
    """A copy with other values at these dotted keys."""
    if isinstance(plain, dict):
        return {name: replaced(value, new, (*key, name)) for name, value in plain.items()}
    if isinstance(plain, list):
        return [replaced(value, new, (*key, number)) for number, value in enumerate(plain)]
    return new.get(dotted(key), plain)
