"""Settings of the files that are written for Kubernetes and SkyPilot."""

import re
from collections.abc import Iterator
from dataclasses import dataclass

from ropewalk.conf.rules import setting

QUANTITY = re.compile(r"\d+(\.\d+)?(m|[EPTGMk]i?|Ki)?")
"""Of Kubernetes: 16, 500m, 200Gi."""
LABEL = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?")
"""A name in Kubernetes (RFC 1123)."""


@dataclass(kw_only=True)
class KubernetesConfig:
    """What a TrainJob or a JobSet asks for."""

    image: str | None = None
    """The container image, with ropewalk in it. Must be set."""
    namespace: str | None = None
    """Unset: that of the command that applies the manifest."""
    runtime: str = "torch-distributed"
    """The ClusterTrainingRuntime of the TrainJob."""
    gpus_per_node: int = setting(8, at_least=0)
    """GPUs of each pod, which are its ranks where train.launcher.ranks_per_node is unset."""
    gpu_resource: str = "nvidia.com/gpu"
    """What the cluster calls a GPU."""
    cpus: str | None = None
    """Cores of a pod, such as 32; unset: no request."""
    memory: str | None = None
    """Host memory of a pod, such as 200Gi; unset: no request."""
    shm_size: str = "64Gi"
    """Of /dev/shm, which NCCL and data loaders share between processes."""
    volumes: dict[str, str] = setting(factory=dict)
    """Claims (PersistentVolumeClaim) by name, each with the path where it is mounted. runs_dir and
    cache_dir belong on one that all pods can write."""
    secret_env: dict[str, str] = setting(factory=dict)
    """Variables from secrets: `{WANDB_API_KEY: NAME/KEY}`."""
    queue: str | None = None
    """Kueue's local queue; unset: none."""
    max_restarts: int = setting(3, at_least=0)
    """How often a JobSet restarts its pods after a failure or a stop; a run resumes."""

    def problems(self, prefix: str) -> Iterator[str]:
        for name in ("cpus", "memory", "shm_size"):
            value = getattr(self, name)
            if value is not None and not QUANTITY.fullmatch(value):
                yield (
                    f"{prefix}{name} is {value}; it must be a quantity of Kubernetes; e.g. "
                    f"{'32' if name == 'cpus' else '200Gi'}"
                )
        for claim, path in self.volumes.items():
            if not LABEL.fullmatch(claim) or not path.startswith("/"):
                yield (
                    f"{prefix}volumes.{claim} is {path}; it must be a claim's name and an absolute "
                    f"path; e.g. '{prefix}volumes={{data: /data}}'"
                )
        for variable, secret in self.secret_env.items():
            if secret.count("/") != 1 or not all(secret.split("/")):
                yield (
                    f"{prefix}secret_env.{variable} is {secret}; it must be NAME/KEY of a secret; "
                    f"e.g. '{prefix}secret_env={{{variable}: wandb/key}}'"
                )

    def kind_problems(self, prefix: str) -> Iterator[str]:
        """Where manifests are to be written."""
        if self.image is None:
            yield (
                f"{prefix}image is unset; a pod needs a container image with ropewalk in it; set "
                f"{prefix}image"
            )


@dataclass(kw_only=True)
class SkypilotConfig:
    """What a task of SkyPilot asks for."""

    accelerators: str | None = None
    """GPUs of each node, as `H100:8`. Must be set."""
    infra: str | None = None
    """Where, such as aws/us-east-1, k8s or gcp; unset: wherever it is cheapest."""
    image: str | None = None
    """A container image, such as docker:NAME; unset: SkyPilot's own."""
    use_spot: bool = False
    """Nodes that may be taken away; `sky jobs launch` starts the task again, and it resumes."""
    cpus: str | None = None
    """At least so many cores: `32+`."""
    memory: str | None = None
    """At least so many GB of host memory: `200+`."""
    disk_gb: int | None = setting(None, at_least=1, way_out="e.g. 1024")
    """Of the nodes' own disk; unset: SkyPilot's default."""
    mounts: dict[str, str] = setting(factory=dict)
    """Paths on the nodes, each with the bucket that is mounted there:
    `{/data: s3://NAME}`. runs_dir and cache_dir belong on one."""
    setup: list[str] = setting(factory=list)
    """Lines of shell, once on each new node, such as `pip install ropewalk`."""

    def kind_problems(self, prefix: str) -> Iterator[str]:
        """Where a task is to be written."""
        if self.accelerators is None:
            yield (
                f"{prefix}accelerators is unset; a task must say which GPUs it needs; e.g. "
                f"{prefix}accelerators=H100:8"
            )
