"""A checkpoint's file is written to its last byte, however little the system takes at once."""

import hashlib
import io
from pathlib import Path
from typing import Any

import pytest
import torch

from ropewalk.train.checkpoint import async_writer


class Grudging(io.FileIO):
    """Takes at most 1,000 bytes a call, as a disk that fills up, or as Linux does beyond 2 GiB."""

    def write(self, data: Any) -> int:
        return super().write(memoryview(data)[:1000])


def test_short_writes_lose_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Path, "open", lambda self, mode, buffering: Grudging(self, mode))
    value = {"weights": torch.arange(10_000.0)}
    said = async_writer.write_file(tmp_path / "shard.pt", value)
    monkeypatch.undo()
    content = (tmp_path / "shard.pt").read_bytes()
    assert said == {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
    assert torch.equal(
        torch.load(tmp_path / "shard.pt", weights_only=True)["weights"], value["weights"]
    )


def test_files_that_lie_there_already_are_counted_as_ours_are(tmp_path: Path) -> None:
    """What DeepSpeed copies from NVMe goes past the writer, and belongs to the checkpoint all the same."""
    swapped = tmp_path / "offloaded_tensors" / "rank0" / "optimizer" / "moments.swp"
    swapped.parent.mkdir(parents=True)
    swapped.write_bytes(b"123")
    written = async_writer.AsyncWriter()
    written.adopt_files(tmp_path, sorted(tmp_path.glob("offloaded_tensors/rank0/**/*")))
    written.wait()
    name = "offloaded_tensors/rank0/optimizer/moments.swp"
    assert written.files == {name: {"bytes": 3, "sha256": hashlib.sha256(b"123").hexdigest()}}
    assert written.requested == [name] and written.error is None
