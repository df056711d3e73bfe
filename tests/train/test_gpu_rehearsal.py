"""The bodies of `make test-gpu` on a CPU, at small sizes; and what decides whether they run."""

import json
import os
import runpy
import subprocess
import sys
from pathlib import Path
from typing import Any

import gpu_checks
import gpu_devices
import gpu_page as pages
import gpu_ranks
import pytest
import ranks
import torch
from gpu_page import GpuPage

ROOT = Path(__file__).parents[2]
MARKED = "pytest.mark.gpu"
TINY = {"num_hidden_layers": 4}


@pytest.fixture
def page() -> GpuPage:
    """One that is not written."""
    return GpuPage()


# -- the bodies ------------------------------------------------------------------------------------


def test_the_loss_stays_below_its_arithmetic(page: GpuPage) -> None:
    """On a CPU all tensors are counted; the bound is met with less than a third of slack."""
    gpu_checks.chunked_loss("cpu", 2048, 64, 8192, page)
    (figure,) = page.figures.values()
    bound = figure["expected"]["at_most"]
    assert 0.66 * bound < figure["value"] <= bound


def test_a_loss_that_holds_all_logits_is_above_the_arithmetic(
    page: GpuPage, monkeypatch: pytest.MonkeyPatch
) -> None:
    bytes_of_chunk = gpu_checks.loss.chunk_tokens(8192)
    monkeypatch.setitem(gpu_checks.loss.CHUNK_BYTES, "cpu", 1 << 40)
    monkeypatch.setattr(
        gpu_checks,
        "loss_bytes",
        lambda *sizes, original=gpu_checks.loss_bytes: original(*sizes[:3], bytes_of_chunk),
    )
    with pytest.raises(AssertionError):
        gpu_checks.chunked_loss("cpu", 2048, 64, 8192, page)
    assert not page.figures["loss, peak, cpu"]["holds"]


def test_kernels_and_memory_settings_on_a_cpu(page: GpuPage) -> None:
    gpu_checks.kernel_trains("cpu", "auto", TINY, (40, 24), page)
    gpu_checks.offloading_frees_memory("cpu", {**TINY, "hidden_size": 32}, 64, page)
    gpu_checks.setting_changes_no_loss("cpu", {"memory__tile_mlp_tokens": 24}, TINY, 64)
    gpu_checks.loss_falls("cpu", {}, {**TINY, "vocab_size": 512}, 64)
    assert [*page.figures] == [
        "auto, 64 tokens, checkpointed and offloaded, a step",
        "auto, 64 tokens, checkpointed and offloaded, peak",
        "auto, 64 tokens, checkpointed and offloaded, losses from SDPA's",
    ]


def test_utilisation_on_a_cpu(page: GpuPage) -> None:
    gpu_checks.utilisation("cpu", {**TINY, "hidden_size": 32}, 64, page)
    assert page.figures["4 layers of 32, 64 tokens, model FLOPs"]["value"] > 0


@pytest.mark.parametrize("settings", [{"zero_stage": 2}, {"zero_stage": 3, "sp_size": 2}], ids=str)
def test_communication_on_a_cpu(settings: dict[str, Any], page: GpuPage) -> None:
    result = gpu_checks.communication("cpu", 2, settings, TINY, 64, page)
    assert result.exposed_seconds is not None and result.communication_seconds is not None
    assert 0 <= result.exposed_seconds <= result.communication_seconds


def test_checkpoints_on_a_cpu(tmp_path: Path) -> None:
    for name in ("another", "same"):
        (tmp_path / name).mkdir()
    gpu_checks.checkpoint_of_another_stage_trains("cpu", tmp_path / "another")
    gpu_checks.resumes_to_the_bit("cpu", "fp32", tmp_path / "same")


@pytest.mark.slow
def test_the_demo_on_a_cpu(tmp_path: Path) -> None:
    assert len(gpu_checks.train_demo("cpu", tmp_path, "demo", "train.precision=fp32")) == 2


# -- the environment -------------------------------------------------------------------------------


def test_ranks_on_a_cpu_leave_this_process_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    """A command that a GPU test starts would inherit their accelerator."""
    for name in ranks.ON_CPU:
        monkeypatch.delenv(name, raising=False)
    assert ranks.run(1, gpu_ranks.environment_and_sum, [*ranks.ON_CPU], 3) == [(ranks.ON_CPU, 3.0)]
    runpy.run_path(ranks.__file__)  # nor does its import
    assert not ranks.ON_CPU.keys() & os.environ.keys()


