"""What a CPU cannot confirm: `make test-gpu` on a CUDA machine. The same code paths, other innermost kernels."""

import json
import os
import subprocess
import sys

import pytest
import torch

from ropewalk.train import loss

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]


def test_chunked_loss_in_bf16_is_near_fp32_and_holds_no_whole_logits():
    x = torch.randn(16384, 576, device="cuda", dtype=torch.bfloat16, requires_grad=True)
    head = torch.randn(49152, 576, device="cuda", dtype=torch.bfloat16, requires_grad=True) * 0.02
    labels = torch.randint(0, 49152, (16384,), device="cuda")
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    found = loss.summed_cross_entropy(x, head, labels)
    found.backward()
    assert torch.cuda.max_memory_allocated() - before < 16384 * 49152 * 4 / 4
    rows = slice(0, 2048)
    wanted = torch.nn.functional.cross_entropy(x[rows].float() @ head.float().T, labels[rows], reduction="sum")
    assert loss.summed_cross_entropy(x[rows], head, labels[rows]).item() == pytest.approx(wanted.item(), rel=1e-3)


@pytest.mark.parametrize("stage", [1, 2, 3])
def test_demo_trains_in_bf16_on_the_device(tmp_path, stage):
    words = f"recipe=demo name=gpu train.steps=20 train.precision=bf16 train.zero_stage={stage} train.wandb=off"
    places = [f"runs_dir={tmp_path}", f"cache_dir={tmp_path / 'cache'}"]
    command = [sys.executable, "-m", "ropewalk.launch.run", "train", *words.split(), *places]
    done = subprocess.run(command, env=dict(os.environ), capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    rows = [json.loads(line) for line in (tmp_path / "gpu" / "train" / "metrics.jsonl").read_text().splitlines()]
    assert rows[-1]["loss"] < rows[0]["loss"] - 0.1
