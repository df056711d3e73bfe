"""Settings of memory: DeepSpeed's config accepts them, and impossible ones are refused."""

from pathlib import Path
from typing import Any

import pytest
import torch
from deepspeed.runtime.zero.config import DeepSpeedZeroConfig
from models import tiny_model
from train_settings import train_config

from ropewalk.conf.errors import ConfigError
from ropewalk.conf.rules import content, problems
from ropewalk.conf.train import TrainConfig
from ropewalk.train.memory import tiled_mlp
from ropewalk.train.optim import optimizer
from ropewalk.train.zero import config
from ropewalk.train.zero.config import check_offload_device, deepspeed_config


def train(**changes: Any) -> TrainConfig:
    return train_config(**{"steps": 1, "optimizer__lr": 1e-3, **changes})  # type: ignore[arg-type]


def test_deepspeed_reads_the_devices_of_offloading(tmp_path: Path) -> None:
    offloading = {
        "zero_stage": 3,
        "memory__offload_optimizer": True,
        "memory__offload_params": True,
    }
    on_disk = train(**offloading, memory__offload_path=str(tmp_path))
    assert list(problems(on_disk, "train.")) == []
    for settings, device, path in ((train(**offloading), "cpu", None), (on_disk, "nvme", tmp_path)):
        read = DeepSpeedZeroConfig(**deepspeed_config(settings, 1)["zero_optimization"])
        assert read.stage == 3
        for part in (read.offload_optimizer, read.offload_param):
            assert (part.device, part.nvme_path) == (device, path)
    default = DeepSpeedZeroConfig(**deepspeed_config(train(), 1)["zero_optimization"])
    assert default.offload_optimizer is None


@pytest.mark.parametrize(
    ("changes", "rule"),
    [
        (
            {"memory__offload_params": True, "zero_stage": 2},
            "train.memory.offload_params is True; it needs train.zero_stage 3, not 2",
        ),
        (
            {"memory__offload_optimizer": True, "zero_stage": 0, "precision": "fp32"},
            "train.memory.offload_optimizer is True; ZeRO 0",
        ),
        (
            {"memory__offload_optimizer": True, "optimizer__name": "adamw_8bit"},
            "train.optimizer.name is adamw_8bit; offloaded states",
        ),
        (
            {"memory__offload_path": "/nowhere"},
            "train.memory.offload_path is /nowhere; nothing is offloaded to it",
        ),
        (
            {"memory__offload_path": "/nowhere", "memory__offload_optimizer": True},
            "train.memory.offload_path is /nowhere; it needs train.zero_stage 3, not 1",
        ),
        (
            {"memory__offload_activations": True, "memory__activation_checkpointing": False},
            "train.memory.offload_activations is True",
        ),
        (
            {"memory__keep_attention": True, "memory__activation_checkpointing": False},
            "train.memory.keep_attention is True; without activation checkpointing",
        ),
        (
            {"memory__compile": True, "zero_stage": 3},
            "train.memory.compile is True; ZeRO 3 gathers weights",
        ),
        (
            {"memory__tile_mlp_tokens": -1},
            "train.memory.tile_mlp_tokens is -1; it must be at least 0",
        ),
        (
            {"optimizer__name": "sgd"},
            "train.optimizer.name is sgd; it must be one of adamw, adamw_8bit; choose one",
        ),
    ],
)
def test_settings_that_exclude_one_another_are_refused(changes: dict[str, Any], rule: str) -> None:
    assert any(problem.startswith(rule) for problem in problems(train(**changes), "train."))


def test_another_optimizer_changes_the_content_and_memory_settings_do_not() -> None:
    assert "name" not in content(train())["optimizer"]
    assert content(train(optimizer__name="adamw_8bit"))["optimizer"]["name"] == "adamw_8bit"
    memory = {"offload_activations": True, "tile_mlp_tokens": 4, "compile": True}
    settings = train(**{f"memory__{key}": value for key, value in memory.items()})
    assert content(settings) == content(train())


