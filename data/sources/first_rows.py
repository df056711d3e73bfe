"""Whether the first rows of a source can be read, before another source is tokenised for hours."""

from collections import Counter
from itertools import chain, islice

from ropewalk.data.sources.listing import SourceListing
from ropewalk.data.sources.local import Local
from ropewalk.data.sources.units import OUTSIDE_WHERE, Document

LOOKED_AT = 1000  # rows, or files without the column
ROW_KINDS = ("jsonl", "parquet", "arrow", "mds")


def first_row_problems(listing: SourceListing, name: str, path: str | None) -> list[str]:
    """A line when none of the first rows of source `name` is a document.

    Local rows only: a key that they lack is the usual cause, and is seen in a look.
    """
    if listing.kind not in ROW_KINDS or not isinstance(listing.location, Local):
        return []
    items = chain.from_iterable(listing.documents(unit) for unit in listing.units)
    refused: Counter[str] = Counter()
    for item in islice(items, LOOKED_AT):
        if isinstance(item, Document):
            return []
        if item.reason != OUTSIDE_WHERE:
            refused[item.reason] += item.count
    if not refused:
        return []  # a source without a row is told by the stage
    reasons = ", ".join(f"{reason}: {count}" for reason, count in refused.items())
    return [
        f"data.sources.{name}.path is {path}; its first {refused.total()} rows hold no document "
        f"({reasons}); {way_out(name, listing, refused)}"
    ]


def way_out(name: str, listing: SourceListing, reasons: Counter[str]) -> str:
    """What to do about rows that are refused for `reasons`."""
    columns = listing.settings.columns
    about_columns = {
        words.format(column)
        for column in columns.names
        for words in (
            "no {}",
            "no column {}",
            "two columns {}",
            "{} is not text",
            "{} is not token ids",
        )
    }
    if not about_columns & {*reasons}:
        return "mend the files"
    if columns.ids_key is not None:
        return f"set data.sources.{name}.ids_key to a column of token ids that they have"
    key = "template" if len(columns.texts) > 1 else "text_key (or template)"
    return f"set data.sources.{name}.{key} to columns of text that they have"
