"""Rows with an equal value of a column joined to one document, such as the files of a repository.

The rows of a group may lie anywhere, so all rows are first written once more into the cache, spread
over buckets by a hash of their group. A bucket is a unit: it is read, sorted and joined in memory.
"""

import json
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ropewalk.conf.artifacts.manifest import fingerprint, run_shared
from ropewalk.data import hash_random
from ropewalk.data.sources import units
from ropewalk.data.sources.columns import usable
from ropewalk.data.sources.listing import SourceListing
from ropewalk.data.sources.units import Document, Refusal, Unit

BETWEEN = "\n\n"  # between the texts of a group
MAX_BUCKETS = 512  # files that are open at once


@dataclass(frozen=True)
class GroupedListing:
    """A listing whose documents are the groups of another one's rows, which have their group as
    id."""

    rows: SourceListing
    cache: Path

    @property
    def kind(self) -> str:
        return self.rows.kind

    @property
    def units(self) -> list[Unit]:
        """The buckets, of equal size."""
        total = sum(unit.size for unit in self.rows.units)
        count = min(max(1, total // units.UNIT_BYTES), MAX_BUCKETS)
        return [Unit((f"bucket {n}",), total // count, n, n + 1) for n in range(count)]

    def identity(self, cache: Path) -> dict[str, Any]:
        """As that of the rows, whose settings name the column."""
        return self.rows.identity(cache)

    def documents(self, unit: Unit) -> Iterator[Document | Refusal]:
        """The groups of a bucket, in the order of their first rows; what is refused, in the first.

        Raises: DataError when a remote location breaks off.
        """
        groups: dict[str, list[str]] = {}
        with (self._spread() / _name(unit.start)).open(encoding="utf-8") as file:
            for line in file:
                name, text, *refusal = json.loads(line)
                if refusal:
                    yield Refusal(name, *refusal)
                else:
                    groups.setdefault(name, []).append(text)
        for name, texts in groups.items():
            yield usable(Document(name, BETWEEN.join(texts)), self.rows.settings.max_bytes)

    def _spread(self) -> Path:
        """The folder of the buckets, written unless it exists."""
        key = {"rows": self.identity(self.cache), "buckets": len(self.units), "form": 1}
        folder = self.cache / "grouped" / fingerprint(key)[:16]
        run_shared(f"rows by {self.rows.settings.columns.group_by}", key, folder, self._write)
        return folder

    def _write(self, temporary: Path) -> dict[str, Any]:
        count = len(self.units)
        with ExitStack() as stack:
            files = [
                stack.enter_context((temporary / _name(n)).open("w", encoding="utf-8"))
                for n in range(count)
            ]
            for unit in self.rows.units:
                for item in self.rows.documents(unit):
                    if isinstance(item, Document):
                        file = files[hash_random.document_key(item.id) % count]
                        file.write(json.dumps([item.id, str(item.text)]) + "\n")
                    else:
                        row = [item.where, None, item.reason, item.count]
                        files[0].write(json.dumps(row) + "\n")
        return {"buckets": count}


def _name(number: int) -> str:
    return f"{number:05}.jsonl"


def grouped(listing: SourceListing, cache: Path) -> SourceListing | GroupedListing:
    """The listing, with its rows joined where a setting asks for it."""
    return GroupedListing(listing, cache) if listing.settings.columns.group_by else listing
