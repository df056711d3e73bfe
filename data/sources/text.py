"""Text files: one document a file, or one document a folder of a source tree."""

from collections.abc import Iterator
from itertools import groupby

from ropewalk.data.sources.columns import ReadSettings, usable
from ropewalk.data.sources.long_text import PIECE, Decoder, joined, pieces_of
from ropewalk.data.sources.units import TOO_LARGE, Document, File, Location, Refusal, Unit


def documents(
    location: Location, name: str, _unit: Unit, settings: ReadSettings
) -> Iterator[Document | Refusal]:
    """The file as one document."""
    yield decode(location, name, settings.max_bytes)


def split_trees(files: list[File]) -> list[Unit]:
    """One unit a top-level folder; a file at the top is its own tree."""
    trees = [list(group) for _, group in groupby(files, key=lambda file: _tree_of(file.name))]
    return [Unit(tuple(file.name for file in tree), sum(f.size for f in tree)) for tree in trees]


def tree_documents(
    location: Location, unit: Unit, settings: ReadSettings
) -> Iterator[Document | Refusal]:
    """One document a top-level folder: its files in path order, each under a line `# path`."""
    for tree, names in groupby(unit.files, key=_tree_of):
        parts: list[str] = []
        for name in names:
            item = refused(location, name) or decode(location, name, settings.max_bytes)
            item = usable(item, settings.max_bytes)
            if isinstance(item, Refusal):
                yield item
            else:
                parts += [f"# {name}\n", *_without_end_space(pieces_of(item.text)), "\n\n"]
        if parts:
            yield Document(tree, joined(parts))


def _tree_of(name: str) -> str:
    return name.split("/")[0]


def refused(location: Location, name: str) -> Refusal | None:
    """The refusal of a path that is not read, under a name that can be encoded as UTF-8."""
    reason = location.refusal(name)
    return Refusal(name.encode("utf-8", "backslashreplace").decode(), reason) if reason else None


def _without_end_space(pieces: list[str]) -> list[str]:
    """The pieces of a text that is not empty, without white space at the end of the text."""
    last = next(n for n in reversed(range(len(pieces))) if pieces[n].strip())
    return [*pieces[:last], pieces[last].rstrip()]


def decode(location: Location, name: str, max_bytes: int) -> Document | Refusal:
    """A file's text as UTF-8, without a byte order mark."""
    decoder, size = Decoder("utf-8-sig"), 0
    try:
        with location.open(name) as file:
            while block := file.read(PIECE):
                size += len(block)
                if size > max_bytes:
                    return Refusal(name, TOO_LARGE)
                decoder.add(block)
        return Document(name, decoder.text())
    except UnicodeDecodeError:
        return Refusal(name, "not UTF-8")
    except OSError:
        return Refusal(name, "unreadable")
