"""What of ZeRO only a device shows: `make test-gpu` on a CUDA machine."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]


def step_lines(folder: Path, name: str, *overrides: str) -> list[dict[str, float]]:
    """The lines of ten steps of the demo in bf16, trained by a process of its own."""
    fixed = ["recipe=demo", f"name={name}", "train.steps=10", "train.precision=bf16"]
    fixed += ["train.metrics.wandb=off", f"runs_dir={folder}", f"cache_dir={folder / 'cache'}"]
    command = [sys.executable, "-m", "ropewalk.launch.cli", "train", *fixed, *overrides]
    # the ranks of the other tests are on the CPU, and say so to DeepSpeed
    environment = {k: v for k, v in os.environ.items() if k not in ("DS_ACCELERATOR",)}
    result = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert result.returncode == 0, result.stdout + result.stderr
    text = (folder / name / "train" / "metrics.jsonl").read_text()
    return [json.loads(line) for line in text.splitlines()]


@pytest.mark.parametrize("stage", [1, 2, 3])
def test_norms_of_an_offloaded_optimizer_are_those_without(tmp_path: Path, stage: int) -> None:
    """In the first step, whose gradients do not depend on the optimizer."""
    lines = [
        step_lines(tmp_path, name, f"train.zero_stage={stage}", *overrides)[0]
        for name, overrides in (("here", ()), ("away", ("train.memory.offload_optimizer=true",)))
    ]
    here, away = (line["grad_norm_by_group"] for line in lines)
    assert away == pytest.approx(here, rel=1e-3)


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two CUDA devices")
@pytest.mark.parametrize("stage", [1, 2])
def test_overlapped_reductions_change_no_loss(tmp_path: Path, stage: int) -> None:
    """Many small buckets, so that a reduction that nobody waits for would be read too early."""
    ranks = ["train.launcher.ranks_per_node=2", "train.global_batch_tokens=16384"]
    fixed = [*ranks, f"train.zero_stage={stage}", "train.memory.zero_reduce_bucket_size=1100000"]
    after, beside = (
        [
            line["loss"]
            for line in step_lines(
                tmp_path, name, *fixed, f"train.memory.zero_overlap_comm={overlap}"
            )
        ]
        for name, overlap in (("after", "false"), ("beside", "true"))
    )
    assert beside == pytest.approx(after, rel=1e-4)
