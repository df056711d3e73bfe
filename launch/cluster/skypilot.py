"""A task of SkyPilot, as plain values. Its schema is in the package skypilot, which a test asks."""

import shlex
from collections.abc import Sequence
from typing import Any

from ropewalk.conf.launchers import LaunchConfig
from ropewalk.launch.cluster.variables import variables


def task(launch: LaunchConfig, run: str, command: Sequence[str]) -> dict[str, Any]:
    """A task whose nodes each run `command`, which reads SkyPilot's variables."""
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
    values = {
        "name": run,
        "num_nodes": launch.nodes or 1,
        "resources": {key: value for key, value in resources.items() if value is not None},
        "envs": variables(launch),
        "file_mounts": {
            path: {"source": source, "mode": "MOUNT"} for path, source in settings.mounts.items()
        },
        "setup": "\n".join(settings.setup),
        "run": f"{shlex.join(command)}\n",
    }
    return {key: value for key, value in values.items() if value}
