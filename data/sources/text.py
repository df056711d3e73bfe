"""Text files: one document a file, or one document a folder of a source tree."""

from collections.abc import Iterator
from itertools import groupby

from ropewalk.data.sources.columns import Columns, usable
from ropewalk.data.sources.units import Document, File, Location, Refusal, Unit


def documents(
    location: Location, name: str, _unit: Unit, _columns: Columns
) -> Iterator[Document | Refusal]:
    """The file as one document."""
    yield decode(location, name)


def split_trees(files: list[File]) -> list[Unit]:
    """One unit a top-level folder; a file at the top is its own tree."""
    trees = [list(group) for _, group in groupby(files, key=lambda file: _tree_of(file.name))]
    return [Unit(tuple(file.name for file in tree), sum(f.size for f in tree)) for tree in trees]


def tree_documents(location: Location, unit: Unit) -> Iterator[Document | Refusal]:
    """One document a top-level folder: its files in path order, each under a line `# path`."""
    for tree, names in groupby(unit.files, key=_tree_of):
        parts: list[str] = []
        for name in names:
            item = refused(location, name) or usable(decode(location, name))
            if isinstance(item, Refusal):
                yield item
            else:
                parts.append(f"# {name}\n{item.text.rstrip()}\n\n")
        if parts:
            yield Document(tree, "".join(parts))


def _tree_of(name: str) -> str:
    return name.split("/")[0]


def refused(location: Location, name: str) -> Refusal | None:
    """The refusal of a path that is not read, under a name that can be encoded as UTF-8."""
    reason = location.refusal(name)
    return Refusal(name.encode("utf-8", "backslashreplace").decode(), reason) if reason else None


def decode(location: Location, name: str) -> Document | Refusal:
    """A file's text as UTF-8, without a byte order mark."""
    try:
        with location.open(name) as file:
            return Document(name, file.read().decode("utf-8-sig"))
    except UnicodeDecodeError:
        return Refusal(name, "not UTF-8")
    except OSError:
        return Refusal(name, "unreadable")
