"""A checkpoint's file is written to its last byte, however little the system takes at once."""

import hashlib
import io
from pathlib import Path
from typing import Any

import pytest
import torch

from ropewalk.train.checkpoint import writer


class Grudging(io.FileIO):
    """Takes at most 1,000 bytes a call, as a disk that fills up, or as Linux does beyond 2 GiB."""

    def write(self, data: Any) -> int:
        return super().write(memoryview(data)[:1000])


def test_short_writes_lose_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Path, "open", lambda self, mode, buffering: Grudging(self, mode))
    value = {"weights": torch.arange(10_000.0)}
    said = writer.write_file(tmp_path / "shard.pt", value)
    monkeypatch.undo()
    content = (tmp_path / "shard.pt").read_bytes()
    assert said == {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
    assert torch.equal(torch.load(tmp_path / "shard.pt", weights_only=True)["weights"], value["weights"])
