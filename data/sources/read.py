"""From a unit to its documents, one at a time."""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from ropewalk.conf.sources import TABLES, SourceConfig
from ropewalk.data.sources import hub, jsonl, tables, texts
from ropewalk.data.sources.columns import Columns, usable
from ropewalk.data.sources.units import OF_FILE, Document, Listed, Refusal, Unit

_READERS: dict[str, Any] = {
    "text": texts.text,
    "html": texts.page,
    "jsonl": jsonl.documents,
    "parquet": tables.parquet,
    "arrow": tables.arrow,
}


def read(source: SourceConfig, listed: Listed, unit: Unit) -> Iterator[Document | Refusal]:
    """Documents of a unit in input order, with a Refusal in the place of each that cannot be used.

    All units of a source, read in any process, give together what the whole gives. Raises: DataError when a place that is not
    this machine breaks off.
    """
    return map(usable, _items(listed, unit, Columns.of(source)))


def _items(listed: Listed, unit: Unit, columns: Columns) -> Iterator[Document | Refusal]:
    if listed.kind == "hub":
        yield from hub.documents(listed.place, unit, columns)
    elif listed.kind == "tree":
        yield from texts.trees(listed.place, unit)
    else:
        for name in unit.files:
            if refusal := texts.refused(listed.place, name):
                yield (
                    replace(refusal, reason=OF_FILE + refusal.reason)
                    if listed.kind in TABLES
                    else refusal
                )
            else:
                yield from _READERS[listed.kind](listed.place, name, unit, columns)
