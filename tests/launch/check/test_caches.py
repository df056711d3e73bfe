"""Caches of compiled kernels on network disks are told."""

from pathlib import Path
from types import SimpleNamespace

import pytest

from ropewalk.launch.check.caches import (
    cache_folders,
    caches_line,
    caches_of_this_host,
    shared_caches,
)
from ropewalk.launch.check.line import FAIL, PASS, SKIP


def partitions(**kinds: str) -> list[SimpleNamespace]:
    return [SimpleNamespace(mountpoint=f"/{name}", fstype=kind) for name, kind in kinds.items()]


@pytest.mark.parametrize("kind", ["nfs4", "lustre", "fuse.sshfs", "wekafs", "cifs"])
def test_a_home_on_a_network_disk(kind: str) -> None:
    mounts = [*partitions(home=kind, tmp="ext4"), SimpleNamespace(mountpoint="/", fstype="ext4")]
    folders = cache_folders({"HOME": "/home/me", "TORCHINDUCTOR_CACHE_DIR": "/tmp/me"})
    told = shared_caches(folders, mounts)
    assert told == [f"TRITON_CACHE_DIR ({kind})", f"TORCH_EXTENSIONS_DIR ({kind})"]
    line = caches_line([[], told])
    assert line.status == FAIL and "TRITON_CACHE_DIR" in line.value and line.way_out
    assert caches_line([told]).status == SKIP
    moved = cache_folders({"HOME": "/home/me", "TRITON_CACHE_DIR": "/tmp/a"})
    assert f"TRITON_CACHE_DIR ({kind})" not in shared_caches(moved, mounts)


def test_a_disk_of_the_host_below_a_shared_one() -> None:
    mounts = [SimpleNamespace(mountpoint="/home/me", fstype="xfs"), *partitions(home="nfs")]
    assert not shared_caches({"TRITON_CACHE_DIR": Path("/home/me/.triton")}, mounts)
    assert shared_caches({"TRITON_CACHE_DIR": Path("/home/you/.triton")}, mounts)


def test_this_host() -> None:
    assert isinstance(caches_of_this_host(), list)
    assert caches_line([[], []]).status == PASS
