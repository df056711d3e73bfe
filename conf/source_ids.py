"""Settings of a source whose documents are token ids already."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from ropewalk.conf.data_mixture import SourceLengths
from ropewalk.conf.rules import setting

TOKEN_FILES = ("memmap", "indexed")
"""Kinds whose files hold ids and no columns."""
DTYPES = ("uint16", "uint32", "uint64", "int32", "int64")


@dataclass(kw_only=True)
class SourceIds(SourceLengths):
    """Where the ids are, how wide they are and where documents begin and end."""

    ids_key: str | None = setting(None, way_out="e.g. input_ids", fingerprint="if_set")
    """Instead of `text_key`: the column with token ids of the model's own tokenizer, which are
    taken as they are."""
    ids_begin: Any = setting(None, way_out="bos, or unset it", fingerprint="if_set")
    """With `ids_key` or kind memmap or indexed: the token before each document in the ids (bos,
    eos, its string or its id). Ids are cut there into documents, and the token is left out:
    `data.begin` adds one."""
    ids_end: Any = setting(None, way_out="eos, or unset it", fingerprint="if_set")
    """As `ids_begin`: the token after each document. Without both a row is a document."""
    ids_spans: str | None = setting(None, way_out="e.g. indices", fingerprint="if_set")
    """With `ids_key`: the column with the first token and the end of each document in a row's ids,
    such as datatools' `indices`; the row is cut there, and the spans must cover it."""
    ids_dtype: str | None = setting(None, one_of=DTYPES, fingerprint="if_set")
    """Of an id in a file of kind memmap, or in a column of bytes of kind mds, which do not say so
    themselves; little-endian."""

    def ids_problems(self, kind: str, prefix: str) -> Iterator[str]:
        """Settings of ids that contradict each other or the kind."""
        for key, value in (("ids_begin", self.ids_begin), ("ids_end", self.ids_end)):
            if value is not None and not isinstance(value, str) and type(value) is not int:
                yield (
                    f"{prefix}{key} is {value}; it must be one token: bos, eos, its string or its "
                    "id; correct it"
                )
            elif value is not None and self.ids_key is None and kind not in TOKEN_FILES:
                yield f"{prefix}{key} is {value}; only ids are cut there; set {prefix}ids_key"
        if self.ids_spans is not None and self.ids_key is None:
            yield (
                f"{prefix}ids_spans is {self.ids_spans}; only a row's ids are cut there; set "
                f"{prefix}ids_key"
            )
        if kind == "memmap":
            yield from self._memmap_problems(prefix)

    def _memmap_problems(self, prefix: str) -> Iterator[str]:
        if self.ids_dtype is None:
            yield (
                f"{prefix}ids_dtype is not set; a file of bare ids does not say how wide they are; "
                "set uint16 or uint32, as its writer had it"
            )
        if self.ids_begin is None and self.ids_end is None:
            yield (
                f"{prefix}ids_end is not set; a file of bare ids has no other borders of documents "
                f"than a token; set it, e.g. eos, or {prefix}ids_begin"
            )
