"""The table of file kinds, and the kind that the names of a source's files point to."""

from collections.abc import Callable, Iterator, Sequence
from pathlib import PurePath
from typing import NamedTuple

from ropewalk.conf.source_ids import TOKEN_FILES
from ropewalk.conf.sources import FILES, TABLES
from ropewalk.data.sources import arrow, html, indexed, jsonl, mds, memmap, parquet, text
from ropewalk.data.sources.columns import ReadSettings
from ropewalk.data.sources.units import Document, Location, Refusal, Unit, has_suffix


class FileKind(NamedTuple):
    """How files of a kind are read, recognised and split."""

    documents: Callable[[Location, str, Unit, ReadSettings], Iterator[Document | Refusal]]
    suffixes: tuple[str, ...]
    split: Callable[[Location, str, int], list[Unit]] | None = None
    """Splits a file larger than a unit; None: files stay whole."""


FILE_KINDS = {
    "arrow": FileKind(arrow.documents, (".arrow",), arrow.split),
    "jsonl": FileKind(jsonl.documents, jsonl.SUFFIXES, jsonl.split),
    "parquet": FileKind(parquet.documents, (".parquet", ".pq"), parquet.split),
    "mds": FileKind(mds.documents, mds.SUFFIXES, mds.split),
    "memmap": FileKind(memmap.documents, (".npy", ".bin"), memmap.split),
    "indexed": FileKind(indexed.documents, (".bin", indexed.SUFFIX), indexed.split),
    "html": FileKind(html.documents, (".html", ".htm", ".xhtml")),
    "text": FileKind(text.documents, (".txt", ".text", ".md", ".markdown", ".rst")),
}
_NAMED_BY_SUFFIX = [kind for kind in FILE_KINDS if kind not in TOKEN_FILES]
"""Any program's arrays are .npy and .bin, so kinds of bare ids are only read when they are set."""
_TEXT_SUFFIXES = tuple(s for kind in FILE_KINDS if kind in FILES for s in FILE_KINDS[kind].suffixes)
_NOT_ROWS = {  # files that `datasets` and models keep next to their data
    "config.json", "dataset_info.json", "dataset_infos.json", "dataset_dict.json", "state.json",
}  # fmt: skip
_LEFTOVERS = (
    "_SUCCESS", "_temporary", "_metadata", "_common_metadata", "_delta_log", "_committed_",
    "_started_", "__MACOSX", "Thumbs.db", "desktop.ini",
)  # fmt: skip
"""How files and folders begin that programs leave beside the data they write."""
_UNREADABLE = {  # the way out -> suffixes that no kind reads
    "write its text as jsonl or parquet": (
        ".csv", ".tsv", ".xlsx", ".xls", ".ods", ".pkl", ".pickle", ".npz", ".h5",
        ".hdf5", ".feather", ".orc", ".avro", ".sqlite", ".db", ".safetensors",
        ".pt", ".pth", ".ckpt", ".gguf",
    ),
    "write its text as jsonl or parquet, or for token ids set kind=memmap, or kind=indexed for "
    "Megatron's": (".npy", ".bin", ".idx"),
    "write its text as .txt files or jsonl": (
        ".pdf", ".ps", ".djvu", ".doc", ".docx", ".odt", ".rtf", ".pptx", ".epub", ".mobi",
    ),
    "unpack it": (".zip", ".tar", ".tgz", ".gz", ".bz2", ".xz", ".zst", ".lz4", ".7z", ".rar"),
}  # fmt: skip
_WAY_OUT = {suffix: way_out for way_out, suffixes in _UNREADABLE.items() for suffix in suffixes}


def is_read_by(kind: str, name: str) -> bool:
    """Whether a file of a folder is read by this file kind."""
    if (kind == "jsonl" and name.split("/")[-1].lower() in _NOT_ROWS) or is_leftover(kind, name):
        return False
    suffixes = FILE_KINDS[kind].suffixes + (jsonl.JSON_SUFFIXES if kind == "jsonl" else ())
    return has_suffix(name, suffixes)


def is_leftover(kind: str, name: str) -> bool:
    """Whether a writer left the file; beside tables that is all that begins with `_`."""
    prefixes = "_" if kind in TABLES else _LEFTOVERS
    parts = name.split("/")
    return name.lower().endswith(".crc") or any(part.startswith(prefixes) for part in parts)


def suffix_of(name: str) -> str:
    """The suffix in lower case; the name of a file without one."""
    name = name.split("?")[0].split("/")[-1]
    return PurePath(name).suffix.lower() or name


def is_known(name: str) -> bool:
    """Whether a kind has the file's suffix."""
    return any(is_read_by(kind, name) for kind in _NAMED_BY_SUFFIX) or describes(name)


def describes(name: str) -> bool:
    """Whether a file describes the data: a README, a licence, the settings of a dataset."""
    name = name.split("/")[-1].lower()
    return name.startswith(("readme", "license")) or name in _NOT_ROWS


def kinds_of(names: Sequence[str], single_file: bool) -> list[str]:
    """The file kinds that names point to; empty: a tree, or a text for a `single_file`."""
    names = _without_readme([name for name in names if not is_leftover("", name)])
    kinds = [
        kind
        for kind in _NAMED_BY_SUFFIX
        if any(has_suffix(name, FILE_KINDS[kind].suffixes) for name in names)
    ]
    if any(kind in TABLES for kind in kinds):
        return kinds
    if names and all(has_suffix(name, jsonl.JSON_SUFFIXES) for name in names):
        return ["jsonl"]
    all_text = all(has_suffix(name, _TEXT_SUFFIXES) for name in names)
    return kinds if single_file or all_text else []


def unreadable_suffix(names: Sequence[str]) -> tuple[str, str] | None:
    """A suffix that no kind reads and the way out, when all files but JSON have such suffixes.

    Next to any other file the source is a tree, which reads every file.
    """
    names = [name for name in names if not is_leftover("", name)]
    names = [n for n in _without_readme(names) if not has_suffix(n, jsonl.JSON_SUFFIXES)]
    suffixes = [_unreadable(name) for name in names]
    return suffixes[0] if suffixes and None not in suffixes else None


def _unreadable(name: str) -> tuple[str, str] | None:
    suffix = PurePath(name.split("?")[0]).suffix.lower()
    if suffix not in _WAY_OUT or any(is_read_by(kind, name) for kind in _NAMED_BY_SUFFIX):
        return None
    return suffix, _WAY_OUT[suffix]


def _without_readme(names: Sequence[str]) -> Sequence[str]:
    """READMEs and licenses describe the data; they count only when there is no other file."""
    data = [n for n in names if not n.split("/")[-1].lower().startswith(("readme", "license"))]
    return data or names
