"""What a CPU cannot confirm: `make test-gpu` on a CUDA machine. The same code paths, other innermost kernels."""

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
    wanted = torch.nn.functional.cross_entropy(
        x[rows].float() @ head.float().T, labels[rows], reduction="sum"
    )
    assert loss.summed_cross_entropy(x[rows], head, labels[rows]).item() == pytest.approx(
        wanted.item(), rel=1e-3
    )


@pytest.mark.parametrize("stage", [1, 2, 3])
def test_demo_trains_in_bf16_on_the_device(tmp_path, stage):
    words = f"recipe=demo name=gpu train.steps=20 train.precision=bf16 train.zero_stage={stage} train.metrics.wandb=off"
    places = [f"runs_dir={tmp_path}", f"cache_dir={tmp_path / 'cache'}"]
    command = [sys.executable, "-m", "ropewalk.launch.cli", "train", *words.split(), *places]
    done = subprocess.run(command, env=dict(os.environ), capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    rows = [
        json.loads(line)
        for line in (tmp_path / "gpu" / "train" / "metrics.jsonl").read_text().splitlines()
    ]
    assert rows[-1]["loss"] < rows[0]["loss"] - 0.1


def trained(**train: object) -> tuple[list[float], int]:
    """Losses of three steps of a small Llama in bf16 and the peak of the last, in a process of one rank."""
    import memory_runs

    torch.cuda.reset_peak_memory_stats()
    wide = {"hidden_size": 512, "intermediate_size": 1536, "num_hidden_layers": 8}
    found = memory_runs.train(
        {"precision": "bf16", "zero_stage": 1, **train}, steps=3, length=16384, **wide
    )
    return found["losses"], torch.cuda.max_memory_allocated()


@pytest.fixture
def one_rank(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {
        "RANK": "0",
        "LOCAL_RANK": "0",
        "WORLD_SIZE": "1",
        "MASTER_ADDR": "127.0.0.1",
    }.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("MASTER_PORT", "29517")
    start_distributed()


def test_activations_in_host_memory_change_no_bit_and_leave_the_device(one_rank):
    stay, most = trained()
    away, least = trained(memory__offload_activations=True)
    assert away == stay
    # 8 layers x 16,384 tokens x 512 x 2 bytes are 128 MiB; two of the eight may be on the device at once
    assert most - least > 5 * 16384 * 512 * 2


@pytest.mark.parametrize(
    "train",
    [
        {"memory__tile_mlp_tokens": 2048},
        {"memory__compile": True},
        {"memory__offload_optimizer": True},
    ],
)
def test_what_saves_memory_trains_alike_on_the_device(one_rank, train):
    plain, _ = trained()
    assert trained(**train)[0] == pytest.approx(plain, rel=1e-2)


def test_moments_of_eight_bits_train_on_the_device(one_rank):
    pytest.importorskip("bitsandbytes", reason="needs bitsandbytes")
    losses, _ = trained(optimizer__name="adamw_8bit", optimizer__lr=1e-3)
    assert losses[-1] < losses[0]


@pytest.mark.parametrize("quantize", ["none", "nf4"])
def test_an_adapter_trains_on_the_device_and_its_merged_model_reads(tmp_path, quantize):
    """The stage itself reloads and proves what was merged."""
    if quantize == "nf4":
        pytest.importorskip(
            "bitsandbytes", reason="needs bitsandbytes: pip install 'ropewalk[qlora]'"
        )
    words = f"recipe=demo name=gpu train.steps=20 train.precision=bf16 train.lora.rank=8 train.lora.quantize={quantize} train.metrics.wandb=off"
    places = [
        f"runs_dir={tmp_path}",
        f"cache_dir={tmp_path / 'cache'}",
        "train.lora.embeddings=true",
        "train.lora.norms=true",
    ]
    command = [sys.executable, "-m", "ropewalk.launch.cli", "train", *words.split(), *places]
    done = subprocess.run(command, env=dict(os.environ), capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    rows = [
        json.loads(line)
        for line in (tmp_path / "gpu" / "train" / "metrics.jsonl").read_text().splitlines()
    ]
    assert rows[-1]["loss"] < rows[0]["loss"]
    assert (tmp_path / "gpu" / "train" / "adapter" / "adapter_model.safetensors").is_file()


def test_a_checkpoint_read_by_name_trains_on_the_device(one_rank, tmp_path):
    """ZeRO 1's into ZeRO 2: the optimizer's count of steps must be where its kernels want it."""
    import checkpoint_runs

    from ropewalk.launch.config.compose import compose

    small = "data.seq_len=64 train.global_batch_tokens=256 train.micro_batch_size=1 train.metrics.wandb=off train.precision=bf16"
    steps = "train.steps=4 train.checkpoint.interval_steps=2 train.optimizer.lr=1e-2 train.schedule.warmup_steps=0"
    data, found = checkpoint_runs.make_data(tmp_path / "data"), []
    for stage in (1, 2):
        config = compose(
            ["recipe=demo", f"train.zero_stage={stage}", *small.split(), *steps.split()]
        )
        found.append(checkpoint_runs.train(checkpoint_runs.RunSpec(tmp_path, config, data)))
    assert [run["first_step"] for run in found] == [0, 2]
    assert found[1]["losses"][-2:] == pytest.approx(found[0]["losses"][-2:], rel=1e-2)
