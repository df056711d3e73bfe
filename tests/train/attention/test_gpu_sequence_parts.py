"""Heads that the ranks do not divide, on devices: `make test-gpu` on a CUDA machine."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from oracle import heads

from ropewalk.train import attention
from ropewalk.train.attention import backend, kernels, support
from ropewalk.train.attention.sdpa import sdpa
from ropewalk.train.attention.sequence_parts import parts_of

pytestmark = pytest.mark.gpu
ENDS = (0, 1000, 1001, 3000, 4096)


def borders(lengths: list[int]) -> attention.borders.DocumentBorders:
    cu_seqlens = torch.tensor([0, *lengths]).cumsum(0, dtype=torch.int32)
    return attention.document_borders(cu_seqlens, torch.device("cuda"))


@pytest.mark.parametrize("part", [0, 1])
@pytest.mark.parametrize("window", [None, 300])
@pytest.mark.parametrize("name", kernels.GPU_KERNELS)
def test_a_part_of_a_sequence_has_the_outputs_and_gradients_of_sdpa(
    name: str, window: int | None, part: int
) -> None:
    """The masks of queries that see keys before them are aligned to the bottom right."""
    kernel = kernels.GPU_KERNELS[name]
    if missing := backend.why_unavailable(kernel, support.Requirements()):
        pytest.skip(f"{name}: {missing}")
    segments = parts_of(ENDS, 2, window)[part].segments
    query_lengths, key_lengths = (
        [high - low for low, high in spans]
        for spans in zip(*((x.queries, x.keys) for x in segments), strict=True)
    )
    query, _, _ = heads(7, 1, 128, s=sum(query_lengths), dtype=torch.bfloat16)
    _, key, value = heads(7, 1, 128, s=sum(key_lengths), dtype=torch.bfloat16)
    inputs = [x.detach().cuda().requires_grad_() for x in (query, key, value)]
    options: dict[str, Any] = {"sliding_window": window, "key_borders": borders(key_lengths)}
    output, _ = kernel.function(None, *inputs, None, **options, **borders(query_lengths))
    floats = [x.float() for x in inputs]
    expected, _ = sdpa(None, *floats, None, **options, **borders(query_lengths))
    weight = torch.randn_like(expected)
    actual = (output, *torch.autograd.grad((output.float() * weight).sum(), inputs))
    reference = (expected, *torch.autograd.grad((expected * weight).sum(), inputs))
    for a, b in zip(actual, reference, strict=True):
        assert (a.float() - b.float()).norm() < 2e-2 * b.float().norm()


def losses(folder: Path, name: str, *overrides: str) -> list[float]:
    """Of ten steps of a model of three heads in bf16 on two ranks."""
    scratch = "model.scratch.num_attention_heads=3", "model.scratch.num_key_value_heads=1"
    fixed = ["recipe=base", f"name={name}", *scratch, "train.steps=10", "train.precision=bf16"]
    fixed += ["train.micro_batch_size=8", "train.launcher.ranks_per_node=2"]
    fixed += ["train.schedule.warmup_steps=0", "train.metrics.wandb=off"]
    fixed += [f"runs_dir={folder}", f"cache_dir={folder / 'cache'}"]
    command = [sys.executable, "-m", "ropewalk.launch.cli", "train", *fixed, *overrides]
    # the ranks of the other tests are on the CPU, and say so to DeepSpeed
    environment = {k: v for k, v in os.environ.items() if k != "DS_ACCELERATOR"}
    result = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert result.returncode == 0, result.stdout + result.stderr
    text = (folder / name / "train" / "metrics.jsonl").read_text()
    return [json.loads(line)["loss"] for line in text.splitlines()]


@pytest.mark.gpu(count=2)
@pytest.mark.parametrize("stage", [1, 3])
def test_two_ranks_share_a_sequence_of_three_heads(tmp_path: Path, stage: int) -> None:
    """The exchange of uneven splits over NCCL, with the gradients that come back."""
    zero = f"train.zero_stage={stage}"
    apart = losses(tmp_path, "apart", zero)
    shared = losses(tmp_path, "shared", zero, "train.sp_size=2")
    assert shared == pytest.approx(apart, rel=1e-2)
