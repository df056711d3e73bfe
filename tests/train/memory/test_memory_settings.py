"""What may be set of memory: DeepSpeed's own model reads our settings, and what cannot be is refused with its rule."""

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
from ropewalk.train.memory import activation_checkpointing, tiled_mlp
from ropewalk.train.optim import optimizer
from ropewalk.train.zero import config
from ropewalk.train.zero.config import check_offload_device, deepspeed_config


def train(**changes: Any) -> TrainConfig:
    return train_config(**{"steps": 1, "optimizer__lr": 1e-3, **changes})  # type: ignore[arg-type]


def test_deepspeed_reads_what_is_offloaded_where(tmp_path: Path) -> None:
    both = {"zero_stage": 3, "memory__offload_optimizer": True, "memory__offload_params": True}
    on_disk = train(**both, memory__offload_path=str(tmp_path))
    assert list(problems(on_disk, "train.")) == []
    for settings, device, path in ((train(**both), "cpu", None), (on_disk, "nvme", tmp_path)):
        read = DeepSpeedZeroConfig(**deepspeed_config(settings, 1)["zero_optimization"])
        assert read.stage == 3
        for part in (read.offload_optimizer, read.offload_param):
            assert (part.device, part.nvme_path) == (device, path)
    assert (
        DeepSpeedZeroConfig(**deepspeed_config(train(), 1)["zero_optimization"]).offload_optimizer
        is None
    )


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
            {"memory__compile": True, "memory__tile_mlp_tokens": 8},
            "train.memory.compile is True; a tiled MLP",
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
def test_what_does_not_go_together_is_refused(changes: dict[str, Any], rule: str) -> None:
    assert any(problem.startswith(rule) for problem in problems(train(**changes), "train."))


def test_an_optimizer_of_another_kind_is_other_content_and_the_usual_one_is_what_it_was() -> None:
    assert "name" not in content(train())["optimizer"]
    assert content(train(optimizer__name="adamw_8bit"))["optimizer"]["name"] == "adamw_8bit"
    assert content(
        train(memory__offload_activations=True, memory__tile_mlp_tokens=4, memory__compile=True)
    ) == content(train())


@pytest.mark.parametrize("made", [False, True])
def test_a_path_that_is_missing_or_read_only_is_refused(
    tmp_path: Path, made: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "disk"
    if made:
        folder.mkdir()
        monkeypatch.setattr("os.access", lambda *_: False)  # root may write anywhere
    settings = train(zero_stage=3, memory__offload_params=True, memory__offload_path=str(folder))
    rule = "it must be a folder that every rank can write to, and"
    assert [rule in problem for problem in problems(settings, "train.")] == [True]
    settings.launcher.hostfile = "hosts"
    assert list(problems(settings, "train.")) == []  # the machines of the ranks are others
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


def test_offloaded_on_a_gpu_the_optimizer_is_deepspeeds_own(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    calls: list[Any] = []
    monkeypatch.setattr(
        "deepspeed.ops.adam.DeepSpeedCPUAdam", lambda groups, **given: calls.append((groups, given))
    )
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    optimizer.optimizer_factory(train(memory__offload_optimizer=True, optimizer__weight_decay=0.1))(
        [{"params": []}]
    )
    wanted = {
        "lr": 1e-3,
        "betas": (0.9, 0.95),
        "eps": 1e-8,
        "weight_decay": 0.1,
        "adamw_mode": True,
    }
    assert calls == [([{"params": []}], wanted)]


def test_an_mlp_that_is_none_of_the_known_is_refused_by_name() -> None:
    model = tiny_model()
    model.model.layers[1].mlp = torch.nn.Sequential(torch.nn.Linear(32, 32))
    with pytest.raises(
        ConfigError,
        match=r"train.memory.tile_mlp_tokens is 8; .* and model.layers.1.mlp is Sequential; set",
    ):
        tiled_mlp.enable(model, 8)


def test_a_tiled_mlp_trains_below_a_frozen_input() -> None:
    plain, tiled = tiny_model(), tiny_model()
    tiled_mlp.enable(tiled, 3)
    x = torch.randn(1, 10, 32)
    for model in (plain, tiled):
        model.model.layers[0].mlp(x).square().sum().backward()
    for wanted, found in zip(plain.parameters(), tiled.parameters(), strict=True):
        assert (wanted.grad is None) == (found.grad is None)
        if wanted.grad is not None:
            torch.testing.assert_close(found.grad, wanted.grad)


def test_tiles_in_bf16_add_their_gradients_as_one_product_does() -> None:
    """64 tiles added in bf16 would be wrong in the third digit; the whole MLP's product adds in fp32 and rounds once."""
    torch.manual_seed(0)
    plain, tiled = (tiny_model().bfloat16().model.layers[0].mlp for _ in range(2))
    tiled.load_state_dict(plain.state_dict())
    model = tiny_model().bfloat16()
    model.model.layers[0].mlp = tiled
    tiled_mlp.enable(model, 16)
    x, slope = (torch.randn(1, 1024, 32, dtype=torch.bfloat16) for _ in range(2))
    for mlp in (plain, tiled):
        mlp(x).backward(slope)
    for name, p in plain.named_parameters():
        found = dict(tiled.named_parameters())[name].grad
        assert (found.float() - p.grad.float()).norm() / p.grad.float().norm() < 3e-3, name


def test_what_is_offloaded_is_the_inputs_of_the_layers_and_nothing_else() -> None:
    model, ids = tiny_model(num_hidden_layers=3).train(), torch.randint(0, 97, (1, 20))
    copies = activation_checkpointing.enable(model, offload=True)
    assert copies is not None
    for _ in range(2):
        model.model(input_ids=ids).last_hidden_state.sum().backward()
    assert copies.moved_bytes == 2 * 3 * (
        20 * 32 * 4
    )  # passes x layers x (tokens x hidden size x fp32)
    with torch.no_grad():
        model.model(input_ids=ids)
    assert copies.moved_bytes == 2 * 3 * (20 * 32 * 4)


def test_the_input_that_is_needed_next_is_fetched_ahead_and_nothing_is_kept_after_use() -> None:
    copies = activation_checkpointing.OffloadedActivations()
    tensors = [torch.randn(2, 3) for _ in range(3)]
    first, second, third = kept = [copies._pack(tensor) for tensor in tensors]
    assert torch.equal(copies._unpack(third), tensors[2])
    assert [k.fetched is not None for k in kept] == [False, True, False]
    assert torch.equal(copies._unpack(second), tensors[1])
    assert [k.fetched is not None for k in kept] == [True, False, False]
    assert torch.equal(copies._unpack(first), tensors[0])
    assert [k.fetched is not None for k in kept] == [False, False, False]
    for tensor, k in zip(tensors, kept, strict=True):
        assert k.host.data_ptr() != tensor.data_ptr()
    assert copies._pack(tensors[0]).previous is None  # the next pass fetches nothing of this one
