"""The hostfile of a training on several machines, in DeepSpeed's form: `HOST slots=N` a line."""

import re
from collections.abc import Iterator
from pathlib import Path

_LINE = re.compile(r"(\S+)\s+slots=(\d+)")
"""As `deepspeed.launcher.runner` reads it."""


def hosts(text: str) -> list[str]:
    """The lines that name a host; empty lines and comments are left out."""
    lines = (line.partition("#")[0].strip() for line in text.splitlines())
    return [line for line in lines if line]


def first_host(path: str) -> str:
    """The name of the machine of rank 0."""
    return hosts(Path(path).expanduser().read_text(encoding="utf-8"))[0].split()[0]


def problems(path: str, ranks_per_node: int | None) -> list[str]:
    """Every line that DeepSpeed could not use, or that has too few slots for the ranks.

    `ranks_per_node`: as set; None: as many as the machine that starts them has devices.
    """
    file, key = Path(path).expanduser(), f"train.launcher.hostfile is {path}"
    try:
        text = file.read_text(encoding="utf-8")
    except OSError as error:
        return [f"{key}; it must be a file that can be read ({error.strerror}); correct the path"]
    except UnicodeDecodeError:
        return [f"{key}; it must be text in UTF-8; correct it"]
    if not hosts(text):
        return [f"{key}; it names no host; write a line such as worker-1 slots=8"]
    return list(_line_problems(key, text, ranks_per_node))


def _line_problems(key: str, text: str, ranks_per_node: int | None) -> Iterator[str]:
    names: dict[str, int] = {}
    for number, line in enumerate(text.splitlines(), 1):
        for host in hosts(line):
            match = _LINE.fullmatch(host)
            if match is None:
                yield f"{key}; its line {number} is {host}; it must be HOST slots=N; correct it"
                continue
            name, slots = match[1], int(match[2])
            if name in names:
                yield (
                    f"{key}; its line {number} names {name} again, after line {names[name]}; each "
                    "host stands once; remove one"
                )
            names.setdefault(name, number)
            if slots < (ranks_per_node or 1):
                yield (
                    f"{key}; its line {number} gives {name} {slots} slots; "
                    f"train.launcher.ranks_per_node {ranks_per_node or 1} need one each; raise it"
                )
