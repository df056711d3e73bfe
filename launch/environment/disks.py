"""Caches and folders: where they are, on which kind of file system, and with how much room."""

import getpass
import os
import re
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path

from ropewalk.conf.artifacts.free_space import existing, gib
from ropewalk.launch.environment.shown import path as shown_path

MOUNTS = Path("/proc/self/mountinfo")
NETWORK = re.compile(
    r"(nfs4?|cifs|smb\w*|lustre|gpfs|beegfs|ceph|glusterfs|afs|9p|pvfs2|orangefs|panfs|wekafs"
    r"|fuse\.(sshfs|s3fs|gcsfuse|juicefs|ceph\S*|glusterfs|rclone|beegfs|mount-s3|blobfuse2?))$"
)
LOCAL = re.compile(r"(ext[234]|xfs|btrfs|zfs|tmpfs|overlay|ramfs|f2fs|bcachefs|jfs|apfs|vfat)$")
Environment = Mapping[str, str]


def caches(env: Environment) -> dict[str, str]:
    """The folder of each cache, as its library chooses it."""
    home = os.path.expanduser("~")
    xdg = env.get("XDG_CACHE_HOME") or os.path.join(home, ".cache")
    hub = env.get("HF_HOME") or os.path.join(xdg, "huggingface")
    return {
        "HF_HOME": hub,
        "HF_HUB_CACHE": env.get("HF_HUB_CACHE") or os.path.join(hub, "hub"),
        "TORCHINDUCTOR_CACHE_DIR": env.get("TORCHINDUCTOR_CACHE_DIR")
        or os.path.join(tempfile.gettempdir(), f"torchinductor_{_user()}"),
        "TRITON_CACHE_DIR": env.get("TRITON_CACHE_DIR")
        or os.path.join(env.get("TRITON_HOME") or home, ".triton", "cache"),
        "TORCH_EXTENSIONS_DIR": env.get("TORCH_EXTENSIONS_DIR")
        or os.path.join(home, ".cache", "torch_extensions"),
    }


def _user() -> str:
    """As torch._inductor names its folder."""
    try:
        return re.sub(r'[\\/:*?"<>|]', "_", getpass.getuser())
    except (OSError, KeyError, ImportError):
        return str(os.getuid())


def described(folder: str) -> str:
    """`~/.cache/x (ext4, node-local), 71.0 GiB free`; also of a folder that is still to be made."""
    path = Path(os.path.expanduser(folder))
    nearest = existing(path)
    state = "" if path.is_dir() else ", not there yet"
    if not os.access(nearest, os.W_OK | os.X_OK):
        state += ", may not be written to"
    free = gib(shutil.disk_usage(nearest).free)
    return f"{shown_path(folder)} ({file_system(nearest)}), {free} free{state}"


def file_system(folder: Path, mounts: Path = MOUNTS) -> str:
    """Kind of the file system, and whether it is this machine's own or one of a network."""
    kind = mounted(os.path.realpath(folder), mounts)
    if not kind:
        return "unknown file system"
    if NETWORK.match(kind):
        return f"{kind}, network"
    return f"{kind}, node-local" if LOCAL.match(kind) else f"{kind}, local or network unknown"


def is_network(folder: Path) -> bool:
    """Whether the folder is on a disk of other machines too, as far as its kind is known."""
    return NETWORK.match(mounted(os.path.realpath(folder))) is not None


def mounted(folder: str, mounts: Path = MOUNTS) -> str:
    """The kind of the file system that is mounted above a real path; empty where Linux's list
    cannot be read."""
    try:
        lines = mounts.read_text(errors="surrogateescape").splitlines()
    except OSError:
        return ""
    kinds = {}
    for line in lines:
        left, _, right = line.partition(" - ")
        point = re.sub(r"\\(\d{3})", lambda match: chr(int(match[1], 8)), left.split()[4])
        if folder == point or f"{folder}/".startswith(f"{point.rstrip('/')}/"):
            kinds[point] = right.split()[0]  # a later mount covers an earlier one
    return kinds[max(kinds, key=len)] if kinds else ""
