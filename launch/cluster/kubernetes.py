"""Manifests for Kubernetes: a TrainJob (Kubeflow Trainer) and a JobSet, as plain values.

They are held against the schemas of kubeflow-trainer-api and kubernetes-validate by test; no
cluster has run them. Schemas: trainer.kubeflow.org/v1alpha1, jobset.x-k8s.io/v1alpha2.
"""

import re
from collections.abc import Sequence
from typing import Any

from ropewalk.conf.errors import NOT_PROVEN, REFUSED
from ropewalk.conf.launchers import LaunchConfig
from ropewalk.launch.cluster.variables import variables

Manifest = dict[str, Any]
CONTAINER = "node"
"""The name of the container and of the replicated job in Kubeflow's runtimes."""
PORT = 29400
"""Where the commands of all pods meet, as in Kubeflow's runtimes."""
INDEX = "metadata.annotations['batch.kubernetes.io/job-completion-index']"
MAX_NAME = 50
"""Characters; pods add a number and a suffix to it, and may have 63."""


def object_name(run: str) -> str:
    """A run's name as Kubernetes takes one: `llama_3.1` is `llama-3-1`."""
    name = re.sub(r"[^a-z0-9]+", "-", run.lower()).strip("-")
    return (name[:MAX_NAME] or "run").rstrip("-")


def train_job(launch: LaunchConfig, run: str, command: Sequence[str]) -> Manifest:
    """A TrainJob whose pods each run `command`; its runtime sets PET_NODE_RANK and the like."""
    settings = launch.kubernetes
    trainer = {
        "image": settings.image,
        "command": [*command],
        "numNodes": launch.nodes or 1,
        "resourcesPerNode": _resources(launch),
        "env": _environment(launch),
    }
    container = {"name": CONTAINER, "volumeMounts": _mounts(launch)}
    pod = {"spec": {"containers": [container], "volumes": _volumes(launch)}}
    job = {"name": CONTAINER, "template": {"spec": {"template": pod}}}
    patch = {"template": {"spec": {"replicatedJobs": [job]}}}
    spec = {
        "runtimeRef": {"name": settings.runtime},
        "trainer": trainer,
        "runtimePatches": [{"manager": "ropewalk", "trainingRuntimeSpec": patch}],
    }
    return _object("trainer.kubeflow.org/v1alpha1", "TrainJob", launch, run, spec)


def job_set(launch: LaunchConfig, run: str, command: Sequence[str]) -> Manifest:
    """A JobSet with one Job, whose pods find their number and the first pod's name in PET_*.

    A refused configuration or a failed gate is not started again; a stop or a failure is.
    """
    nodes, name = launch.nodes or 1, object_name(run)
    rules = [{"action": "FailJob", "onExitCodes": _exit_codes()}]
    job = {
        "completionMode": "Indexed",
        "completions": nodes,
        "parallelism": nodes,
        "backoffLimit": 0,
        "podFailurePolicy": {"rules": rules},
        "template": {"spec": pod_spec(launch, name, command)},
    }
    reasons = {
        "name": "refused",
        "action": "FailJobSet",
        "onJobFailureReasons": ["PodFailurePolicy"],
    }
    spec = {
        "network": {"enableDNSHostnames": True},
        "failurePolicy": {"maxRestarts": launch.kubernetes.max_restarts, "rules": [reasons]},
        "replicatedJobs": [{"name": CONTAINER, "replicas": 1, "template": {"spec": job}}],
    }
    return _object("jobset.x-k8s.io/v1alpha2", "JobSet", launch, run, spec)


def pod_spec(launch: LaunchConfig, name: str, command: Sequence[str]) -> Manifest:
    """Of one pod of a JobSet called `name`."""
    joining = [
        {"name": "PET_NNODES", "value": str(launch.nodes or 1)},
        {"name": "PET_NODE_RANK", "valueFrom": {"fieldRef": {"fieldPath": INDEX}}},
        {"name": "PET_MASTER_ADDR", "value": f"{name}-{CONTAINER}-0-0.{name}"},
        {"name": "PET_MASTER_PORT", "value": str(PORT)},
    ]
    container = {
        "name": CONTAINER,
        "image": launch.kubernetes.image,
        "command": [*command],
        "env": [*joining, *_environment(launch)],
        "resources": _resources(launch),
        "volumeMounts": _mounts(launch),
    }
    return {"restartPolicy": "Never", "containers": [container], "volumes": _volumes(launch)}


def _object(version: str, kind: str, launch: LaunchConfig, run: str, spec: Manifest) -> Manifest:
    settings = launch.kubernetes
    metadata: Manifest = {"name": object_name(run)}
    if settings.namespace is not None:
        metadata["namespace"] = settings.namespace
    if settings.queue is not None:
        metadata["labels"] = {"kueue.x-k8s.io/queue-name": settings.queue}
    return {"apiVersion": version, "kind": kind, "metadata": metadata, "spec": spec}


def _exit_codes() -> Manifest:
    values = [REFUSED, NOT_PROVEN]
    return {"containerName": CONTAINER, "operator": "In", "values": values}


def _environment(launch: LaunchConfig) -> list[Manifest]:
    plain = [{"name": name, "value": value} for name, value in variables(launch).items()]
    secret: list[Manifest] = []
    for name, source in launch.kubernetes.secret_env.items():
        secret_name, _, key = source.partition("/")
        reference = {"secretKeyRef": {"name": secret_name, "key": key}}
        secret.append({"name": name, "valueFrom": reference})
    return plain + secret


def _resources(launch: LaunchConfig) -> Manifest:
    """Requests and limits are equal: such a pod is the last to be put out of its node."""
    settings = launch.kubernetes
    sizes: dict[str, Any] = {"cpu": settings.cpus, "memory": settings.memory}
    sizes = {name: size for name, size in sizes.items() if size is not None}
    if settings.gpus_per_node:
        sizes[settings.gpu_resource] = str(settings.gpus_per_node)
    return {"requests": sizes, "limits": {**sizes}}


def _volumes(launch: LaunchConfig) -> list[Manifest]:
    settings = launch.kubernetes
    memory = {"medium": "Memory", "sizeLimit": settings.shm_size}
    claims = [
        {"name": claim, "persistentVolumeClaim": {"claimName": claim}} for claim in settings.volumes
    ]
    return [{"name": "shm", "emptyDir": memory}, *claims]


def _mounts(launch: LaunchConfig) -> list[Manifest]:
    claims = launch.kubernetes.volumes.items()
    mounts = [{"name": claim, "mountPath": path} for claim, path in claims]
    return [{"name": "shm", "mountPath": "/dev/shm"}, *mounts]