@pytest.mark.parametrize("exists", [False, True])
def test_a_path_that_is_missing_or_read_only_is_refused(
    tmp_path: Path, exists: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "disk"
    if exists:
        folder.mkdir()
        monkeypatch.setattr("os.access", lambda *_: False)  # root may write anywhere
    settings = train(zero_stage=3, memory__offload_params=True, memory__offload_path=str(folder))
    rule = "it must be a folder that every rank can write to, and"
    assert [rule in problem for problem in problems(settings, "train.")] == [True]
    settings.launcher.hostfile = "hosts"
    assert list(problems(settings, "train.")) == []  # the ranks are on other machines
    with pytest.raises(ConfigError, match=rule):
        check_offload_device(settings)


def test_a_disk_without_libaio_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = train(zero_stage=3, memory__offload_params=True, memory__offload_path=str(tmp_path))
    monkeypatch.setattr(config, "_has_async_io", lambda: False)
    with pytest.raises(ConfigError, match="by libaio, which is not here; install libaio's headers"):
        check_offload_device(settings)
    monkeypatch.setattr(config, "_has_async_io", lambda: True)
    check_offload_device(settings)


def test_bf16_on_a_device_without_it_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    check_offload_device(train(precision="bf16"))  # a CPU computes in it
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "Old GPU")
    monkeypatch.setattr(
        torch.cuda, "is_bf16_supported", lambda including_emulation=True: including_emulation
    )
    with pytest.raises(
        ConfigError,
        match="train.precision is bf16; the device must compute in it, and Old GPU does not",
    ):
        check_offload_device(train(precision="bf16"))
    check_offload_device(train(precision="fp32"))


def test_a_missing_package_is_refused_with_the_way_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"it needs bitsandbytes; pip install 'ropewalk\[bnb\]'"):
        optimizer.optimizer_factory(train(optimizer__name="adamw_8bit"))


def test_the_offloaded_optimizer_on_a_gpu_is_deepspeeds(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    calls: list[Any] = []

    def cpu_adam(groups: Any, **kwargs: Any) -> None:
        calls.append((groups, kwargs))

    monkeypatch.setattr("deepspeed.ops.adam.DeepSpeedCPUAdam", cpu_adam)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    settings = train(memory__offload_optimizer=True, optimizer__weight_decay=0.1)
    optimizer.optimizer_factory(settings)([{"params": []}])
    expected = {"lr": 1e-3, "betas": (0.9, 0.95), "eps": 1e-8, "weight_decay": 0.1}
    assert calls == [([{"params": []}], {**expected, "adamw_mode": True})]


def test_an_unknown_mlp_is_refused_by_name() -> None:
    model = tiny_model()
    model.model.layers[1].mlp = torch.nn.Sequential(torch.nn.Linear(32, 32))
    with pytest.raises(
        ConfigError,
        match=r"train.memory.tile_mlp_tokens is 8; .* and model.layers.1.mlp is Sequential; set",
    ):
        tiled_mlp.enable(model, 8)


def test_a_tiled_mlp_trains_below_a_frozen_input() -> None:
    untiled, tiled = tiny_model(), tiny_model()
    tiled_mlp.enable(tiled, 3)
    x = torch.randn(1, 10, 32)
    for model in (untiled, tiled):
        model.model.layers[0].mlp(x).square().sum().backward()
    for expected, actual in zip(untiled.parameters(), tiled.parameters(), strict=True):
        assert (expected.grad is None) == (actual.grad is None)
        if expected.grad is not None:
            torch.testing.assert_close(actual.grad, expected.grad)


def test_bf16_tiles_sum_their_gradients_in_fp32() -> None:
    """As the product of the full MLP does; in bf16, 64 tiles would be wrong in the third digit."""
    torch.manual_seed(0)
    untiled, tiled = (tiny_model().bfloat16().model.layers[0].mlp for _ in range(2))
    tiled.load_state_dict(untiled.state_dict())
    model = tiny_model().bfloat16()
    model.model.layers[0].mlp = tiled
    tiled_mlp.enable(model, 16)
    x, slope = (torch.randn(1, 1024, 32, dtype=torch.bfloat16) for _ in range(2))
    for mlp in (untiled, tiled):
        mlp(x).backward(slope)
    gradients = {name: p.grad.float() for name, p in tiled.named_parameters()}
    for name, parameter in untiled.named_parameters():
        expected = parameter.grad.float()
        assert (gradients[name] - expected).norm() / expected.norm() < 3e-3, name
