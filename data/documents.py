"""Sources -> documents. What cannot be read is counted by its reason, never dropped in silence."""

import gzip
import io
import json
import os
import sysconfig
import zlib
from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
from pyarrow.lib import ArrowException

from ropewalk.conf.data import SourceConfig
from ropewalk.conf.errors import DataError

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
    names = [root.name] if root.is_file() else [p.name for p in _walk(root, source.pattern or "*") if not p.is_dir()]
    found = sorted(kind for kind, ends in _SUFFIXES.items() if any(n.endswith(ends) for n in names))
    if "jsonl" in found or "parquet" in found:
        if len(found) > 1:
            raise DataError(
                f"data.sources.{name}.kind is auto; {source.path} holds {' and '.join(found)}; "
                f"set data.sources.{name}.kind to one of them"
            )
        return found[0]
    return "text" if root.is_file() or (names and all(n.endswith(_SUFFIXES["text"]) for n in names)) else "tree"


def files_of(source: SourceConfig, root: Path, kind: str) -> list[Path]:
    """Files in path order; links that leave the folder are left to the reader to refuse."""
    if root.is_file():
        return [root]
    found = _walk(root, source.pattern or ("*.py" if source.path == STDLIB else "*"))
    if kind in _SUFFIXES and source.pattern is None:
        found = [p for p in found if p.name.endswith(_SUFFIXES[kind]) or p.is_dir()]
    return sorted(found, key=lambda p: p.relative_to(root).as_posix())


def _walk(root: Path, pattern: str) -> list[Path]:
    """Files, and links to folders, which are not followed (no loops) but told. Raises: DataError for a folder that is locked."""

    def locked(error: OSError) -> None:
        name = Path(error.filename).relative_to(root).as_posix()
        raise DataError(
            f"folder {name} is locked; every folder of a source must be readable; change its rights or move it"
        )

    found = []
    for folder, folders, names in os.walk(root, onerror=locked):
        folders[:] = sorted(f for f in folders if not f.startswith(".") and f not in _NOT_TEXT)
        found += [Path(folder) / f for f in folders if (Path(folder) / f).is_symlink()]
        found += [Path(folder) / n for n in names if not n.startswith(".") and Path(n).match(pattern)]
    return found


def read(source: SourceConfig, root: Path, kind: str, files: list[Path]) -> Iterator[Document | Refusal]:
    """Documents of a source in path order, with a Refusal in the place of each that cannot be used."""
    base = root.parent if root.is_file() else root
    if kind == "tree":
        yield from _trees(base, files)
        return
    reader: Any = {"text": _text, "jsonl": _jsonl, "parquet": _parquet}[kind]
    for path in files:
        where = path.relative_to(base).as_posix()
        if refusal := _unusable_path(path, where, base):
            yield refusal
            continue
        for item in reader(path, where, source.text_key):
            yield _usable(item) if isinstance(item, Document) else item


def _unusable_path(path: Path, where: str, base: Path) -> Refusal | None:
    try:
        where.encode()
    except UnicodeEncodeError:
        return Refusal(where.encode("utf-8", "backslashreplace").decode(), "file name is not UTF-8")
    try:
        inside = path.resolve().is_relative_to(base.resolve())
    except (OSError, RuntimeError):  # RuntimeError: a loop, before Python 3.13
        return Refusal(where, "unreadable")
    if not inside:
        return Refusal(where, "link leaves the folder")
    return Refusal(where, "link to a folder") if path.is_dir() else None


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
        found = _unusable_path(path, where, base) or _decode(path, where)
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
    except (EOFError, OSError, zlib.error) as error:
        damaged = isinstance(error, (EOFError, gzip.BadGzipFile, zlib.error))
        form = "zstd" if path.name.endswith(".zst") else "gzip"
        yield Refusal(f"{where}:{number + 1}", f"damaged {form}" if damaged else "unreadable")


def _json_line(line: bytes, where: str, key: str) -> Document | Refusal:
    try:
        row = json.loads(line.decode("utf-8"))
    except UnicodeDecodeError:
        return Refusal(where, "not UTF-8")
    except (ValueError, RecursionError):
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
        return io.BufferedReader(_Frames(path, zstandard))
    return path.open("rb")


class _Frames(io.RawIOBase):
    """zstd frames end to end. A frame that breaks off or is damaged is an EOFError: zstandard's own reader just ends."""

    def __init__(self, path: Path, zstandard: Any) -> None:
        self.file, self.zstandard = path.open("rb"), zstandard
        self.frame: Any = None
        self.rest = self.out = b""

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        while not self.out:
            chunk = self.rest or self.file.read(1 << 16)
            if not chunk:
                if self.frame is not None:
                    raise EOFError("the last frame breaks off")
                return 0
            self.frame = self.frame or self.zstandard.ZstdDecompressor().decompressobj()
            try:
                self.out, self.rest = self.frame.decompress(chunk), b""
            except self.zstandard.ZstdError as error:
                raise EOFError(str(error)) from error
            if self.frame.eof:
                self.rest, self.frame = self.frame.unused_data, None
        count = min(len(buffer), len(self.out))
        buffer[:count], self.out = self.out[:count], self.out[count:]
        return count

    def close(self) -> None:
        self.file.close()
        super().close()


def _parquet(path: Path, where: str, key: str) -> Iterator[Document | Refusal]:
    try:
        table = pq.ParquetFile(path)
        if key not in table.schema_arrow.names:
            yield Refusal(where, f"no column {key}")
            return
        row = 0
        for batch in table.iter_batches(batch_size=256, columns=[key]):
            for value in _values(batch.column(0)):
                at = f"{where}:{row}"
                yield Refusal(at, "not UTF-8") if value is _NOT_UTF8 else _field(value, at, key)
                row += 1
    except (ArrowException, OSError):
        yield Refusal(where, "damaged parquet")


_NOT_UTF8 = object()


def _values(column: Any) -> list[Any]:
    """Python values; a text that is no UTF-8 does not take its neighbours with it."""
    try:
        return column.to_pylist()  # type: ignore[no-any-return]
    except UnicodeDecodeError:
        return [_value(scalar) for scalar in column]


def _value(scalar: Any) -> Any:
    try:
        return scalar.as_py()
    except UnicodeDecodeError:
        return _NOT_UTF8
