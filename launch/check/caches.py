"""Whether compiled kernels are kept on a disk of each host.

On a network disk the ranks of several hosts write the same files: stale handles, missing files, and
one rank that dies while the others hang (triton 2688, pytorch 173679).
"""

import getpass
import os
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import psutil

from ropewalk.launch.check.line import Line

NETWORK_DISKS = (
    *("nfs", "lustre", "gpfs", "beegfs", "cifs", "smb", "ceph", "weka", "gluster", "afs", "panfs"),
    *("fuse.ceph", "fuse.gluster", "fuse.sshfs", "fuse.juicefs", "fuse.s3fs", "orangefs", "9p"),
)
"""Beginnings of the types of file systems that several hosts share."""


def cache_folders(environment: Mapping[str, str] = os.environ) -> dict[str, Path]:
    """The variable that names it -> the folder, as set or by default."""
    home = Path(environment.get("HOME", "/"))
    defaults = {
        "TRITON_CACHE_DIR": home / ".triton" / "cache",
        "TORCHINDUCTOR_CACHE_DIR": Path(tempfile.gettempdir()) / f"torchinductor_{_user()}",
        "TORCH_EXTENSIONS_DIR": home / ".cache" / "torch_extensions",
    }
    return {name: Path(environment.get(name, str(path))) for name, path in defaults.items()}


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container's user without a name
        return str(os.getuid())


def shared_caches(folders: Mapping[str, Path], partitions: Sequence[Any]) -> list[str]:
    """`VARIABLE (TYPE)` of each folder on a network disk. `partitions`: psutil's, of this host."""
    mounts = sorted(partitions, key=lambda x: len(x.mountpoint), reverse=True)
    told = []
    for name, folder in folders.items():
        absolute = folder.absolute()
        kind = next((x.fstype for x in mounts if absolute.is_relative_to(x.mountpoint)), "")
        if kind.startswith(NETWORK_DISKS):
            told.append(f"{name} ({kind})")
    return told


def caches_of_this_host() -> list[str]:
    return shared_caches(cache_folders(), psutil.disk_partitions(all=True))


def caches_line(by_rank: Sequence[list[str]]) -> Line:
    """`by_rank`: what each rank has on network disks. One rank writes alone."""
    told = next(filter(None, by_rank), [])
    if len(by_rank) == 1 and told:
        return Line.skipped("caches of kernels", "a single rank writes them")
    return Line.judged(
        "caches of kernels",
        not told,
        f"on a network disk: {', '.join(told)}" if told else "on disks of each host",
        "on a disk of each host",
        "set these variables to a folder of the host, such as /tmp/$USER/triton",
    )
