"""Trainings on GPUs, on 1, 2, 4 or 8 of them: `make test-gpu`.

The bodies are in tests/helpers/gpu_checks.py, with the device as an argument. Figures go to
tests/benchmarks/gpu.json.
"""

import shutil
from pathlib import Path
from typing import Any

import gpu_checks
import pytest
from gpu_page import GpuPage

from ropewalk.train.attention import backend, support

pytestmark = pytest.mark.gpu
LLAMA = {  # heads of 128, as in Llama 3
    "vocab_size": 32_000,
    "hidden_size": 1024,
    "intermediate_size": 3584,
    "num_hidden_layers": 8,
    "num_attention_heads": 8,
    "num_key_value_heads": 2,
}
WIDE = {
    **LLAMA,
    "hidden_size": 4096,
    "intermediate_size": 14_336,
    "num_hidden_layers": 4,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
}


def available(kernel: str) -> str:
    if missing := backend.why_unavailable(backend.GPU_KERNELS[kernel], support.Requirements()):
        pytest.skip(f"{kernel}: {missing}")
    return kernel


def test_the_chunked_loss_in_bf16_is_near_fp32_without_the_full_logits(gpu_page: GpuPage) -> None:
    gpu_checks.chunked_loss("cuda", 16_384, 576, 49_152, gpu_page)


@pytest.mark.parametrize("stage", [1, 2, 3])
def test_demo_trains_in_bf16_on_the_devices(tmp_path: Path, stage: int) -> None:
    lines = gpu_checks.train_demo("cuda", tmp_path, "demo", f"train.zero_stage={stage}")
    assert lines[-1]["loss"] < lines[0]["loss"] - 0.1


@pytest.mark.gpu(memory_gb=20)
@pytest.mark.parametrize(
    "lengths", [(4096,), (1000, 96, 3000), (65_536,), (40_000, 536, 25_000)], ids=str
)
@pytest.mark.parametrize("kernel", backend.GPU_KERNELS)
def test_a_kernel_trains_as_sdpa(kernel: str, lengths: tuple[int, ...], gpu_page: GpuPage) -> None:
    gpu_checks.kernel_trains("cuda", available(kernel), LLAMA, lengths, gpu_page)


def test_activations_in_host_memory_change_no_bit_and_free_device_memory(gpu_page: GpuPage) -> None:
    gpu_checks.offloading_frees_memory("cuda", LLAMA, 16_384, gpu_page)


@pytest.mark.skipif(shutil.which("g++") is None, reason="compiles kernels: needs g++")
@pytest.mark.parametrize(
    "changes",
    [
        {"memory__tile_mlp_tokens": 2048},
        {"memory__compile": True},
        {"memory__offload_optimizer": True},
    ],
    ids=str,
)
def test_memory_settings_train_the_same(changes: dict[str, Any]) -> None:
    gpu_checks.setting_changes_no_loss("cuda", changes, LLAMA, 8192)


def test_eight_bit_moments_train() -> None:
    pytest.importorskip("bitsandbytes", reason="needs bitsandbytes")
    gpu_checks.loss_falls("cuda", {"optimizer__name": "adamw_8bit"}, LLAMA, 4096)


@pytest.mark.parametrize("quantize", ["none", "nf4"])
def test_an_adapter_trains_and_its_merged_model_loads(tmp_path: Path, quantize: str) -> None:
    """The stage itself reloads and proves the merged model."""
    if quantize == "nf4":
        pytest.importorskip("bitsandbytes", reason="needs pip install 'ropewalk[qlora]'")
    pytest.importorskip("peft", reason="needs pip install 'ropewalk[lora]'")
    lora = ["rank=8", f"quantize={quantize}", "embeddings=true", "norms=true"]
    overrides = [f"train.lora.{override}" for override in lora]
    lines = gpu_checks.train_demo("cuda", tmp_path, "adapter", *overrides)
    assert lines[-1]["loss"] < lines[0]["loss"]
    adapter = tmp_path / "adapter" / "train" / "adapter"
    assert (adapter / "adapter_model.safetensors").is_file()


def test_a_checkpoint_read_by_name_trains(tmp_path: Path) -> None:
    gpu_checks.checkpoint_of_another_stage_trains("cuda", tmp_path)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_resumed_run_ends_as_the_undisturbed_one_to_the_bit(
    tmp_path: Path, precision: str
) -> None:
    gpu_checks.resumes_to_the_bit("cuda", precision, tmp_path)


# at ZeRO 1 on one GPU 22 GB of states, and 11 GB of one layer's tensors for each 32K tokens
@pytest.mark.parametrize(
    "tokens",
    [
        pytest.param(tokens, marks=pytest.mark.gpu(memory_gb=gb))
        for tokens, gb in ((32_768, 45), (65_536, 70), (131_072, 100))
    ],
)
def test_model_flops_and_peak_beside_the_arithmetic(tokens: int, gpu_page: GpuPage) -> None:
    gpu_checks.utilisation("cuda", WIDE, tokens, gpu_page)


@pytest.mark.gpu(count=2, memory_gb=45)
@pytest.mark.parametrize(
    "settings", [{"zero_stage": 2}, {"zero_stage": 3}, {"zero_stage": 3, "sp_size": 2}], ids=str
)
def test_communication_that_computation_does_not_hide(
    settings: dict[str, Any], gpu_page: GpuPage
) -> None:
    gpu_checks.communication("cuda", 2, settings, WIDE, 32_768, gpu_page)
