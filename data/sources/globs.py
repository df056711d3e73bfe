"""Shell patterns over paths: `*`, `?`, `[...]` inside a name, `**` for any folders. Pure."""

from collections.abc import Sequence
from fnmatch import fnmatchcase


def is_glob(address: str) -> bool:
    return any(char in address for char in "*?[")


def split(address: str) -> tuple[str, str]:
    """The folder before the first pattern, and the rest: `a/b/*/c` -> `a/b`, `*/c`."""
    parts = address.split("/")
    first = next(index for index, part in enumerate(parts) if is_glob(part))
    root = "/" if address.startswith("/") else "."
    return "/".join(parts[:first]) or root, "/".join(parts[first:])


def matches(name: str, glob: str) -> bool:
    """Whether the glob matches the full path."""
    return _match(name.split("/"), glob.split("/"))


def may_contain(folder: str, glob: str) -> bool:
    """Whether a path below `folder` can match; other folders are not walked."""
    names, globs = folder.split("/"), glob.split("/")
    for name, part in zip(names, globs[:-1], strict=False):
        if part == "**":
            return True
        if not fnmatchcase(name, part):
            return False
    return len(names) < len(globs) or globs[-1] == "**"


def _match(names: Sequence[str], globs: Sequence[str]) -> bool:
    if not globs:
        return not names
    if globs[0] == "**":
        if len(globs) == 1:  # a file has a name, so `**` alone needs one
            return bool(names)
        return any(_match(names[skip:], globs[1:]) for skip in range(len(names) + 1))
    return bool(names) and fnmatchcase(names[0], globs[0]) and _match(names[1:], globs[1:])
