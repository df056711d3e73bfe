"""What `make test-gpu` asserts, as functions of a device and sizes.

test_gpu_rehearsal.py runs each on a CPU at sizes that take seconds, so that no mistake of the test
itself waits for a machine with a GPU. Trainings run in ranks of their own: memory of one is not in
the peak of the next.
"""

import json
import subprocess
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import checkpoint_runs
import gpu_devices
import gpu_ranks
import pytest
import ranks
import torch
from checkpoint_runs import RunSpec, equal_arrays
from gpu_page import GpuPage
from gpu_ranks import Result, Training
from torch.distributed._tools.mem_tracker import MemTracker

from ropewalk.train import loss
from ropewalk.train.memory.offloaded_activations import LAYERS_IN_FLIGHT

BF16 = {"precision": "bf16", "zero_stage": 1, "optimizer__lr": 1e-3}
CHECKPOINTED = {"memory__activation_checkpointing": True, "memory__offload_activations": True}
WORKSPACE = {"cpu": 0, "cuda": 2**27}
"""Bytes of cuBLAS and cuBLASLt (32 MiB each on Hopper), and 1 MiB that the allocator may add to a
block."""


def run(device: str, training: Training, world: int = 1) -> Result:
    """Rank 0's result."""
    result: Result = ranks.run(world, gpu_ranks.train, training, device=device)[0]
    return result


# -- one device ------------------------------------------------------------------------------------


def chunked_loss(device: str, tokens: int, hidden: int, vocab: int, page: GpuPage) -> None:
    """Near fp32, without the logits of all tokens: its peak is bounded by one chunk's."""
    generator = torch.Generator(device).manual_seed(0)
    x, head = (
        torch.randn(n, hidden, device=device, dtype=torch.bfloat16, generator=generator)
        for n in (tokens, vocab)
    )
    x.requires_grad_()
    head = head.mul_(0.02).requires_grad_()
    labels = torch.randint(0, vocab, (tokens,), device=device, generator=generator)
    peak = _peak(device, lambda: loss.summed_cross_entropy(x, head, labels).backward())
    bound = loss_bytes(tokens, hidden, vocab, loss.chunk_tokens(vocab, device)) + WORKSPACE[device]
    assert page.record(f"loss, peak, {device}", peak, "bytes", at_most=bound)
    few = tokens // 8
    logits = x[:few].float() @ head.float().T
    expected = torch.nn.functional.cross_entropy(logits, labels[:few], reduction="sum")
    actual = loss.summed_cross_entropy(x[:few], head, labels[:few])
    assert actual.item() == pytest.approx(expected.item(), rel=1e-3)


def loss_bytes(tokens: int, hidden: int, vocab: int, chunk: int) -> int:
    """What the loss may hold at a time in bf16, beside its inputs.

    Of a chunk the logits in bf16 and fp32 and their softmax in fp32, while softmax and slope of the
    chunk before it are still referred to. Of the hidden states: those with a label, their
    gradients, these scaled, and the gradient by all positions. Of the head: its gradient in fp32, a
    product in bf16, and the scaled gradient.
    """
    chunk = min(chunk, tokens)
    return chunk * vocab * (2 + 4 + 4 + 4 + 2) + 4 * tokens * hidden * 2 + vocab * hidden * 8


def _peak(device: str, work: Any) -> int:
    """Bytes that `work` adds at its peak: the allocator's, on a CPU of all its tensors."""
    if device == "cuda":
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        work()
        return torch.cuda.max_memory_allocated() - before
    with MemTracker() as tracker:
        work()
    snapshot = tracker.get_tracker_snapshot("peak")
    return int(snapshot[torch.device(device)]["Total"])


def kernel_trains(
    device: str, kernel: str, shape: dict[str, Any], lengths: tuple[int, ...], page: GpuPage
) -> None:
    """In bf16, checkpointed and offloaded: the losses are near those of SDPA."""
    training = Training({**BF16, **CHECKPOINTED}, shape, lengths, steps=3)
    expected, actual = (
        run(device, _with(training, attention__kernel=name)) for name in ("sdpa", kernel)
    )
    apart = max(abs(a / b - 1) for a, b in zip(actual.losses, expected.losses, strict=True))
    label = f"{kernel}, {training.tokens} tokens, checkpointed and offloaded"
    page.record(f"{label}, a step", actual.step_seconds, "s")
    _record_peak(f"{label}, peak", actual, page)
    assert page.record(f"{label}, losses from SDPA's", apart, "relative", at_most=1e-2)


def _record_peak(name: str, result: Result, page: GpuPage) -> None:
    """Beside the arithmetic; a kernel's workspace may be above it."""
    page.record(name, result.peak_bytes, "bytes", at_most=1.15 * result.expected_bytes)


def _with(training: Training, **settings: Any) -> Training:
    return replace(training, settings={**training.settings, **settings})


def offloading_frees_memory(device: str, shape: dict[str, Any], tokens: int, page: GpuPage) -> None:
    """No bit changes, and only the layers in flight have their inputs on the device."""
    settings = {**BF16, "memory__activation_checkpointing": True, "memory__keep_attention": False}
    here = Training({**settings, "deterministic": True}, shape, (tokens,), steps=3)
    expected, actual = run(device, here), run(device, _with(here, **CHECKPOINTED))
    assert actual.losses == expected.losses
    layers = shape["num_hidden_layers"] - LAYERS_IN_FLIGHT - 1
    if device == "cuda":
        freed = expected.peak_bytes - actual.peak_bytes
        least = layers * tokens * shape["hidden_size"] * 2
        assert page.record("offloaded activations, freed", freed, "bytes", at_least=least)


