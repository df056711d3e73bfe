"""A source behind a URL, read through fsspec. What breaks off stops the run: it may be whole the next time."""

import hashlib
import io
from collections.abc import Iterator, Sequence, Set
from dataclasses import dataclass
from typing import Any, BinaryIO

from ropewalk.conf.errors import DataError
from ropewalk.data.sources import globs
from ropewalk.data.sources.units import File, Found

# in what each filesystem says of a file: what names the content, wherever it lies; what changes with it, at one URL
_NAMES = ("blob_id", "checksum", "md5Hash", "content_hash", "Content-MD5", "Digest")
_CHANGES = ("ETag", "etag", "LastModified", "last_modified", "Last-Modified", "mtime", "created")
_HEAD = 1 << 20  # bytes that are read where nothing of this is said
_BEGINS = "begins "


@dataclass(frozen=True)
class Remote:
    url: str  # of the folder
    key: str  # the setting that holds it, for messages
    query: str = ""  # what an http URL asks for (?...), often a signature: no part of a name, for names are kept

    def at(self, name: str) -> str:
        return f"{self.url}/{name}{self.query}"

    def open(self, name: str) -> BinaryIO:
        file = _Whole(self, name)
        return io.BufferedReader(file, 1 << 20)  # type: ignore[return-value]

    def arrow(self, name: str) -> Any:
        import pyarrow as pa

        return pa.PythonFile(self.open(name), "r")

    def refusal(self, name: str) -> str | None:
        """Why a path is not read, if so."""
        return "path leaves the folder" if ".." in name.split("/") else None


class _Whole(io.RawIOBase):
    """A file that is read to its end or stops the run: no error of a network is taken for damaged data."""

    def __init__(self, place: Remote, name: str) -> None:
        self.place, self.file_name, url = place, name, place.at(name)
        self.file: Any = self._try(lambda: filesystem(url, place.key).open(url, "rb"))

    def _try(self, work: Any, *args: Any) -> Any:
        try:
            return work(*args)
        except DataError:
            raise
        except Exception as error:  # each filesystem has errors of its own
            raise DataError(
                f"{self.place.key} is {self.place.url}; {self.file_name} could not be read to its end "
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
        raise DataError(
            f"{key} is {url}; it needs a package that reads such URLs; {_line(error)}"
        ) from error


def find(url: str, key: str, without: Set[str]) -> Found:
    """What a URL of a file, a folder (without those of these names in it) or a glob leads to. Raises: DataError."""
    files = filesystem(url, key)
    try:
        if files.isfile(url):
            place, name = _one(url, key)
            return Found(place, "file", [_file(place, name, files.info(url))])
        if not globs.is_glob(url) or files.exists(url):
            place = Remote(url.rstrip("/"), key)
            found = _files(files, place, "**", without)
            return Found(place, "folder" if found else "", found)
        base, glob = globs.split(url)
        return Found(Remote(base, key), "glob", _files(files, Remote(base, key), glob, frozenset()))
    except DataError:
        raise
    except Exception as error:  # each filesystem has errors of its own
        raise DataError(
            f"{key} is {url}; it could not be listed ({_line(error)}); correct the URL, or see to its credentials"
        ) from error


def _one(url: str, key: str) -> tuple[Remote, str]:
    """The place and the name of a single file."""
    path, mark, query = url.partition("?") if url.startswith("http") else (url, "", "")
    base, name = path.rsplit("/", 1)
    return Remote(base, key, mark + query), name


def unnoticed(files: Sequence[File], key: str) -> Iterator[str]:
    """A line where a file may change and nothing would tell."""
    names = [file.name for file in files if str(file.stamp).startswith(_BEGINS)]
    if names:
        yield (
            f"{key}: the server tells no time, tag or digest of {names[0].split('?')[0]}{f' and {len(names) - 1} more' * (len(names) > 1)}; "
            "a change past the first megabyte that leaves the size would not be noticed; give a file that changes another name"
        )


def _files(files: Any, place: Remote, glob: str, without: Set[str]) -> list[File]:
    root = files._strip_protocol(place.url).rstrip("/")
    try:
        found = files.find(
            root, maxdepth=None if "**" in glob else glob.count("/") + 1, detail=True
        )
    except FileNotFoundError:
        return []
    named = {path.removeprefix(root).lstrip("/"): (path, info) for path, info in found.items()}
    return [
        _file(place, name, info if info.get("size") is not None else files.info(path))
        for name, (path, info) in sorted(named.items())
        if globs.matches(name, glob) and not _left_out(name.split("/"), without)
    ]


def _left_out(parts: list[str], without: Set[str]) -> bool:
    hidden = any(part.startswith(".") and part != ".." for part in parts)
    return hidden or not without.isdisjoint(parts[:-1])


def _file(place: Remote, name: str, info: dict[str, Any]) -> File:
    """A server that sends no parts (`partial`) is read from the start: no size, so no ranges."""
    size = 0 if info.get("partial") is False else int(info.get("size") or 0)
    return File(name, size, None if place.refusal(name) else _stamp(place, name, info))


def _stamp(place: Remote, name: str, info: dict[str, Any]) -> str:
    """What names the content; else what changes with it and the URL, for two servers may say the same of two texts."""
    web = (
        "http" in place.url.split("://")[0]
    )  # an ETag is a version of the URL there, in a bucket a digest of the content
    if said := _said(info, (*_NAMES, *(() if web else ("ETag",)))):
        return said
    changes = _said(info, _CHANGES)
    if changes is None:
        with place.open(name) as file:
            head = file.read(_HEAD + 1)
        digest = hashlib.blake2b(head, digest_size=16).hexdigest()
        if len(head) <= _HEAD:
            return f"content {digest}"
        changes = f"{_BEGINS}{digest}, {info.get('size')} bytes"
    return f"{changes} at {_hashed(place.at(name))}"


def _said(info: dict[str, Any], keys: tuple[str, ...]) -> str | None:
    return next((str(info[key]) for key in keys if info.get(key) is not None), None)


def _hashed(url: str) -> str:
    """A URL that can be kept: what it asks for may be a secret, and who asks is no part of it."""
    protocol, _, rest = url.partition("://")
    host, slash, path = rest.partition("/")
    return hashlib.blake2b(
        f"{protocol}://{host.rpartition('@')[2]}{slash}{path}".encode(), digest_size=8
    ).hexdigest()


def _line(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}".splitlines()[0]
