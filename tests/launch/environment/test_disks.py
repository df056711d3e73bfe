"""Caches, file systems and room, beside the libraries' own constants and `df`."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from ropewalk.launch.environment import disks

MOUNTS = """\
1 0 8:1 / / rw - ext4 /dev/sda1 rw
2 1 0:30 / /home rw shared:1 - nfs4 filer:/home rw
3 1 0:31 / /lustre rw - lustre mgs@tcp:/fs rw
4 1 0:32 / /scratch rw - xfs /dev/nvme0n1 rw
5 4 0:33 / /scratch/my\\040bucket rw - fuse.gcsfuse bucket rw
6 1 0:34 / /work rw - fuse.unknown x rw
7 1 0:35 / /home2 rw - ext4 /dev/sdb rw
8 1 0:36 / /tmp rw - ext4 /dev/sdc rw
9 1 0:37 / /tmp rw - tmpfs tmpfs rw
"""


@pytest.mark.parametrize(
    ("folder", "expected"),
    [
        ("/etc", "ext4, node-local"),
        ("/home", "nfs4, network"),
        ("/home/a/.cache", "nfs4, network"),
        ("/homeless", "ext4, node-local"),
        ("/home2/a", "ext4, node-local"),
        ("/lustre/x", "lustre, network"),
        ("/scratch/x", "xfs, node-local"),
        ("/scratch/my bucket/x", "fuse.gcsfuse, network"),
        ("/work", "fuse.unknown, local or network unknown"),
        ("/tmp/x", "tmpfs, node-local"),
    ],
)
def test_a_folder_lies_on_the_nearest_mount(tmp_path: Path, folder: str, expected: str) -> None:
    (tmp_path / "mountinfo").write_text(MOUNTS)
    kind = disks.mounted(folder, tmp_path / "mountinfo")
    assert kind == expected.split(",")[0]
    is_network, is_local = bool(disks.NETWORK.match(kind)), bool(disks.LOCAL.match(kind))
    assert (is_network, is_local) == (expected.split(", ")[1] == "network", "node" in expected)


@pytest.mark.parametrize("folder", ["/", "/tmp", "/dev/shm", "/proc"])
def test_file_systems_are_those_of_findmnt(folder: str) -> None:
    command = ["findmnt", "-n", "-o", "FSTYPE", "--target", folder]
    name = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()[-1]
    assert disks.mounted(os.path.realpath(folder)) == name


def test_the_room_is_that_of_df(tmp_path: Path) -> None:
    df = ["df", "-B1", "--output=avail", str(tmp_path)]
    free = int(subprocess.run(df, capture_output=True, text=True, check=True).stdout.split()[-1])
    text = disks.described(str(tmp_path / "not" / "yet"))
    shown = float(text.partition("), ")[2].partition(" GiB")[0].replace(",", ""))
    assert shown == pytest.approx(free / 2**30, abs=0.3) and text.endswith("not there yet")
    assert not (tmp_path / "not").exists()


def test_a_folder_that_may_not_be_written_to() -> None:
    assert "may not be written to" in disks.described("/proc/sys") or os.access(
        "/proc/sys", os.W_OK
    )


def test_without_linux_there_is_no_list_of_mounts(tmp_path: Path) -> None:
    assert disks.file_system(tmp_path, tmp_path / "nowhere") == "unknown file system"


CACHES = ("HF_HOME", "HF_HUB_CACHE", "TORCHINDUCTOR_CACHE_DIR", "TRITON_CACHE_DIR")
VARIABLES = (*CACHES, "XDG_CACHE_HOME", "TRITON_HOME", "TORCH_EXTENSIONS_DIR")
ENVIRONMENTS = [
    {},
    {"XDG_CACHE_HOME": "/x"},
    {"HF_HOME": "/h", "TORCHINDUCTOR_CACHE_DIR": "/i", "TRITON_CACHE_DIR": "/t"},
    {"HF_HUB_CACHE": "/hub", "TRITON_HOME": "/th"},
]
ASK_LIBRARIES = """
import importlib, json, os, sys
from huggingface_hub import constants
from torch._inductor.runtime.cache_dir_utils import default_cache_dir
from triton import knobs
for environment in json.loads(sys.argv[1]):
    os.environ |= environment
    importlib.reload(constants)
    inductor = os.environ.get("TORCHINDUCTOR_CACHE_DIR") or default_cache_dir()
    print(json.dumps([constants.HF_HOME, constants.HF_HUB_CACHE, inductor, knobs.cache.dir]))
    for name in environment:
        del os.environ[name]
"""


def test_the_caches_are_those_of_their_libraries() -> None:
    clean = {name: value for name, value in os.environ.items() if name not in VARIABLES}
    command = [sys.executable, "-c", ASK_LIBRARIES, json.dumps(ENVIRONMENTS)]
    done = subprocess.run(command, env=clean, capture_output=True, text=True, check=True)
    for environment, line in zip(ENVIRONMENTS, done.stdout.splitlines(), strict=True):
        caches = disks.caches(clean | environment)
        assert [caches[name] for name in CACHES] == json.loads(line), environment