def test_ranks_that_are_new_processes_compute_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on GPUs. Their imports find the environment, and every argument is sent."""
    monkeypatch.setitem(ranks.START_METHODS, "cpu", "spawn")
    results = ranks.run(1, gpu_ranks.environment_and_sum, [*ranks.ON_CPU], 3)
    assert results == [(ranks.ON_CPU, 3.0)]


def test_a_process_for_a_gpu_is_not_told_to_use_the_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {**ranks.ON_CPU, "CUDA_VISIBLE_DEVICES": "1"}.items():
        monkeypatch.setenv(name, value)
    kept = {name: ranks.environment("cuda").get(name) for name in ranks.ON_CPU}
    assert kept == {**dict.fromkeys(ranks.ON_CPU), "CUDA_VISIBLE_DEVICES": "1"}


# -- the devices -----------------------------------------------------------------------------------


def give_gpus(monkeypatch: pytest.MonkeyPatch, count: int, memory_gb: float = 80) -> None:
    class Properties:
        total_memory = memory_gb * 1e9

    monkeypatch.setattr(torch.cuda, "is_available", lambda: count > 0)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: count)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda n: Properties)


@pytest.mark.parametrize(
    ("gpus", "needs", "reason"),
    [
        (0, {}, "needs 1 CUDA device, this machine has none"),
        (1, {"count": 2}, "needs 2 CUDA devices, this machine has 1"),
        (2, {"count": 2, "memory_gb": 90}, "needs 90 GB a GPU, this one has 80"),
        (2, {"count": 2, "memory_gb": 70}, ""),
        (1, {}, ""),
    ],
)
def test_a_test_without_its_gpus_is_skipped_with_the_reason(
    monkeypatch: pytest.MonkeyPatch, gpus: int, needs: dict[str, Any], reason: str
) -> None:
    give_gpus(monkeypatch, gpus)
    assert gpu_devices.why_missing(**needs) == reason


def test_batches_divide_by_the_ranks_of_any_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    for gpus in range(10):
        give_gpus(monkeypatch, gpus)
        world = gpu_devices.ranks_to_start()
        assert 8 % world == 0 and world <= max(1, gpus) < 2 * world or world == 8


def test_without_a_gpu_every_gpu_test_is_skipped_and_that_is_said() -> None:
    files = [path for path in (ROOT / "tests").rglob("test_*.py") if MARKED in path.read_text()]
    options = ["-m", "gpu", "-q", "-p", "no:cacheprovider"]
    result = subprocess.run(
        [sys.executable, "-m", "pytest", *options, *map(str, files)],
        cwd=ROOT,
        env=ranks.environment("cpu"),
        capture_output=True,
        text=True,
    )
    assert result.returncode == 0, result.stdout + result.stderr
    assert "NO GPU TEST RAN; " in result.stdout
    assert "skipped: needs 1 CUDA device, this machine has none" in result.stdout
    assert "skipped: needs 2 CUDA devices, this machine has none" in result.stdout
    assert " passed" not in result.stdout and " failed" not in result.stdout


# -- the page --------------------------------------------------------------------------------------


def test_figures_of_several_calls_are_one_page_and_another_commit_begins_anew(
    tmp_path: Path,
) -> None:
    path = tmp_path / "gpu.json"
    for name, origin in (("a", {"commit": "1"}), ("b", {"commit": "1"}), ("c", {"commit": "2"})):
        page = GpuPage()
        page.record(name, 1.0, "s", at_most=2.0)
        page.write(path, origin)
        names = [figure["name"] for figure in json.loads(path.read_text())["figures"]]
        assert names == {"a": ["a"], "b": ["a", "b"], "c": ["c"]}[name]


def test_a_figure_beyond_its_expectation_is_on_the_page(page: GpuPage) -> None:
    assert page.record("time", 1.0, "s", at_most=2.0)
    assert not page.record("mfu", 30.0, "%", at_least=40.0)
    assert page.record("free", 3.0, "s")
    text = pages.report({"origin": pages.origin_of_figures(), "figures": [*page.figures.values()]})
    assert "time: 1 s (expected at most 2: holds)" in text
    assert "mfu: 30 % (expected at least 40: DOES NOT HOLD)" in text
    assert text.endswith("free: 3 s")


def test_communication_is_exposed_where_nothing_computes() -> None:
    computes = [(0.0, 4.0), (3.0, 5.0), (8.0, 9.0)]
    assert gpu_ranks.exposed([(4.0, 7.0)], computes) == 2
    assert gpu_ranks.exposed([(4.0, 7.0), (6.0, 10.0)], computes) == 4
    assert gpu_ranks.exposed([(1.0, 2.0)], computes) == 0
    assert gpu_ranks.exposed([(1.0, 2.0)], []) == 1
    assert gpu_ranks.exposed([], computes) == 0
