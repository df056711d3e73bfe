"""The task file beside SkyPilot's own schema. skypilot lives in an environment of its own: it needs
other versions of what is here (`make test-skypilot` makes it, and names its Python)."""

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from ropewalk.launch.cluster.command import as_yaml, manifests
from ropewalk.launch.config.compose import compose

PYTHON = os.environ.get("SKYPILOT_PYTHON")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(PYTHON is None, reason="SKYPILOT_PYTHON is unset: make test-skypilot"),
]
PROGRAM = """
import json, sys
import jsonschema, sky, yaml
from sky.utils import schemas
try:
    jsonschema.validate(yaml.safe_load(open(sys.argv[1])), schemas.get_task_schema())
    task = sky.Task.from_yaml(sys.argv[1])
    (resources,) = task.resources
    shown = {"name": task.name, "nodes": task.num_nodes, "envs": task.envs, "run": task.run}
    print(json.dumps({**shown, "accelerators": resources.accelerators, "spot": resources.use_spot}))
except Exception as error:
    print(json.dumps({"error": f"{type(error).__name__}: {error}"}))
"""
WORDS = [
    *("recipe=demo", "launch=skypilot", "launch.skypilot.accelerators=H100:8", "launch.nodes=2"),
    *("launch.skypilot.setup=[pip install ropewalk]", "launch.env={NCCL_DEBUG: INFO}"),
]
FULL = [
    *("launch.skypilot.infra=aws/us-east-1", "launch.skypilot.use_spot=true"),
    *("launch.skypilot.cpus=32+", "launch.skypilot.memory=200+", "launch.skypilot.disk_gb=1024"),
    "launch.skypilot.image=docker:lab/ropewalk:1",
]


def read(task: dict[str, Any], folder: Path) -> dict[str, Any]:
    """What SkyPilot reads in a task's file, or its error."""
    assert PYTHON is not None
    (folder / "sky.yaml").write_text(as_yaml(task))
    done = subprocess.run(
        [PYTHON, "-c", PROGRAM, folder / "sky.yaml"],
        env={**os.environ, "HOME": str(folder), "SKYPILOT_DISABLE_USAGE_COLLECTION": "1"},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.stdout, done.stderr
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return result


@pytest.mark.parametrize("more", [[], FULL], ids=["least", "all"])
def test_skypilot_reads_the_task_that_was_meant(more: list[str], tmp_path: Path) -> None:
    task = manifests(compose([*WORDS, *more]), "run", WORDS)["sky.yaml"]
    result = read(task, tmp_path)
    assert (result["name"], result["nodes"], result["spot"]) == ("demo", 2, bool(more))
    assert result["accelerators"] == {"H100": 8} and result["envs"]["NCCL_DEBUG"] == "INFO"
    assert result["run"] == task["run"]


def test_the_schema_notices_a_wrong_field(tmp_path: Path) -> None:
    task = manifests(compose(WORDS), "run", WORDS)["sky.yaml"]
    assert "error" in read({**task, "numnodes": 2}, tmp_path)
    assert yaml.safe_load(as_yaml(task)) == task
