"""Evaluation on CUDA devices: `make test-gpu`."""

import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import torch
from commands import command, corpus
from safetensors.torch import load_file

pytestmark = pytest.mark.gpu
two_devices = pytest.mark.gpu(count=2)
OF_A_CPU = ("DS_ACCELERATOR", "OMP_NUM_THREADS")  # set by the helpers of tests on a CPU


def ropewalk(work: Path, verb: str, *overrides: str) -> str:
    env = {name: value for name, value in os.environ.items() if name not in OF_A_CPU}
    arguments = [*command(work, verb, "name=gpu", "train.precision=bf16"), *overrides]
    result = subprocess.run(arguments, env=env, capture_output=True, text=True, timeout=900)
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout


def results(work: Path) -> Any:
    return json.loads((work / "runs" / "gpu" / "eval" / "results.json").read_text())


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that one device measured."""
    folder = tmp_path_factory.mktemp("work")
    corpus(folder)
    ropewalk(folder, "run", "train.launcher.ranks_per_node=1")
    return folder


def test_models_are_measured_in_the_precision_of_the_training(work: Path) -> None:
    assert "The models were measured in bf16." in results(work)["notes"]
    content = json.loads((work / "runs" / "gpu" / "eval" / "manifest.json").read_text())
    assert '"precision": "bf16"' in json.dumps(content)


@two_devices
@pytest.mark.parametrize("stage", [0, 3])
def test_all_devices_give_the_results_of_one(work: Path, stage: int) -> None:
    """The passes are the same ones, on other devices: only what a kernel adds in another order
    may differ."""
    expected = results(work)["models"]
    shutil.rmtree(work / "runs" / "gpu" / "eval")
    ropewalk(
        work,
        "eval",
        f"eval.zero_stage={stage}",
        "train.launcher.ranks_per_node=1",
        f"eval.ranks_per_node={torch.cuda.device_count()}",
    )
    result = results(work)["models"]
    for label, rows in expected.items():
        assert result[label]["passkey"] == rows["passkey"]
        for task in ("nll_by_position", "context_gain"):
            losses = [row["nll"] for row in rows[task]]
            assert [row["nll"] for row in result[label][task]] == pytest.approx(losses, rel=1e-4)


@two_devices
def test_a_partitioned_model_is_exported_from_its_devices(work: Path) -> None:
    """Zero steps at ZeRO 3: the export is the rescaled base, cast to bf16."""
    ropewalk(
        work,
        "train",
        "name=untrained",
        "train.steps=0",
        "train.zero_stage=3",
        "train.launcher.ranks_per_node=2",
    )
    from ropewalk.train.base import BASES

    base = load_file(BASES / "demo" / "model.safetensors")
    export = load_file(work / "runs" / "untrained" / "train" / "model" / "model.safetensors")
    assert export.keys() == base.keys()
    assert all(torch.equal(export[name], base[name].bfloat16()) for name in base)
