"""DeepSpeed's checkpoint engine of ours: a save holds the training for the copy to host memory, and for nothing else."""

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
    """Copies of tensors in host memory, in buffers that the next checkpoint takes again: fresh pages cost more than the copy."""

    def __init__(self) -> None:
        self.free: dict[Any, list[torch.Tensor]] = defaultdict(list)
        self.in_use: list[torch.Tensor] = []

    def copy(self, value: Any, seen: dict[Any, torch.Tensor] | None = None) -> Any:
        """`value` with every tensor in it copied; tensors that are one (tied weights) stay one."""
        seen = {} if seen is None else seen
        if isinstance(value, torch.Tensor):
            return self._tensor(value, seen)
        if isinstance(value, Mapping):
            return type(value)((key, self.copy(inner, seen)) for key, inner in value.items())  # type: ignore[call-arg]
        if type(value) in (list, tuple):
            return type(value)(self.copy(inner, seen) for inner in value)
        return value

    def _tensor(self, value: torch.Tensor, seen: dict[Any, torch.Tensor]) -> torch.Tensor:
        value = value.detach()
        same = (
            (value.data_ptr(), value.shape, value.stride(), value.dtype)
            if value.numel()
            else object()
        )
        if same not in seen:
            seen[same] = self._buffer(value).copy_(value, non_blocking=True)
        return seen[same]

    def _buffer(self, like: torch.Tensor) -> torch.Tensor:
        free = self.free[like.shape, like.dtype]
        found = (
            free.pop()
            if free
            else torch.empty(like.shape, dtype=like.dtype, pin_memory=like.is_cuda)
        )
        self.in_use.append(found)
        return found

    def release(self) -> None:
        """All that was copied is on disk, or given up."""
        for buffer in self.in_use:
            self.free[buffer.shape, buffer.dtype].append(buffer)
        self.in_use = []


class HashingFile:
    """What `torch.save` writes to: counts and hashes what goes by. The first error is kept, since torch's C++ would hide it."""

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
        """`write_file` does it, with the sync."""


def write_all(file: Any, view: memoryview) -> None:
    """All of it: the system takes 2 GiB at most in one call, and less where it likes. Raises: OSError."""
    while view:
        view = view[file.write(view) :]


def write_file(path: Path, value: Any) -> dict[str, Any]:
    """`value` by torch.save, synced to disk; its size and sha256. Raises: OSError."""
    with path.open("wb", buffering=0) as raw:
        file = HashingFile(raw)
        torch.save(value, file)  # type: ignore[arg-type]
        if file.error is not None:
            raise file.error
        os.fsync(raw.fileno())
    return {"bytes": file.size, "sha256": file.hash.hexdigest()}


def hash_file(path: Path) -> dict[str, Any]:
    """Size and sha256 of a file that is on disk when this returns. Raises: OSError."""
    with path.open("rb") as file:
        os.fsync(file.fileno())
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return {"bytes": path.stat().st_size, "sha256": digest}


class AsyncWriter(CheckpointEngine):
    """One rank's: `save` copies and returns, a thread writes the files one after another.

    An error on any of the ways is kept and told by the loop's flags, for a rank that raised alone would leave the others waiting.
    """

    def __init__(self) -> None:
        super().__init__()
        self.buffers, self.thread = (
            PinnedBuffers(),
            ThreadPoolExecutor(1, thread_name_prefix="checkpoint"),
        )
        self.jobs: list[Future[Any]] = []
        self.files: dict[str, dict[str, Any]] = {}
        self.requested: list[str] = []
        self.error: Exception | None = None
        self.finished_jobs = 0
        """Files and other work that the thread has ended, over all checkpoints."""

    def create(self, info: CheckpointCommitInfo) -> None:
        self.buffers.release()
        self.jobs, self.files, self.requested, self.error = [], {}, [], None

    def makedirs(self, path: str, exist_ok: bool = False) -> None:
        self._run(lambda: os.makedirs(path, exist_ok=exist_ok))

    def save(self, state_dict: Any, path: str) -> None:
        copy, to = self.buffers.copy(state_dict), Path(path)
        self.requested.append(to.name)
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        self.submit(lambda: self.files.__setitem__(to.name, write_file(to, copy)))

    def submit(self, work: Callable[[], Any]) -> None:
        """`work` in the thread, after what was given before; left out once something failed."""
        self.jobs.append(self.thread.submit(lambda: None if self.error else self._run(work)))

    def adopt_files(self, folder: Path, files: Sequence[Path]) -> None:
        """Files that are there already (DeepSpeed copies states from NVMe by itself): synced, and counted and hashed as ours are."""
        for path in (file for file in files if file.is_file()):
            self.requested.append(str(path.relative_to(folder)))
            name = str(path.relative_to(folder))
            self.submit(partial(self._count, name, path))

    def _count(self, name: str, path: Path) -> None:
        self.files[name] = hash_file(path)

    def write_file_list(self, folder: Path, rank: int, flats: Any) -> None:
        """After the rank's files, a list of them with their hashes, of what was asked for, and of what lies where in them."""
        said = {"files": self.files, "asked": self.requested, "flats": flats}
        self.submit(lambda: write_json(folder / f"rank-{rank}.json", said))

    def _run(self, work: Callable[[], Any]) -> None:
        try:
            work()
        except Exception as error:
            self.error = error
        self.finished_jobs += 1

    @property
    def busy(self) -> bool:
        return any(not job.done() for job in self.jobs)

    def wait(self) -> None:
        """Until the thread has done all."""
        for job in self.jobs:
            job.result()

    def load(self, path: str, map_location: Any = None) -> Any:
        with torch.serialization.safe_globals(PICKLED_CLASSES):
            return torch.load(
                path, map_location=map_location or "cpu", weights_only=True, mmap=True
            )

    def commit(self, info: CheckpointCommitInfo) -> bool:
        return True
