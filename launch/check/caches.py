"""Whether compiled kernels are kept on a disk of each host.

On a network disk the ranks of several hosts write the same files: stale handles, missing files, and
one rank that dies while the others hang (triton 2688, pytorch 173679).
"""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from ropewalk.conf.artifacts.free_space import existing
from ropewalk.launch.check.line import Line
from ropewalk.launch.environment import disks

NAMES = ("TRITON_CACHE_DIR", "TORCHINDUCTOR_CACHE_DIR", "TORCH_EXTENSIONS_DIR")


def shared_caches(env: Mapping[str, str] = os.environ) -> list[str]:
    """`VARIABLE (FOLDER)` of each cache of this host that lies on a network disk."""
    folders = disks.caches(env)
    return [
        f"{name} ({folders[name]})"
        for name in NAMES
        if disks.is_network(existing(Path(folders[name])))
    ]


def caches_line(by_rank: Sequence[list[str]]) -> Line:
    """`by_rank`: what each rank has on network disks. One rank writes alone."""
    shared = next(filter(None, by_rank), [])
    if len(by_rank) == 1 and shared:
        return Line.skipped("caches of kernels", "a single rank writes them")
    return Line.judged(
        "caches of kernels",
        not shared,
        f"on a network disk: {', '.join(shared)}" if shared else "on disks of each host",
        "on a disk of each host",
        "set these variables to a folder of the host, such as /tmp/$USER/triton",
    )
