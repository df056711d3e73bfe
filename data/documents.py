"""Sources -> documents. What cannot be read is counted by its reason, never dropped in silence."""

import gzip
import io
import json
import os
import sysconfig
from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
from pyarrow.lib import ArrowException

from ropewalk.conf.errors import DataError
from ropewalk.conf.schema import SourceConfig

STDLIB = "python:stdlib"
_NOT_TEXT = {
    "test",
    "tests",
    "idle_test",
    "site-packages",
    "dist-packages",
    "__pycache__",
    "lib-dynload",
    "node_modules",
}
_SUFFIXES = {
    "jsonl": (".jsonl", ".jsonl.gz", ".jsonl.zst"),
    "parquet": (".parquet",),
    "text": (".txt", ".md", ".rst"),
}


@dataclass(frozen=True)
class Document:
    id: str  # stable: the path inside the source, and the line or row
    text: str


@dataclass(frozen=True)
class Refusal:
    where: str
    reason: str


def root_of(source: SourceConfig, name: str) -> Path:
    """The folder or file of a source. Raises: DataError when it does not exist."""
    assert source.path is not None, name
    path = Path(sysconfig.get_paths()["stdlib"] if source.path == STDLIB else source.path).expanduser()
    if not path.exists():
        raise DataError(
            f"data.sources.{name}.path is {source.path}; it must be an existing file or folder; correct the path"
        )
    return path


def kind_of(source: SourceConfig, root: Path, name: str) -> str:
    """The reader of a source; `auto` looks at the names. Raises: DataError when two kinds lie in one folder."""
    if source.kind != "auto":
        return source.kind
    if source.path == STDLIB:
        return "tree"
    names = [root.name] if root.is_file() else [p.name for p in root.rglob("*") if p.is_file()]
    found = sorted(kind for kind, ends in _SUFFIXES.items() if any(n.endswith(ends) for n in names))
    if "jsonl" in found or "parquet" in found:
        if len(found) > 1:
            raise DataError(
                f"data.sources.{name}.kind is auto; {source.path} holds {' and '.join(found)}; "
                f"set data.sources.{name}.kind to one of them"
            )
        return found[0]
    return "text" if found == ["text"] or root.is_file() else "tree"


def files_of(source: SourceConfig, root: Path, kind: str) -> list[Path]:
    """Files in path order; links that leave the folder are left to the reader to refuse."""
    if root.is_file():
        return [root]
    pattern = source.pattern or ("*.py" if source.path == STDLIB else "*")
    found = []
    for folder, folders, names in os.walk(root):  # does not follow links to folders: no loops
        folders[:] = sorted(f for f in folders if not f.startswith(".") and f not in _NOT_TEXT)
        found += [Path(folder) / n for n in names if not n.startswith(".") and Path(n).match(pattern)]
    if kind in _SUFFIXES and source.pattern is None:
        found = [p for p in found if p.name.endswith(_SUFFIXES[kind])]
    return sorted(found, key=lambda p: p.relative_to(root).as_posix())


def read(source: SourceConfig, root: Path, kind: str, files: list[Path]) -> Iterator[Document | Refusal]:
    """Documents of a source in path order, with a Refusal in the place of each that cannot be used."""
    base = root.parent if root.is_file() else root
    if kind == "tree":
        yield from _trees(base, files)
        return
    reader: Any = {"text": _text, "jsonl": _jsonl, "parquet": _parquet}[kind]
    for path in files:
        where = path.relative_to(base).as_posix()
        if not _inside(path, base):
            yield Refusal(where, "link leaves the folder")
            continue
        for item in reader(path, where, source.text_key):
            yield _usable(item) if isinstance(item, Document) else item


def _inside(path: Path, base: Path) -> bool:
    return path.resolve().is_relative_to(base.resolve())


def _usable(document: Document) -> Document | Refusal:
    if not document.text.strip():
        return Refusal(document.id, "empty")
    try:
        document.text.encode()
    except UnicodeEncodeError:
        return Refusal(document.id, "lone surrogate")
    return document


def _decode(path: Path, where: str) -> Document | Refusal:
    try:
        return _usable(Document(where, path.read_bytes().decode("utf-8")))
    except UnicodeDecodeError:
        return Refusal(where, "not UTF-8")
    except OSError:
        return Refusal(where, "unreadable")


def _trees(base: Path, files: list[Path]) -> Iterator[Document | Refusal]:
    """One document a sub-folder of the root, files in path order under a header line; a file at the top stands alone."""
    parts: list[str] = []
    current = None
    for path in files:
        where = path.relative_to(base).as_posix()
        tree = where.split("/")[0]
        if current is not None and tree != current and parts:
            yield Document(current, "".join(parts))
            parts = []
        current = tree
        found = _decode(path, where) if _inside(path, base) else Refusal(where, "link leaves the folder")
        if isinstance(found, Refusal):
            yield found
        else:
            parts.append(f"# {where}\n{found.text.rstrip()}\n\n")
    if current is not None and parts:
        yield Document(current, "".join(parts))


def _text(path: Path, where: str, _: str) -> Iterator[Document | Refusal]:
    yield _decode(path, where)


def _jsonl(path: Path, where: str, key: str) -> Iterator[Document | Refusal]:
    number = 0
    try:
        with _lines(path) as lines:
            for number, line in enumerate(lines, 1):
                if line.strip():
                    yield _json_line(line, f"{where}:{number}", key)
    except (EOFError, OSError) as error:
        damaged = isinstance(error, (EOFError, gzip.BadGzipFile))
        yield Refusal(f"{where}:{number + 1}", "damaged gzip" if damaged else "unreadable")


def _json_line(line: bytes, where: str, key: str) -> Document | Refusal:
    try:
        row = json.loads(line.decode("utf-8"))
    except UnicodeDecodeError:
        return Refusal(where, "not UTF-8")
    except ValueError:
        return Refusal(where, "malformed JSON")
    return _field(row.get(key) if isinstance(row, dict) else None, where, key)


def _field(value: Any, where: str, key: str) -> Document | Refusal:
    if value is None:
        return Refusal(where, f"no {key}")
    return Document(where, value) if isinstance(value, str) else Refusal(where, f"{key} is not text")


def _lines(path: Path) -> AbstractContextManager[Any]:
    if path.name.endswith(".gz"):
        return gzip.open(path, "rb")
    if path.name.endswith(".zst"):
        try:
            import zstandard
        except ImportError:
            raise DataError(f"{path.name} is zstd; it needs a package; pip install 'ropewalk[zstd]'") from None
        return io.BufferedReader(zstandard.open(path, "rb"))  # type: ignore[arg-type]
    return path.open("rb")


def _parquet(path: Path, where: str, key: str) -> Iterator[Document | Refusal]:
    try:
        table = pq.ParquetFile(path)
        if key not in table.schema_arrow.names:
            yield Refusal(where, f"no column {key}")
            return
        row = 0
        for batch in table.iter_batches(batch_size=256, columns=[key]):
            for value in batch.column(0).to_pylist():
                yield _field(value, f"{where}:{row}", key)
                row += 1
    except (ArrowException, OSError):
        yield Refusal(where, "damaged parquet")
