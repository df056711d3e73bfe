"""The writer writes every byte of a file, and lists the files that DeepSpeed wrote past it."""

import hashlib
import io
import time
from pathlib import Path

import pytest
import torch
from late_copies import LateCopies

from ropewalk.train.checkpoint import async_writer


class ShortWrites(io.FileIO):
    """Takes at most 1,000 bytes a call, as a disk that fills up, or as Linux does beyond 2 GiB."""

    def write(self, data: bytes) -> int:  # type: ignore[override]
        return super().write(memoryview(data)[:1000])


def test_short_writes_lose_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Path, "open", lambda self, mode, buffering: ShortWrites(self, mode))
    value, path = {"weights": torch.arange(10_000.0)}, tmp_path / "shard.pt"
    digest = async_writer.write_file(path, value)
    monkeypatch.undo()
    content = path.read_bytes()
    assert digest == {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
    assert torch.equal(torch.load(path, weights_only=True)["weights"], value["weights"])


def test_existing_files_are_listed_as_written_ones_are(tmp_path: Path) -> None:
    """DeepSpeed copies states from NVMe past the writer; they belong to the checkpoint too."""
    swapped = tmp_path / "offloaded_tensors" / "rank0" / "optimizer" / "moments.swp"
    swapped.parent.mkdir(parents=True)
    swapped.write_bytes(b"123")
    writer = async_writer.AsyncWriter()
    writer.adopt_files(tmp_path, sorted(tmp_path.glob("offloaded_tensors/rank0/**/*")))
    writer.wait()
    name = "offloaded_tensors/rank0/optimizer/moments.swp"
    assert writer.files == {name: {"bytes": 3, "sha256": hashlib.sha256(b"123").hexdigest()}}
    assert writer.requested == [name] and writer.error is None


def test_jobs_after_a_failed_job_are_skipped() -> None:
    """The first error is the one that is reported."""
    writer, finished = async_writer.AsyncWriter(), []

    def fail() -> None:
        raise OSError("full")

    for job in (lambda: finished.append(1), fail, lambda: finished.append(2)):
        writer.submit(job)
    writer.wait()
    assert finished == [1] and str(writer.error) == "full" and writer.finished_jobs == 3


@pytest.mark.parametrize("waits", [True, False])
def test_a_file_holds_what_the_device_had_when_it_was_saved(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, waits: bool
) -> None:
    """On a device the copies to host memory run beside the host, and training goes on after them.

    Here they are as late as the writer's waits allow; without its wait the file holds fresh memory.
    """
    copies, weights = LateCopies(), torch.arange(1000.0)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(
        torch.cuda,
        "synchronize",
        lambda: copies.computing_waits(copies.record()) if waits else None,
    )
    writer = async_writer.AsyncWriter()
    writer.create()
    with copies.copying():
        writer.save({"weights": weights}, tmp_path / "shard.pt")
    weights.zero_()
    writer.wait()
    assert copies.queue and writer.error is None
    written = torch.load(tmp_path / "shard.pt", weights_only=True)["weights"]
    assert torch.equal(written, torch.arange(1000.0)) == waits


def test_a_buffer_is_not_reused_while_the_thread_still_reads_it(tmp_path: Path) -> None:
    writer = async_writer.AsyncWriter()
    for number in range(3):
        writer.create()
        writer.submit(lambda: time.sleep(0.1))
        writer.save(torch.full((1000,), float(number)), tmp_path / f"{number}.pt")
    writer.wait()
    for number in range(3):
        written = torch.load(tmp_path / f"{number}.pt", weights_only=True)
        assert bool((written == number).all())
    assert sum(map(len, writer.buffers.free.values())) + len(writer.buffers.in_use) == 1
