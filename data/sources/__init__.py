"""Source settings -> files -> units -> documents. What cannot be read is counted by its reason.

    listing.py        a source's settings -> its files as units, and the documents of a unit
    first_rows.py     whether the first rows of a source can be read
    kinds.py          the table of file kinds: suffixes, reader, splitter; the kind of a file name
    text.py           one document a file, or one document a folder of a source tree
    html.py           the visible text of a page
    unread.py         lines on files that are not read, or read without a suffix that says how
    jsonl.py          JSON rows, one a line
    json_row.py       a row of JSON; long strings become LongTexts
    json_array.py     JSON rows in one array
    parquet.py        Parquet tables
    arrow.py          Arrow files and streams
    tables.py         what Parquet and Arrow share
    mds.py            MosaicML's shards
    mds_values.py     a value of such a shard
    mds_index.py      the shards that their index.json lists
    memmap.py         bare token ids: one array, cut at a token
    indexed.py        Megatron's token ids, with an index of documents
    saved_dataset.py  the Arrow files of a folder that `save_to_disk` wrote
    hub.py            a dataset of the Hugging Face Hub, streamed
    compressed.py     gzip, zstd, xz and bzip2, as streams
    long_text.py      a long text in pieces
    columns.py        a row -> a document
    grouped.py        rows with an equal value of a column, joined to one document
    local.py          files of this machine
    remote.py         files behind a URL, by fsspec
    globs.py          shell patterns over paths
    units.py          the records that all of these share

To add a file kind: write a file with `documents(location, name, unit, columns)` as in html.py, add
its row to `kinds.FILE_KINDS`, and its name to `FILES` or `TABLES` in conf/sources.py, or to
`TOKEN_FILES` in conf/source_ids.py.
"""

from ropewalk.data.sources.first_rows import first_row_problems
from ropewalk.data.sources.grouped import GroupedListing, grouped
from ropewalk.data.sources.listing import SourceListing, list_source
from ropewalk.data.sources.units import (
    FILE_PREFIX,
    OUTSIDE_WHERE,
    REPEATED_ID,
    Document,
    Refusal,
    Unit,
)

__all__ = [
    "FILE_PREFIX",
    "OUTSIDE_WHERE",
    "REPEATED_ID",
    "Document",
    "GroupedListing",
    "Refusal",
    "SourceListing",
    "Unit",
    "first_row_problems",
    "grouped",
    "list_source",
]
