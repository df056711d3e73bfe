"""Variables that every rank gets unless the user set them, each against a failure of launches.

`launch.env` and the shell of the command win over them.
"""

import os
import tempfile
from collections.abc import Mapping
from pathlib import Path

from ropewalk.conf.launchers import LaunchConfig

COMMON = {
    "PYTHONFAULTHANDLER": "1",
    "CUDA_DEVICE_ORDER": "PCI_BUS_ID",
    "TORCH_FR_BUFFER_SIZE": "2000",
    "TORCH_NCCL_DUMP_ON_TIMEOUT": "1",
}
"""A stack where a library crashes; devices numbered as nvidia-smi does; torch's record of the last
collectives (its flight recorder), dumped when one does not end."""
CACHES = {
    "TORCHINDUCTOR_CACHE_DIR": "inductor",
    "TORCH_EXTENSIONS_DIR": "extensions",
    "TRITON_CACHE_DIR": "triton",
}
"""Of compiled kernels. On a disk that nodes share they meet half-written files of each other."""


def missing(launch: LaunchConfig, several_machines: bool, env: Mapping[str, str]) -> dict[str, str]:
    """Those that `env` lacks. Caches go to `launch.scratch`, and without one to this machine's
    temporary folder where several machines would share the library's own folder."""
    ours = {**COMMON, **launch.env}
    if launch.scratch is not None:
        folder = os.path.expandvars(os.path.expanduser(launch.scratch))
        ours = {**{name: f"{folder}/{part}" for name, part in CACHES.items()}, **ours}
    elif several_machines:
        ours = {**_away_from_shared_disks(env), **ours}
    return {name: value for name, value in ours.items() if name not in env}


def _away_from_shared_disks(env: Mapping[str, str]) -> dict[str, str]:
    from ropewalk.launch.check.caches import shared_caches

    shared = {line.split()[0] for line in shared_caches(env)}
    folder = Path(tempfile.gettempdir(), f"ropewalk-{os.getuid()}")
    return {name: str(folder / part) for name, part in CACHES.items() if name in shared}
