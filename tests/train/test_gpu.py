"""Tests of the kernels that a CPU does not have: `make test-gpu` on a CUDA machine."""

import json
import os
import subprocess
import sys

import pytest
import torch

from ropewalk.train import loss
from ropewalk.train.zero.mesh import start_distributed

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]


def test_the_chunked_loss_in_bf16_is_near_fp32_without_the_full_logits():
    x = torch.randn(16384, 576, device="cuda", dtype=torch.bfloat16, requires_grad=True)
    head = torch.randn(49152, 576, device="cuda", dtype=torch.bfloat16, requires_grad=True) * 0.02
    labels = torch.randint(0, 49152, (16384,), device="cuda")
    torch.cuda.reset_peak_memory_stats()
    inputs_bytes = torch.cuda.memory_allocated()
    loss.summed_cross_entropy(x, head, labels).backward()
    assert torch.cuda.max_memory_allocated() - inputs_bytes < 16384 * 49152 * 4 / 4
    x, labels = x[:2048], labels[:2048]
    logits = x.float() @ head.float().T
    expected = torch.nn.functional.cross_entropy(logits, labels, reduction="sum")
    actual = loss.summed_cross_entropy(x, head, labels)
    assert actual.item() == pytest.approx(expected.item(), rel=1e-3)


def train_demo(folder, *overrides):
    """Rows of metrics.jsonl of 20 steps in bf16."""
    overrides = ["recipe=demo", "name=gpu", "train.steps=20", "train.precision=bf16", *overrides]
    overrides += ["train.metrics.wandb=off", f"runs_dir={folder}", f"cache_dir={folder / 'cache'}"]
    command = [sys.executable, "-m", "ropewalk.launch.cli", "train", *overrides]
    result = subprocess.run(command, env=dict(os.environ), capture_output=True, text=True)
    assert result.returncode == 0, result.stdout + result.stderr
    metrics = (folder / "gpu" / "train" / "metrics.jsonl").read_text()
    return [json.loads(line) for line in metrics.splitlines()]


@pytest.mark.parametrize("stage", [1, 2, 3])
def test_demo_trains_in_bf16_on_the_device(tmp_path, stage):
    rows = train_demo(tmp_path, f"train.zero_stage={stage}")
    assert rows[-1]["loss"] < rows[0]["loss"] - 0.1


def trained(**train: object) -> tuple[list[float], int]:
    """Losses of three steps of a small Llama in bf16 and the peak memory, on one rank."""
    import memory_runs

    torch.cuda.reset_peak_memory_stats()
    wide = {"hidden_size": 512, "intermediate_size": 1536, "num_hidden_layers": 8}
    settings = {"precision": "bf16", "zero_stage": 1, **train}
    result = memory_runs.train(settings, steps=3, length=16384, **wide)
    return result["losses"], torch.cuda.max_memory_allocated()


@pytest.fixture
def one_rank(monkeypatch: pytest.MonkeyPatch) -> None:
    environment = {"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "1"}
    environment |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "29517"}
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    start_distributed()


def test_activations_in_host_memory_change_no_bit_and_free_device_memory(one_rank):
    expected, peak = trained()
    losses, offloaded_peak = trained(memory__offload_activations=True)
    assert losses == expected
    # 8 layers x 16,384 tokens x 512 x 2 bytes are 128 MiB; two layers' may be on the device at once
    assert peak - offloaded_peak > 5 * 16384 * 512 * 2


@pytest.mark.parametrize(
    "train",
    [
        {"memory__tile_mlp_tokens": 2048},
        {"memory__compile": True},
        {"memory__offload_optimizer": True},
    ],
)
def test_memory_settings_train_the_same_on_the_device(one_rank, train):
    expected, _ = trained()
    assert trained(**train)[0] == pytest.approx(expected, rel=1e-2)


def test_eight_bit_moments_train_on_the_device(one_rank):
    pytest.importorskip("bitsandbytes", reason="needs bitsandbytes")
    losses, _ = trained(optimizer__name="adamw_8bit", optimizer__lr=1e-3)
    assert losses[-1] < losses[0]


@pytest.mark.parametrize("quantize", ["none", "nf4"])
def test_an_adapter_trains_on_the_device_and_its_merged_model_loads(tmp_path, quantize):
    """The stage itself reloads and proves the merged model."""
    if quantize == "nf4":
        pytest.importorskip(
            "bitsandbytes", reason="needs bitsandbytes: pip install 'ropewalk[qlora]'"
        )
    lora = ["rank=8", f"quantize={quantize}", "embeddings=true", "norms=true"]
    rows = train_demo(tmp_path, *(f"train.lora.{override}" for override in lora))
    assert rows[-1]["loss"] < rows[0]["loss"]
    assert (tmp_path / "gpu" / "train" / "adapter" / "adapter_model.safetensors").is_file()


def test_a_checkpoint_read_by_name_trains_on_the_device(one_rank, tmp_path):
    """ZeRO 1 into ZeRO 2: the optimizer's step count must lie where its kernels expect it."""
    import checkpoint_runs

    from ropewalk.launch.config.compose import compose

    overrides = (
        "recipe=demo data.seq_len=64 train.global_batch_tokens=256 train.micro_batch_size=1 "
        "train.metrics.wandb=off train.precision=bf16 train.steps=4 train.optimizer.lr=1e-2 "
        "train.checkpoint.interval_steps=2 train.schedule.warmup_steps=0"
    )
    data, results = checkpoint_runs.make_data(tmp_path / "data"), []
    for stage in (1, 2):
        config = compose([*overrides.split(), f"train.zero_stage={stage}"])
        results.append(checkpoint_runs.train(checkpoint_runs.RunSpec(tmp_path, config, data)))
    assert [result["first_step"] for result in results] == [0, 2]
    assert results[1]["losses"][-2:] == pytest.approx(results[0]["losses"][-2:], rel=1e-2)
