"""Compressed files, read as a stream: gzip, zstd, xz, bzip2."""

import bz2
import gzip
import io
import lzma
import zlib
from types import ModuleType
from typing import Any, BinaryIO

from ropewalk.conf.errors import DataError
from ropewalk.data.sources.units import has_suffix

FORMS = {".gz": "gzip", ".zst": "zstd", ".zstd": "zstd", ".xz": "xz", ".bz2": "bzip2"}
SUFFIXES = tuple(FORMS)
ERRORS = (EOFError, OSError, zlib.error, lzma.LZMAError)


def form(name: str) -> str | None:
    """How a file is compressed, by its name."""
    return next((form for suffix, form in FORMS.items() if has_suffix(name, suffix)), None)


def reason(error: BaseException, name: str) -> str:
    """Why a file could not be read on, for an error of ERRORS."""
    damaged = isinstance(error, (EOFError, gzip.BadGzipFile, zlib.error, lzma.LZMAError))
    # bzip2 has no error of its own: an OSError without a number
    damaged = damaged or (isinstance(error, OSError) and error.errno is None)
    return f"damaged {form(name)}" if damaged and form(name) else "unreadable"


def opened(file: BinaryIO, name: str) -> BinaryIO:
    """The file's content without compression. Raises: DataError when a package is missing."""
    packed = form(name)
    if packed == "gzip":
        return gzip.GzipFile(fileobj=file)  # type: ignore[return-value]
    if packed == "xz":
        return lzma.LZMAFile(file)  # type: ignore[return-value]
    if packed == "bzip2":
        return bz2.BZ2File(file)  # type: ignore[return-value]
    if packed == "zstd":
        try:
            import zstandard
        except ImportError:
            raise DataError(
                f"{name} is zstd; it needs a package; pip install 'ropewalk[zstd]'"
            ) from None
        return io.BufferedReader(_ZstdReader(file, zstandard))  # type: ignore[return-value]
    return file


class _ZstdReader(io.RawIOBase):
    """zstd frames. A cut or damaged frame is an EOFError; zstandard's own reader just ends."""

    def __init__(self, file: BinaryIO, zstandard: ModuleType) -> None:
        self.file = file
        self.zstandard = zstandard
        self.frame: Any = None  # the decompressor of the current frame
        self.input = b""
        self.output = b""

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        while not self.output:
            chunk = self.input or self.file.read(1 << 16)
            if not chunk:
                if self.frame is not None:
                    raise EOFError("the last frame breaks off")
                return 0
            self._decompress(chunk)
        count = min(len(buffer), len(self.output))
        buffer[:count], self.output = self.output[:count], self.output[count:]
        return count

    def _decompress(self, chunk: bytes) -> None:
        if self.frame is None:  # the largest window, so that `zstd --long` is read
            decompressor = self.zstandard.ZstdDecompressor(max_window_size=1 << 31)
            self.frame = decompressor.decompressobj()
        try:
            self.output, self.input = self.frame.decompress(chunk), b""
        except self.zstandard.ZstdError as error:
            raise EOFError(str(error)) from error
        if self.frame.eof:
            self.input, self.frame = self.frame.unused_data, None