def setting_changes_no_loss(
    device: str, changes: dict[str, Any], shape: dict[str, Any], tokens: int
) -> None:
    training = Training(BF16, shape, (tokens,), steps=3)
    expected = run(device, training).losses
    assert run(device, _with(training, **changes)).losses == pytest.approx(expected, rel=1e-2)


def loss_falls(device: str, settings: dict[str, Any], shape: dict[str, Any], tokens: int) -> None:
    losses = run(device, Training({**BF16, **settings}, shape, (tokens,), steps=4)).losses
    assert losses[-1] < losses[0]


def utilisation(device: str, shape: dict[str, Any], tokens: int, page: GpuPage) -> None:
    """Model FLOPs a second, the peak and MFU of one long document, beside the arithmetic."""
    settings = {**BF16, "attention__kernel": "auto", "memory__activation_checkpointing": True}
    result = run(device, Training(settings, shape, (tokens,), steps=6))
    label = f"{shape['num_hidden_layers']} layers of {shape['hidden_size']}, {tokens} tokens"
    page.record(f"{label}, model FLOPs", result.flops / result.step_seconds / 1e12, "TFLOP/s")
    _record_peak(f"{label}, peak", result, page)
    if result.expected_seconds is not None:
        most = 1.25 * result.expected_seconds
        page.record(f"{label}, a step", result.step_seconds, "s", at_most=most)
        rates = gpu_ranks.device_rates(torch.cuda.get_device_name())
        peak = rates.peak_flops if rates else float("nan")
        mfu, expected = (
            100 * result.flops / seconds / peak
            for seconds in (result.step_seconds, result.expected_seconds)
        )
        page.record(f"{label}, MFU", mfu, "%", at_least=0.8 * expected)


def resumes_to_the_bit(device: str, precision: str, folder: Path) -> None:
    """A run that was stopped after three of six steps ends as the one that was not."""
    config = checkpoint_runs.settings(
        "train.deterministic=true", f"train.precision={precision}", "train.zero_stage=2"
    )
    data = checkpoint_runs.make_data(folder / "data")
    undisturbed, stopped = (
        RunSpec(folder / name, config, data, options={"until": 3}) for name in ("once", "twice")
    )
    for spec in (undisturbed, stopped):
        spec.folder.mkdir()
    start = partial(ranks.run, 1, device=device)
    expected = start(checkpoint_runs.train, undisturbed)[0]
    assert start(checkpoint_runs.train_until, stopped) == [75]
    result = start(checkpoint_runs.train, stopped)[0]
    assert result["first_step"] == 3
    assert result["losses"] == expected["losses"]
    assert equal_arrays(result["weights"], expected["weights"])


def checkpoint_of_another_stage_trains(device: str, folder: Path) -> None:
    """ZeRO 1 into ZeRO 2: the optimizer's step count must lie where its kernels expect it."""
    data, results = checkpoint_runs.make_data(folder / "data"), []
    for stage in (1, 2):
        config = checkpoint_runs.settings(
            "train.precision=bf16", "train.steps=4", f"train.zero_stage={stage}"
        )
        spec = RunSpec(folder, config, data)
        results.append(ranks.run(1, checkpoint_runs.train, spec, device=device)[0])
    assert [result["first_step"] for result in results] == [0, 2]
    assert results[1]["losses"][-2:] == pytest.approx(results[0]["losses"][-2:], rel=1e-2)


# -- several devices -------------------------------------------------------------------------------


def communication(
    device: str, world: int, settings: dict[str, Any], shape: dict[str, Any], tokens: int,
    page: GpuPage,
) -> Result:  # fmt: skip
    """Communication of a step that no computation hides, by torch's profiler."""
    training = Training({**BF16, **settings}, shape, (tokens,), steps=4, profiled=True)
    result = run(device, training, world)
    label = f"{world} ranks, {', '.join(f'{key} {value}' for key, value in settings.items())}"
    assert result.communication_seconds and result.exposed_seconds is not None
    page.record(f"{label}, communication", result.communication_seconds, "s")
    share = result.exposed_seconds / result.step_seconds
    page.record(f"{label}, exposed", share, "of a step", at_most=0.2)
    return result


# -- the command line ------------------------------------------------------------------------------


def train_demo(device: str, folder: Path, name: str, *overrides: str) -> list[dict[str, Any]]:
    """Lines of metrics.jsonl of 20 steps in bf16 (on a CPU: 2), on 1, 2, 4 or 8 ranks."""
    world, steps = (gpu_devices.ranks_to_start(), 20) if device == "cuda" else (1, 2)
    fixed = ["recipe=demo", f"name={name}", f"train.steps={steps}", "train.precision=bf16"]
    fixed += ["train.micro_batch_size=1", f"train.global_batch_tokens={8 * 2048}"]
    fixed += [f"train.launcher.ranks_per_node={world}", "train.metrics.wandb=off"]
    fixed += [f"runs_dir={folder}", f"cache_dir={folder / 'cache'}"]
    command = [sys.executable, "-m", "ropewalk.launch.cli", "train", *fixed, *overrides]
    result = subprocess.run(
        command, env=ranks.environment(device), capture_output=True, text=True, cwd=folder
    )
    assert result.returncode == 0, result.stdout + result.stderr
    text = (folder / name / "train" / "metrics.jsonl").read_text()
    return [json.loads(line) for line in text.splitlines()]
