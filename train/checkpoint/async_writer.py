"""Writes a rank's files in a thread: a save holds the training only for the copy to host memory."""

import hashlib
import os
from collections import defaultdict
from collections.abc import Callable, Hashable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import BinaryIO

import torch

from ropewalk.conf.artifacts.manifest import write_json
from ropewalk.train.checkpoint.storage import FileDigest, sync_and_hash
from ropewalk.train.zero.flat_params import Fragment


class PinnedBuffers:
    """Copies of tensors in host memory.

    The buffers are reused, since fresh pages cost more than the copy.
    """

    def __init__(self) -> None:
        self.free: dict[tuple[torch.Size, torch.dtype], list[torch.Tensor]] = defaultdict(list)
        self.in_use: list[torch.Tensor] = []

    def copy(self, value: object, copies: dict[Hashable, torch.Tensor] | None = None) -> object:
        """`value` with every tensor in it copied.

        Tensors that share memory (tied weights) share their copy.
        """
        copies = {} if copies is None else copies
        if isinstance(value, torch.Tensor):
            return self._copy_tensor(value.detach(), copies)
        if isinstance(value, Mapping):
            items = ((key, self.copy(inner, copies)) for key, inner in value.items())
            return type(value)(items)  # type: ignore[call-arg]
        if type(value) is list or type(value) is tuple:
            return type(value)(self.copy(inner, copies) for inner in value)
        return value

    def _copy_tensor(
        self, tensor: torch.Tensor, copies: dict[Hashable, torch.Tensor]
    ) -> torch.Tensor:
        key: Hashable = (tensor.data_ptr(), tensor.shape, tensor.stride(), tensor.dtype)
        if not tensor.numel():  # empty tensors have no memory to identify them by
            key = object()
        if key not in copies:
            copies[key] = self._buffer(tensor).copy_(tensor, non_blocking=True)
        return copies[key]

    def _buffer(self, like: torch.Tensor) -> torch.Tensor:
        if free := self.free[like.shape, like.dtype]:
            buffer = free.pop()
        else:
            buffer = torch.empty(like.shape, dtype=like.dtype, pin_memory=like.is_cuda)
        self.in_use.append(buffer)
        return buffer

    def release(self) -> None:
        """Call when all copies are on disk or given up."""
        for buffer in self.in_use:
            self.free[buffer.shape, buffer.dtype].append(buffer)
        self.in_use = []


class HashingFile:
    """A file for `torch.save` that counts and hashes the bytes.

    It stores the first error, which torch's C++ would hide.
    """

    def __init__(self, file: BinaryIO) -> None:
        self.file, self.size, self.hash = file, 0, hashlib.sha256()
        self.error: Exception | None = None

    def write(self, data: bytes) -> int:
        view = memoryview(data).cast("B")
        if self.error is None:
            try:
                self.hash.update(view)
                write_all(self.file, view)
                self.size += len(view)
            except Exception as error:
                self.error = error
        return len(view)

    def flush(self) -> None:
        """`write_file` syncs instead."""


def write_all(file: BinaryIO, view: memoryview) -> None:
    """Write all of `view`: one system call takes at most 2 GiB, and may take less.

    Raises: OSError.
    """
    while view:
        view = view[file.write(view) :]


def write_file(path: Path, value: object) -> FileDigest:
    """Write `value` by torch.save and sync it. Raises: OSError."""
    with path.open("wb", buffering=0) as raw:
        file = HashingFile(raw)
        torch.save(value, file)  # type: ignore[arg-type]
        if file.error is not None:
            raise file.error
        os.fsync(raw.fileno())
    return {"bytes": file.size, "sha256": file.hash.hexdigest()}


class AsyncWriter:
    """One rank's writer: `save` copies and returns, and a thread writes the files in turn.

    Errors are stored and reported by the trainer's flags: a rank that raised alone would leave the
    others waiting.
    """

    def __init__(self) -> None:
        self.buffers = PinnedBuffers()
        self.thread = ThreadPoolExecutor(1, thread_name_prefix="checkpoint")
        self.jobs: list[Future[None]] = []
        self.files: dict[str, FileDigest] = {}
        self.requested: list[str] = []
        self.error: Exception | None = None
        self.finished_jobs = 0
        """Jobs that the thread has finished, over all checkpoints."""

    def create(self) -> None:
        """Begin a checkpoint, once the thread has read the buffers of the last one."""
        self.wait()
        self.buffers.release()
        self.jobs, self.files, self.requested = [], {}, []
        self.error = None

    def makedirs(self, path: Path) -> None:
        self._run(partial(path.mkdir, parents=True, exist_ok=True))

    def save(self, state_dict: object, path: Path) -> None:
        """Copy `state_dict` to host memory and queue the writing of `path`."""
        state_copy = self.buffers.copy(state_dict)
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        self._write_later(path.name, lambda: write_file(path, state_copy))

    def adopt_files(self, folder: Path, files: Sequence[Path]) -> None:
        """Sync and list existing files too: DeepSpeed copies states from NVMe past this writer."""
        for path in filter(Path.is_file, files):
            self._write_later(str(path.relative_to(folder)), partial(sync_and_hash, path))

    def _write_later(self, name: str, write: Callable[[], FileDigest]) -> None:
        self.requested.append(name)
        self.submit(lambda: self.files.update({name: write()}))

    def submit(self, job: Callable[[], None]) -> None:
        """Run `job` in the thread, after the jobs before it; skipped once one has failed."""
        self.jobs.append(self.thread.submit(self._run, job))

    def save_bytes(self, content: bytes, path: Path) -> None:
        """Queue the writing of a small file."""

        def write() -> FileDigest:
            path.write_bytes(content)
            return sync_and_hash(path)

        self._write_later(path.name, write)

    def write_file_list(
        self, folder: Path, rank: int, step: int, flats: list[list[Fragment]]
    ) -> None:
        """Write rank-N.json after the rank's files: their hashes, the requested names, and `flats`.

        `flats`: the fragments of each flat tensor, which `reshard` reads.
        """
        file_list = {
            "step": step,
            "files": self.files,
            "asked": self.requested,
            "flats": flats,
        }
        self.submit(lambda: write_json(folder / f"rank-{rank}.json", file_list))

    def _run(self, job: Callable[[], None]) -> None:
        if self.error is None:
            try:
                job()
            except Exception as error:
                self.error = error
        self.finished_jobs += 1

    @property
    def busy(self) -> bool:
        return any(not job.done() for job in self.jobs)

    def wait(self) -> None:
        """Wait until the thread has finished all jobs."""
        for job in self.jobs:
            job.result()
