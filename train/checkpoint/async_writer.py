"""Our DeepSpeed checkpoint engine: a save holds the training only for the copy to host memory."""

import hashlib
import os
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO

import torch

from ropewalk.conf.artifacts.manifest import write_json
from ropewalk.train.zero.checkpoint import PICKLED_CLASSES, CheckpointCommitInfo, CheckpointEngine


class PinnedBuffers:
    """Copies of tensors in host memory.

    The buffers are reused, since fresh pages cost more than the copy.
    """

    def __init__(self) -> None:
        self.free: dict[tuple[torch.Size, torch.dtype], list[torch.Tensor]] = defaultdict(list)
        self.in_use: list[torch.Tensor] = []

    def copy(self, value: Any, copies: dict[Any, torch.Tensor] | None = None) -> Any:
        """`value` with every tensor in it copied.

        Tensors that share memory (tied weights) share their copy.
        """
        copies = {} if copies is None else copies
        if isinstance(value, torch.Tensor):
            return self._copy_tensor(value, copies)
        if isinstance(value, Mapping):
            return type(value)((key, self.copy(inner, copies)) for key, inner in value.items())  # type: ignore[call-arg]
        if type(value) in (list, tuple):
            return type(value)(self.copy(inner, copies) for inner in value)
        return value

    def _copy_tensor(self, tensor: torch.Tensor, copies: dict[Any, torch.Tensor]) -> torch.Tensor:
        tensor = tensor.detach()
        key: Any = (tensor.data_ptr(), tensor.shape, tensor.stride(), tensor.dtype)
        if not tensor.numel():  # empty tensors have no memory to identify them by
            key = object()
        if key not in copies:
            copies[key] = self._buffer(tensor).copy_(tensor, non_blocking=True)
        return copies[key]

    def _buffer(self, like: torch.Tensor) -> torch.Tensor:
        free = self.free[like.shape, like.dtype]
        if free:
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

    def write(self, data: Any) -> int:
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
    """Write all of `view`: one system call takes at most 2 GiB, and may take less. Raises:
    OSError."""
    while view:
        view = view[file.write(view) :]


def write_file(path: Path, value: Any) -> dict[str, Any]:
    """Write `value` by torch.save and sync it. Returns its size and sha256. Raises: OSError."""
    with path.open("wb", buffering=0) as raw:
        file = HashingFile(raw)
        torch.save(value, file)  # type: ignore[arg-type]
        if file.error is not None:
            raise file.error
        os.fsync(raw.fileno())
    return {"bytes": file.size, "sha256": file.hash.hexdigest()}


def sync_and_hash(path: Path) -> dict[str, Any]:
    """Sync an existing file. Returns its size and sha256. Raises: OSError."""
    with path.open("rb") as file:
        os.fsync(file.fileno())
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return {"bytes": path.stat().st_size, "sha256": digest}


class AsyncWriter(CheckpointEngine):
    """One rank's writer: `save` copies and returns, and a thread writes the files one after
    another.

    Errors are stored and reported by the trainer's flags: a rank that raised alone would leave the
    others waiting.
    """

    def __init__(self) -> None:
        super().__init__()
        self.buffers = PinnedBuffers()
        self.thread = ThreadPoolExecutor(1, thread_name_prefix="checkpoint")
        self.jobs: list[Future[Any]] = []
        self.files: dict[str, dict[str, Any]] = {}
        self.requested: list[str] = []
        self.error: Exception | None = None
        self.finished_jobs = 0
        """Jobs that the thread has finished, over all checkpoints."""

    def create(self, info: CheckpointCommitInfo) -> None:
        """Begin a checkpoint."""
        self.buffers.release()
        self.jobs, self.files, self.requested = [], {}, []
        self.error = None

    def makedirs(self, path: str, exist_ok: bool = False) -> None:
        self._run(partial(os.makedirs, path, exist_ok=exist_ok))

    def save(self, state_dict: Any, path: str) -> None:
        """Copy `state_dict` to host memory and queue the writing of `path`."""
        state_copy, target = self.buffers.copy(state_dict), Path(path)
        self.requested.append(target.name)
        if torch.cuda.is_available():
            torch.cuda.synchronize()

        def write() -> None:
            self.files[target.name] = write_file(target, state_copy)

        self.submit(write)

    def submit(self, job: Callable[[], Any]) -> None:
        """Run `job` in the thread, after the jobs before it; skipped once one has failed."""
        self.jobs.append(self.thread.submit(lambda: None if self.error else self._run(job)))

    def adopt_files(self, folder: Path, files: Sequence[Path]) -> None:
        """Sync and list existing files too: DeepSpeed copies states from NVMe past this writer."""
        for path in files:
            if path.is_file():
                name = str(path.relative_to(folder))
                self.requested.append(name)
                self.submit(partial(self._adopt, name, path))

    def _adopt(self, name: str, path: Path) -> None:
        self.files[name] = sync_and_hash(path)

    def write_file_list(self, folder: Path, rank: int, flats: list[list[Any]]) -> None:
        """After the rank's files, write rank-N.json: their hashes, the requested names, and what
        the flat tensors hold.

        `flats`: the fragments of each flat tensor, which `reshard` reads.
        """
        file_list = {"files": self.files, "asked": self.requested, "flats": flats}
        self.submit(lambda: write_json(folder / f"rank-{rank}.json", file_list))

    def _run(self, job: Callable[[], Any]) -> None:
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

    def load(self, path: str, map_location: Any = None) -> Any:
        """Map a file into memory. Only DeepSpeed's own classes are unpickled."""
        with torch.serialization.safe_globals(PICKLED_CLASSES):
            return torch.load(
                path, map_location=map_location or "cpu", weights_only=True, mmap=True
            )

    def commit(self, info: CheckpointCommitInfo) -> bool:
        """Nothing: `Checkpointer.poll` publishes."""
        return True
