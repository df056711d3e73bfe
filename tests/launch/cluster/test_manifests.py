"""Manifests and the task, held against the schemas of the libraries whose they are."""

import copy
import json
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from ropewalk.conf.errors import ConfigError
from ropewalk.conf.schema import Config
from ropewalk.launch.cluster.command import as_yaml, manifests
from ropewalk.launch.cluster.kubernetes import object_name, pod_spec
from ropewalk.launch.config.compose import compose

WORDS = ["recipe=demo", "runs_dir=/data/runs", "data.sources.mine.path=/data/my docs"]
SITE = [
    *("launch.nodes=2", "launch.kubernetes.image=lab/ropewalk:1", "launch.env={NCCL_DEBUG: INFO}"),
    *("launch.kubernetes.volumes={data: /data}", "launch.kubernetes.queue=research"),
    *("launch.kubernetes.secret_env={WANDB_API_KEY: wandb/key}", "launch.kubernetes.cpus=32"),
    *("launch.kubernetes.memory=200Gi", "launch.kubernetes.namespace=team", "name=My_run.1"),
]


def config(*words: str) -> Config:
    return compose(["recipe=demo", *words])


@pytest.fixture(scope="module")
def written() -> dict[str, dict[str, Any]]:
    """What the files say, by name."""
    texts = manifests(config("launch=kubernetes", *SITE), "run", WORDS)
    return {file: yaml.safe_load(as_yaml(manifest)) for file, manifest in texts.items()}


def model(file: str) -> Any:
    import kubeflow_trainer_api.models as models

    return {
        "trainjob.yaml": models.TrainerV1alpha1TrainJob,
        "jobset.yaml": models.JobsetV1alpha2JobSet,
    }[file]


@pytest.mark.parametrize("file", ["trainjob.yaml", "jobset.yaml"])
def test_a_manifest_is_what_its_schema_reads(file: str, written: dict[str, Any]) -> None:
    """The schema drops a field that it does not know: nothing may be missing behind it."""
    assert json.loads(json.dumps(model(file).from_dict(written[file]).to_dict())) == written[file]


@pytest.mark.parametrize("file", ["trainjob.yaml", "jobset.yaml"])
def test_the_schema_notices_a_wrong_field(file: str, written: dict[str, Any]) -> None:
    broken = copy.deepcopy(written[file])
    broken["spec"]["runtimeReference"] = {}
    assert model(file).from_dict(broken).to_dict() != broken
    broken["spec"] = "none"
    with pytest.raises(ValueError):
        model(file).from_dict(broken)


def test_the_pods_of_a_job_set_are_pods(written: dict[str, Any]) -> None:
    import kubernetes_validate

    job = written["jobset.yaml"]["spec"]["replicatedJobs"][0]["template"]["spec"]
    for kind, version, spec in (("Job", "batch/v1", job), ("Pod", "v1", job["template"]["spec"])):
        document = {"apiVersion": version, "kind": kind, "metadata": {"name": "a"}, "spec": spec}
        kubernetes_validate.validate(document, "1.31", strict=True)
        broken = {**document, "spec": {**spec, "comand": []}}
        with pytest.raises(kubernetes_validate.ValidationError):
            kubernetes_validate.validate(broken, "1.31", strict=True)


def test_both_kinds_run_the_command_with_the_same_resources(written: dict[str, Any]) -> None:
    trainer = written["trainjob.yaml"]["spec"]["trainer"]
    job = written["jobset.yaml"]["spec"]["replicatedJobs"][0]["template"]["spec"]
    (container,) = job["template"]["spec"]["containers"]
    assert trainer["command"] == container["command"]
    assert trainer["command"][:4] == ["ropewalk", "run", *WORDS[:2]]
    assert trainer["command"][4:] == [WORDS[2], "launch=external", "launch.slurm.requeue=false"]
    assert trainer["resourcesPerNode"] == container["resources"]
    assert container["resources"]["limits"] == {
        "cpu": "32", "memory": "200Gi", "nvidia.com/gpu": "8"
    }  # fmt: skip
    assert trainer["numNodes"] == job["completions"] == job["parallelism"] == 2
    assert all(variable in container["env"] for variable in trainer["env"])
    assert {"name": "NCCL_DEBUG", "value": "INFO"} in trainer["env"]
    assert written["jobset.yaml"]["metadata"]["name"] == "my-run-1"


