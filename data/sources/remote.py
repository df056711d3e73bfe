"""A source behind a URL, read through fsspec. What breaks off stops the run: it may be whole the next time."""

import io
from collections.abc import Set
from dataclasses import dataclass
from typing import Any, BinaryIO

from ropewalk.conf.errors import DataError
from ropewalk.data.sources import globs
from ropewalk.data.sources.units import File, Found

_STAMPS = (  # in what each filesystem says of a file, where it names the content or its time
    "ETag", "etag", "blob_id", "checksum", "md5Hash", "content_hash", "Content-MD5", "Digest", "LastModified",
    "last_modified", "Last-Modified", "mtime", "created",
)  # fmt: skip


@dataclass(frozen=True)
class Remote:
    url: str  # of the folder
    key: str  # the setting that holds it, for messages

    def open(self, name: str) -> BinaryIO:
        file = _Whole(self, f"{self.url}/{name}")
        return io.BufferedReader(file, 1 << 20)  # type: ignore[return-value]

    def arrow(self, name: str) -> Any:
        import pyarrow as pa

        return pa.PythonFile(self.open(name), "r")

    def refusal(self, name: str) -> str | None:
        """Why a path is not read, if so."""
        return "path leaves the folder" if ".." in name.split("/") else None


class _Whole(io.RawIOBase):
    """A file that is read to its end or stops the run: no error of a network is taken for damaged data."""

    def __init__(self, place: Remote, url: str) -> None:
        self.place, self.url = place, url
        self.file: Any = self._try(lambda: filesystem(url, place.key).open(url, "rb"))

    def _try(self, work: Any, *args: Any) -> Any:
        try:
            return work(*args)
        except DataError:
            raise
        except Exception as error:  # each filesystem has errors of its own
            raise DataError(
                f"{self.place.key} is {self.place.url}; {self.url.rsplit('/', 1)[-1]} could not be read to its end "
                f"({_line(error)}); run again, or leave the file out by pattern"
            ) from error

    def readinto(self, buffer: Any) -> int:
        found = self._try(self.file.read, len(buffer))
        buffer[: len(found)] = found
        return len(found)

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = 0) -> int:
        return int(self._try(self.file.seek, offset, whence))

    def tell(self) -> int:
        return int(self._try(self.file.tell))

    def close(self) -> None:
        if not self.closed and getattr(self, "file", None) is not None:
            self.file.close()
        super().close()


def filesystem(url: str, key: str) -> Any:
    """The filesystem of a URL. Raises: DataError that names the package to install."""
    from fsspec.core import url_to_fs

    try:
        return url_to_fs(url)[0]
    except (ImportError, ValueError) as error:  # ValueError: a protocol that fsspec does not know
        raise DataError(f"{key} is {url}; it needs a package that reads such URLs; {_line(error)}") from error


def find(url: str, key: str, without: Set[str]) -> Found:
    """What a URL of a file, a folder (without those of these names in it) or a glob leads to. Raises: DataError."""
    files = filesystem(url, key)
    try:
        if files.isfile(url):
            base, name = url.rsplit("/", 1)
            return Found(Remote(base, key), "file", [_file(name, files.info(url))])
        if not globs.is_glob(url) or files.exists(url):
            found = _files(files, url.rstrip("/"), "**", without)
            return Found(Remote(url.rstrip("/"), key), "folder" if found else "", found)
        base, glob = globs.split(url)
        return Found(Remote(base, key), "glob", _files(files, base, glob, frozenset()))
    except Exception as error:  # each filesystem has errors of its own
        raise DataError(
            f"{key} is {url}; it could not be listed ({_line(error)}); correct the URL, or see to its credentials"
        ) from error


def _files(files: Any, base: str, glob: str, without: Set[str]) -> list[File]:
    root = files._strip_protocol(base).rstrip("/")
    try:
        found = files.find(root, maxdepth=None if "**" in glob else glob.count("/") + 1, detail=True)
    except FileNotFoundError:
        return []
    named = {path.removeprefix(root).lstrip("/"): (path, info) for path, info in found.items()}
    return [
        _file(name, info if info.get("size") is not None else files.info(path))
        for name, (path, info) in sorted(named.items())
        if globs.matches(name, glob) and not _left_out(name.split("/"), without)
    ]


def _left_out(parts: list[str], without: Set[str]) -> bool:
    hidden = any(part.startswith(".") and part != ".." for part in parts)
    return hidden or not without.isdisjoint(parts[:-1])


def _file(name: str, info: dict[str, Any]) -> File:
    """A server that sends no parts (`partial`) is read from the start: no size, so no ranges."""
    stamp = next((str(info[key]) for key in _STAMPS if info.get(key) is not None), None)
    return File(name, 0 if info.get("partial") is False else int(info.get("size") or 0), stamp)


def _line(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}".splitlines()[0]
