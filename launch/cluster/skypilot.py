"""A task of SkyPilot, as plain values. Its schema is in the package skypilot, which a test asks."""

import shlex
from collections.abc import Sequence
from typing import Any

from ropewalk.conf.launchers import LaunchConfig
from ropewalk.launch.cluster.kubernetes import PORT
from ropewalk.launch.cluster.variables import variables

JOINING = (
    "export PET_NNODES=$SKYPILOT_NUM_NODES PET_NODE_RANK=$SKYPILOT_NODE_RANK",
    'export PET_MASTER_ADDR=$(echo "$SKYPILOT_NODE_IPS" | head -n1)',
    f"export PET_MASTER_PORT={PORT}",
)
"""SkyPilot runs the lines of `run` on each node; these tell the command which one it is."""


def task(launch: LaunchConfig, run: str, command: Sequence[str]) -> dict[str, Any]:
    """A task whose nodes each run `command`."""
    settings = launch.skypilot
    resources = {
        "accelerators": settings.accelerators,
        "infra": settings.infra,
        "image_id": settings.image,
        "cpus": settings.cpus,
        "memory": settings.memory,
        "disk_size": settings.disk_gb,
        "use_spot": settings.use_spot or None,
    }
    lines = [*JOINING, shlex.join(command)]
    values = {
        "name": run,
        "num_nodes": launch.nodes or 1,
        "resources": {key: value for key, value in resources.items() if value is not None},
        "envs": variables(launch),
        "file_mounts": {
            path: {"source": source, "mode": "MOUNT"} for path, source in settings.mounts.items()
        },
        "setup": "\n".join(settings.setup),
        "run": "".join(f"{line}\n" for line in lines),
    }
    return {key: value for key, value in values.items() if value}
