"""What a source's folder holds that is not read, and files that may be meant otherwise."""

import json
from collections import Counter
from collections.abc import Iterator, Sequence

from ropewalk.conf.errors import DataError
from ropewalk.conf.sources import SourceConfig
from ropewalk.data.sources import kinds, local, mds_index
from ropewalk.data.sources.units import File, Location, PathMatch

_SHOWN = 5  # suffixes
_HEAD = 1 << 16  # bytes of a file that are looked at


def lines(
    source: SourceConfig, kind: str, key: str, match: PathMatch, files: Sequence[File]
) -> Iterator[str]:
    """A line on files that are not read, and one on a source that no suffix decides.

    Raises: DataError for JSON rows under a suffix that no kind has.
    """
    if source.path == local.STDLIB:
        return
    undecided = _undecided(files) if source.kind == "auto" and kind in ("tree", "text") else []
    for file in undecided[:_SHOWN]:
        if _holds_rows(match.location, file):
            raise DataError(
                f"{key}.kind is auto; {file.name} holds JSON rows under a suffix that no kind has; "
                f"set {key}.kind=jsonl and {key}.pattern to its name, such as "
                f"*{kinds.suffix_of(file.name)}, or {key}.kind={kind} to take it as it is"
            )
    if undecided:
        suffixes = _counted(kinds.suffix_of(file.name) for file in files if not file.folder)
        yield f"{key}.kind is auto: {source.path} is read as {kind} ({suffixes})"
    read = {file.name for file in files}
    read |= {f.name for f in match.files if kind == "mds" and mds_index.is_index(f.name)}
    others = [f.name for f in match.files if f.name not in read and not kinds.describes(f.name)]
    if others and source.pattern is None:
        suffixes = _counted(map(kinds.suffix_of, others))
        yield f"{key}: {len(others)} of {len(match.files)} files are not {kind} ({suffixes})"


def _undecided(files: Sequence[File]) -> list[File]:
    """The first file of each suffix that no kind has."""
    firsts: dict[str, File] = {}
    for file in files:
        if not file.folder and not kinds.is_known(file.name):
            firsts.setdefault(kinds.suffix_of(file.name), file)
    return list(firsts.values())


def _counted(names: Iterator[str]) -> str:
    counts = Counter(names).most_common()
    shown = [f"{count} {name}" for name, count in counts[:_SHOWN]]
    return ", ".join([*shown, *(["..."] if len(counts) > _SHOWN else [])])


def _holds_rows(location: Location, file: File) -> bool:
    """Whether the first two lines of the file are JSON objects."""
    try:
        if location.refusal(file.name):
            return False
        with location.open(file.name) as opened:
            head = opened.read(_HEAD).splitlines()[:2]
        return len(head) == 2 and all(isinstance(json.loads(line), dict) for line in head)
    except (OSError, ValueError, RecursionError):  # the reader reports the file
        return False