def test_the_pods_find_the_first_one_by_the_name_that_a_job_set_gives_it() -> None:
    """JobSet's documentation of `network`: <jobSet>-<replicatedJob>-<job>-<pod>.<subdomain>, with
    the JobSet's name as the subdomain."""
    (container,) = pod_spec(config("launch=kubernetes", *SITE).launch, "a", [])["containers"]
    env = {variable["name"]: variable.get("value") for variable in container["env"]}
    assert env["PET_MASTER_ADDR"] == "a-node-0-0.a" and env["PET_NNODES"] == "2"


def test_the_pods_of_a_job_set_join_as_those_of_a_train_job_do() -> None:
    """Kubeflow's runtime sets the same variables."""
    from ropewalk.train.launcher import world

    (container,) = pod_spec(config("launch=kubernetes", *SITE).launch, "a", [])["containers"]
    env = {variable["name"]: variable.get("value", "1") for variable in container["env"]}
    read = world.read(env)
    assert (read.rank, read.size, read.address, read.port) == (1, 2, "a-node-0-0.a", 29400)


@pytest.mark.parametrize(
    ("run", "name"),
    [("demo", "demo"), ("Llama_3.1-a", "llama-3-1-a"), ("--", "run"), ("x" * 49 + "_y", "x" * 49)],
)  # fmt: skip
def test_a_runs_name_becomes_one_of_kubernetes(run: str, name: str) -> None:
    assert object_name(run) == name


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["launch=kubernetes"], "launch.kubernetes.image is unset; a pod needs"),
        (["launch=skypilot"], "launch.skypilot.accelerators is unset; a task must say"),
        (["launch.kubernetes.memory=lots"], "launch.kubernetes.memory is lots; it must be a quan"),
        (["launch.kubernetes.volumes={data: here}"], "volumes.data is here; it must be a claim's"),
        (["launch.kubernetes.secret_env={KEY: abc}"], "secret_env.KEY is abc; it must be NAME/KEY"),
    ],
)
def test_what_cannot_be_written_is_refused(words: list[str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        config(*words)


SKY = [
    *("launch=skypilot", "launch.skypilot.accelerators=H100:8", "launch.nodes=2", "name=two"),
    *("launch.skypilot.mounts={/data: s3://lab}", "launch.skypilot.setup=[pip install ropewalk]"),
]


def test_the_line_of_a_task_is_the_command_of_a_node(tmp_path: Path) -> None:
    task = manifests(config(*SKY), "run", WORDS)["sky.yaml"]
    (tmp_path / "ropewalk").write_text("#!/bin/sh\nprintf '%s|' \"$@\"\n")
    (tmp_path / "ropewalk").chmod(0o755)
    env = {"PATH": f"{tmp_path}:/usr/bin:/bin"}
    done = subprocess.run(["bash", "-c", task["run"]], env=env, capture_output=True, text=True)
    own = "launch=external|launch.slurm.requeue=false|"
    assert done.stdout == f"run|{'|'.join(WORDS)}|{own}"


def test_a_task_file_says_what_was_set() -> None:
    task = yaml.safe_load(as_yaml(manifests(config(*SKY), "run", WORDS)["sky.yaml"]))
    assert (task["num_nodes"], task["resources"]) == (2, {"accelerators": "H100:8"})
    assert task["file_mounts"] == {"/data": {"source": "s3://lab", "mode": "MOUNT"}}
