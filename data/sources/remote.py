"""A source behind a URL, read through fsspec. A broken connection stops the run."""

import hashlib
import io
import re
from collections.abc import Callable, Iterator, Sequence, Set
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, TypeVar

import pyarrow as pa

from ropewalk.conf.errors import DataError
from ropewalk.data.sources import globs
from ropewalk.data.sources.units import File, PathMatch

if TYPE_CHECKING:
    from fsspec import AbstractFileSystem

# fields of a filesystem's file info: a digest of the content; the time of its last change
_DIGEST_FIELDS = ("blob_id", "checksum", "md5Hash", "content_hash", "Content-MD5", "Digest")
_TIME_FIELDS = (
    "LastModified", "last_modified", "Last-Modified", "mtime", "created",
)  # fmt: skip
# servers make such tags of a file's time in seconds and its size
_TIME_TAG = re.compile(r'(W/)?"?[0-9a-f]+-[0-9a-f]+(-[0-9a-f]+)?"?')
_HEAD_BYTES = 1 << 20  # hashed when the info has a time at most
_HEAD_ONLY = "begins "

T = TypeVar("T")


@dataclass(frozen=True)
class Remote:
    url: str  # of the folder
    key: str  # the setting that holds it, for messages
    query: str = ""  # of an http URL, often a signature, so it is kept out of file names

    def url_of(self, name: str) -> str:
        return f"{self.url}/{name}{self.query}"

    def open(self, name: str) -> BinaryIO:
        return io.BufferedReader(_RemoteFile(self, name), 1 << 20)

    def open_arrow(self, name: str) -> pa.NativeFile:
        return pa.PythonFile(self.open(name), "r")

    def digests(self, files: Sequence[File], cache: Path) -> dict[str, str]:
        """None: each file has a stamp of its server's."""
        return {}

    def refusal(self, name: str) -> str | None:
        """Why a path is not read; None when it is read."""
        return "path leaves the folder" if ".." in name.split("/") else None


class _RemoteFile(io.RawIOBase):
    """A file whose network errors become DataError, so that they do not count as damaged data."""

    file: Any = None  # `close` also runs when opening failed

    def __init__(self, location: Remote, name: str) -> None:
        self.location = location
        self.file_name = name
        url = location.url_of(name)
        self.file = self._try(lambda: filesystem(url, location.key).open(url, "rb"))

    def _try(self, work: Callable[[], T]) -> T:
        try:
            return work()
        except DataError:
            raise
        except Exception as error:  # each filesystem raises its own errors
            raise DataError(
                f"{self.location.key} is {self.location.url}; {self.file_name} could not be read "
                f"to its end ({summary(error)}); run again, or leave the file out by pattern"
            ) from error

    def readinto(self, buffer: Any) -> int:
        content = self._try(lambda: self.file.read(len(buffer)))
        buffer[: len(content)] = content
        return len(content)

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = 0) -> int:
        return int(self._try(lambda: self.file.seek(offset, whence)))

    def tell(self) -> int:
        return int(self._try(lambda: self.file.tell()))

    def close(self) -> None:
        if not self.closed and self.file is not None:
            self.file.close()
        super().close()


def filesystem(url: str, key: str) -> "AbstractFileSystem":
    """The filesystem of a URL. Raises: DataError that names the package to install."""
    from fsspec.core import url_to_fs

    try:
        return url_to_fs(url)[0]
    except (ImportError, ValueError) as error:  # ValueError: a protocol that fsspec does not know
        raise DataError(
            f"{key} is {url}; it needs a package that reads such URLs; {summary(error)}"
        ) from error


def find(url: str, key: str, skip_folders: Set[str]) -> PathMatch:
    """The files of a URL: a file, a folder without `skip_folders`, or a glob. Raises: DataError."""
    files = filesystem(url, key)
    try:
        if files.isfile(url):
            location, name = _split_url(url, key)
            return PathMatch(location, "file", [_file(location, name, files.info(url))])
        if not globs.is_glob(url) or files.exists(url):
            location = Remote(url.rstrip("/"), key)
            matches = _files(files, location, "**", skip_folders)
            return PathMatch(location, "folder" if matches else "nothing", matches)
        base, glob = globs.split(url)
        location = Remote(base, key)
        return PathMatch(location, "glob", _files(files, location, glob, frozenset()))
    except DataError:
        raise
    except Exception as error:  # each filesystem raises its own errors
        raise DataError(
            f"{key} is {url}; it could not be listed ({summary(error)}); "
            "correct the URL, or see to its credentials"
        ) from error


