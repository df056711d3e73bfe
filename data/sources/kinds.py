"""Which reader a file is for, by its name. Pure."""

from collections.abc import Sequence
from pathlib import PurePath

from ropewalk.data.sources.units import ends

_PACKED = ("", ".gz", ".zst")
_ROWS = tuple(form + packed for form in (".jsonl", ".ndjson") for packed in _PACKED)
JSON = tuple(
    f".json{packed}" for packed in _PACKED
)  # rows by themselves; among code they are its settings
_SURE = {
    "arrow": (".arrow",),
    "jsonl": _ROWS,
    "parquet": (".parquet",),
    "html": (".html", ".htm"),
    "text": (".txt", ".md", ".rst"),
}
_TEXTS = (*_SURE["html"], *_SURE["text"])
_ENDS = {**_SURE, "jsonl": (*_ROWS, *JSON)}
_TABLES = ("arrow", "jsonl", "parquet")
_NO_ROWS = {  # what `datasets` and models keep beside their data
    "config.json", "dataset_info.json", "dataset_infos.json", "dataset_dict.json", "state.json",
}  # fmt: skip
_NO_KIND = {  # the way out -> suffixes that no kind reads
    "write its text as jsonl or parquet": (
        ".csv", ".tsv", ".xlsx", ".xls", ".ods", ".pkl", ".pickle", ".npy", ".npz", ".h5", ".hdf5", ".feather", ".orc", ".avro",
        ".sqlite", ".db", ".bin", ".idx", ".safetensors", ".pt", ".pth", ".ckpt", ".gguf",
    ),
    "write its text as .txt files or jsonl": (
        ".pdf", ".ps", ".djvu", ".doc", ".docx", ".odt", ".rtf", ".pptx", ".epub", ".mobi",
    ),
    "unpack it": (".zip", ".tar", ".tgz", ".gz", ".bz2", ".xz", ".zst", ".lz4", ".7z", ".rar"),
}  # fmt: skip
_WAY_OUT = {suffix: way_out for way_out, suffixes in _NO_KIND.items() for suffix in suffixes}


def read_by(kind: str, name: str) -> bool:
    """Whether a kind that is no tree takes this file of a folder."""
    return ends(name, _ENDS[kind]) and not (kind == "jsonl" and name.split("/")[-1] in _NO_ROWS)


def named(names: Sequence[str], alone: bool) -> list[str]:
    """The kinds that the names of a source's files speak for; none: a tree, or a text where the file is `alone`."""
    names = _without_readme(names)
    found = [
        kind for kind, suffixes in _SURE.items() if any(ends(name, suffixes) for name in names)
    ]
    if not set(found).isdisjoint(_TABLES):
        return found
    if names and all(ends(name, JSON) for name in names):
        return ["jsonl"]
    return found if alone or all(ends(name, _TEXTS) for name in names) else []


def unread(names: Sequence[str]) -> tuple[str, str] | None:
    """A suffix that no kind reads, and the way out, where the source holds nothing else but JSON: among code it is a tree's."""
    first = None
    for name in (name for name in _without_readme(names) if not ends(name, JSON)):
        if (found := _no_kind(name)) is None:
            return None
        first = first or found
    return first


def _no_kind(name: str) -> tuple[str, str] | None:
    known, suffix = (
        any(ends(name, suffixes) for suffixes in _ENDS.values()),
        PurePath(name.split("?")[0]).suffix.lower(),
    )
    return None if known or suffix not in _WAY_OUT else (suffix, _WAY_OUT[suffix])


def _without_readme(names: Sequence[str]) -> Sequence[str]:
    """It tells of the data and is none of it, unless it is all there is."""
    return [
        name for name in names if not name.split("/")[-1].lower().startswith(("readme", "license"))
    ] or names
