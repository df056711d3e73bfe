"""Files that are text: one document a file, a page or a tree of sources."""

from collections.abc import Iterator
from itertools import groupby
from typing import Any

from ropewalk.data.sources import html
from ropewalk.data.sources.columns import Columns, usable
from ropewalk.data.sources.units import Document, File, Refusal, Unit


def tree_of(name: str) -> str:
    return name.split("/")[0]


def cut_trees(files: list[File]) -> list[Unit]:
    """A unit a tree; a file at the top is one by itself."""
    trees = [list(files) for _, files in groupby(files, key=lambda file: tree_of(file.name))]
    return [
        Unit(tuple(file.name for file in tree), sum(file.size for file in tree)) for tree in trees
    ]


def trees(place: Any, unit: Unit) -> Iterator[Document | Refusal]:
    """One document a sub-folder of the source, files in path order each under a header line (`# path`)."""
    for tree, names in groupby(unit.files, key=tree_of):
        parts: list[str] = []
        for name in names:
            found = refused(place, name) or usable(_decode(place, name))
            if isinstance(found, Refusal):
                yield found
            else:
                parts.append(f"# {name}\n{found.text.rstrip()}\n\n")
        if parts:
            yield Document(tree, "".join(parts))


def text(place: Any, name: str, _: Unit, __: Columns) -> Iterator[Document | Refusal]:
    yield _decode(place, name)


def page(place: Any, name: str, _: Unit, __: Columns) -> Iterator[Document | Refusal]:
    """What a page shows."""
    found = _decode(place, name)
    if isinstance(found, Document):
        try:
            found = Document(name, html.visible(found.text))
        except html.Unclosed as error:
            found = Refusal(name, f"unclosed <{error}>")
    yield found


def refused(place: Any, name: str) -> Refusal | None:
    """A path that is not to be read, under a name that can be written."""
    reason = place.refusal(name)
    return Refusal(name.encode("utf-8", "backslashreplace").decode(), reason) if reason else None


def _decode(place: Any, name: str) -> Document | Refusal:
    try:
        with place.open(name) as file:
            return Document(
                name, file.read().decode("utf-8-sig")
            )  # a mark of the byte order is no text
    except UnicodeDecodeError:
        return Refusal(name, "not UTF-8")
    except OSError:
        return Refusal(name, "unreadable")