def _split_url(url: str, key: str) -> tuple[Remote, str]:
    """The location and the name of a single file."""
    path, mark, query = url.partition("?") if url.startswith("http") else (url, "", "")
    base, name = path.rsplit("/", 1)
    return Remote(base, key, mark + query), name


def untracked_changes(files: Sequence[File], key: str) -> Iterator[str]:
    """A warning when the server gives no field from which a changed file can be recognised."""
    names = [file.name for file in files if str(file.stamp).startswith(_HEAD_ONLY)]
    if names:
        others = f" and {len(names) - 1} more" if len(names) > 1 else ""
        yield (
            f"{key}: the server gives no time, tag or digest of {names[0].split('?')[0]}{others}; "
            "a change past the first megabyte that leaves the size would not be noticed; "
            "give a file that changes another name"
        )


def _files(
    files: "AbstractFileSystem", location: Remote, glob: str, skip_folders: Set[str]
) -> list[File]:
    root = files._strip_protocol(location.url).rstrip("/")
    depth = None if "**" in glob else glob.count("/") + 1
    try:
        paths = files.find(root, maxdepth=depth, detail=True)
    except FileNotFoundError:
        return []
    infos = {path.removeprefix(root).lstrip("/"): (path, info) for path, info in paths.items()}
    return [
        _file(location, name, info if info.get("size") is not None else files.info(path))
        for name, (path, info) in sorted(infos.items())
        if globs.matches(name, glob) and not _is_skipped(name.split("/"), skip_folders)
    ]


def _is_skipped(parts: list[str], skip_folders: Set[str]) -> bool:
    hidden = any(part.startswith(".") and part != ".." for part in parts)
    return hidden or not skip_folders.isdisjoint(parts[:-1])


def _file(location: Remote, name: str, info: dict[str, Any]) -> File:
    """Size 0, so no ranges, when the server cannot send parts of a file (`partial`)."""
    size = 0 if info.get("partial") is False else int(info.get("size") or 0)
    return File(name, size, None if location.refusal(name) else _stamp(location, name, info))


def _stamp(location: Remote, name: str, info: dict[str, Any]) -> str:
    """A digest of the content; else a version with the URL, since two servers may share a version.

    An ETag is a version of the URL over http, and a digest of the content in a bucket. A time
    proves little: a short file is read as a whole, of a long one the first megabyte counts too.
    """
    http = "http" in location.url.split("://")[0]
    digest = _first_of(info, _DIGEST_FIELDS if http else (*_DIGEST_FIELDS, "ETag"))
    if digest:
        return digest
    version = _first_of(info, ("ETag", "etag"))
    if version is None or _TIME_TAG.fullmatch(version):
        with location.open(name) as file:
            head = file.read(_HEAD_BYTES + 1)
        digest = hashlib.blake2b(head, digest_size=16).hexdigest()
        if len(head) <= _HEAD_BYTES:
            return f"content {digest}"
        version = version or _first_of(info, _TIME_FIELDS)
        begins = f"{_HEAD_ONLY}{digest}, {info.get('size')} bytes"
        version = f"{version}, {begins}" if version else begins
    return f"{version} at {_url_hash(location.url_of(name))}"


def _first_of(info: dict[str, Any], fields: tuple[str, ...]) -> str | None:
    return next((str(info[field]) for field in fields if info.get(field) is not None), None)


def _url_hash(url: str) -> str:
    """A hash of the URL without its user, so that it can be stored: the query may hold a secret."""
    protocol, _, rest = url.partition("://")
    host, slash, path = rest.partition("/")
    public_url = f"{protocol}://{host.rpartition('@')[2]}{slash}{path}"
    return hashlib.blake2b(public_url.encode(), digest_size=8).hexdigest()


def summary(error: BaseException) -> str:
    """The error's class and first line."""
    return f"{type(error).__name__}: {error}".splitlines()[0]
