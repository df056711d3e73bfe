"""Caches of compiled kernels on network disks are told."""

from pathlib import Path

import pytest

from ropewalk.launch.check.caches import caches_line, shared_caches
from ropewalk.launch.check.line import FAIL, PASS, SKIP
from ropewalk.launch.environment import disks


def test_a_cache_on_a_network_disk(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    shared = tmp_path / "shared"
    shared.mkdir()
    monkeypatch.setattr(disks, "is_network", lambda folder: shared in (folder, *folder.parents))
    env = {"TRITON_CACHE_DIR": f"{shared}/new", "TORCHINDUCTOR_CACHE_DIR": str(tmp_path)}
    env["TORCH_EXTENSIONS_DIR"] = str(tmp_path / "own")
    told = shared_caches(env)
    assert told == [f"TRITON_CACHE_DIR ({shared}/new)"]
    line = caches_line([[], told])
    assert line.status == FAIL and "TRITON_CACHE_DIR" in line.value and line.way_out
    assert caches_line([told]).status == SKIP
    assert not shared_caches(env | {"TRITON_CACHE_DIR": str(tmp_path)})


def test_this_host() -> None:
    assert isinstance(shared_caches(), list)
    assert caches_line([[], []]).status == PASS
