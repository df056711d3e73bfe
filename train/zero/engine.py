"""DeepSpeed's engine: what the trainer uses of it, and how it is built; the same on CPU and GPU."""

import importlib
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any, Protocol

import deepspeed
import torch
import torch.distributed as dist
from deepspeed.runtime import compiler as deepspeed_compiler
from deepspeed.runtime.engine import DeepSpeedEngine
from deepspeed.runtime.zero.config import ZERO_OPTIMIZATION
from torch import nn
from transformers import PreTrainedModel

from ropewalk.conf.log import log
from ropewalk.conf.schema import Config
from ropewalk.conf.train import TrainConfig
from ropewalk.train.cost.zero_stage import advice_of_run
from ropewalk.train.loss_model import LossModel
from ropewalk.train.memory import activation_checkpointing, compile, tiled_mlp
from ropewalk.train.memory.kept_attention import KeptAttention
from ropewalk.train.optim import param_groups
from ropewalk.train.optim.optimizer import optimizer_factory, refuse_long_tensor
from ropewalk.train.router_loss import router_loss_of
from ropewalk.train.zero.buffer_sizes import buffer_settings, longest_stepped_tensor, part_sizes
from ropewalk.train.zero.config import check_offload_device, deepspeed_config
from ropewalk.train.zero.mesh import Mesh, process_groups
from ropewalk.train.zero.overlap import wait_for_reductions_on_the_device
from ropewalk.train.zero.params import full_shape
from ropewalk.train.zero.reduce_scatter import use_few_operations


class Engine(Protocol):
    """What the trainer uses of a `DeepSpeedEngine`; only `train/zero` looks into its optimizer."""

    module: LossModel
    optimizer: Any
    device: torch.device
    global_steps: int
    global_samples: int
    checkpoint_engine: object
    module_state_dict: Callable[..., dict[str, Any]]
    _config: Any
    _copy_recovery_script: Callable[[str], None]

    def __call__(self, **batch: Any) -> torch.Tensor: ...
    def backward(self, loss: torch.Tensor) -> Any: ...
    def step(self) -> None: ...
    def destroy(self) -> None: ...
    def set_gradient_accumulation_boundary(self, is_boundary: bool) -> None: ...
    def train_batch_size(self) -> int: ...
    def zero_optimization(self) -> bool: ...
    def zero_optimization_stage(self) -> int: ...
    def zero_offload_optimizer(self) -> object: ...
    def zero_nvme_offload_optimizer(self) -> bool: ...
    def save_checkpoint(self, save_dir: str, **options: Any) -> Any: ...
    def load_checkpoint(self, load_dir: str, **options: Any) -> Any: ...


def build_engine(
    model: PreTrainedModel, config: Config, accumulation_steps: int, mesh: Mesh | None = None
) -> Engine:
    """The engine around `LossModel(model)`; without a `mesh` every rank reads whole sequences.

    Raises: ConfigError when this device or machine cannot do what is set, or a pattern matches no
    parameter.
    """
    train = config.train
    check_offload_device(train)
    mesh = mesh or Mesh(dist.get_rank(), dist.get_world_size())
    param_groups.set_requires_grad(model, train)
    kept = activation_checkpointing.kept_attention(model, config, mesh)
    apply_memory_settings(model, train, kept)
    model.train()
    router_loss = router_loss_of(model, train.loss.router_aux_loss_coef)
    loss_model = LossModel(model, train.loss.z_loss, router_loss)
    loss_model.kept_attention = kept
    groups = param_groups.parameter_groups(model, train)
    if line := advice_of_run(model, config, mesh, accumulation_steps):
        log.info(line)
    settings = deepspeed_config(train, accumulation_steps)
    of_shapes = _settings_of_shapes(model, train, groups, mesh.world_size)
    settings["zero_optimization"] = of_shapes | settings["zero_optimization"]
    if train.zero_stage == 3:
        use_few_operations()
    import_muon()
    with force_zero_optimizer(train):
        engine: Engine
        engine, *_ = deepspeed.initialize(
            model=loss_model,
            model_parameters=groups,
            optimizer=optimizer_factory(train),
            config=settings,
            mpu=process_groups(mesh),
            dist_init_required=False,
        )
    if train.zero_stage == 3:
        gather_head_around_loss(loss_model)
    elif train.zero_stage:
        wait_for_reductions_on_the_device(engine.optimizer)
    return engine


def apply_memory_settings(
    model: PreTrainedModel, train: TrainConfig, kept: KeptAttention | None
) -> None:
    """What saves memory inside the model. Raises: ConfigError where the model does not allow it."""
    if train.memory.activation_checkpointing:
        activation_checkpointing.enable(model, train.memory.offload_activations, kept)
    if train.memory.tile_mlp_tokens:
        tiled_mlp.enable(model, train.memory.tile_mlp_tokens)
    if train.memory.compile:
        compile.enable(model)


def _settings_of_shapes(
    model: PreTrainedModel, train: TrainConfig, groups: list[dict[str, Any]], world_size: int
) -> dict[str, Any]:
    """Keys of `zero_optimization` that depend on the model's shapes.

    Raises: ConfigError when the optimizer cannot step tensors as long as ZeRO makes them.
    """
    sizes = part_sizes(model)
    group_sizes = [sum(full_shape(p).numel() for p in group["params"]) for group in groups]
    longest = longest_stepped_tensor(
        train.zero_stage, group_sizes, sizes.largest_trained, world_size
    )
    refuse_long_tensor(train, longest, world_size)
    return buffer_settings(train, sizes, world_size)


def gather_head_around_loss(loss_model: LossModel) -> None:
    """Let ZeRO 3 gather the output head's weight for `token_loss`, and release it after it."""
    deepspeed.zero.register_external_parameter(loss_model.token_loss, loss_model.head_weight())


def cast_weights(model: nn.Module, dtype: torch.dtype) -> None:
    """Cast the weights as the engine will, before fp32 takes twice the memory on the device.

    Buffers keep their dtype; the rotary table is one of them.
    """
    for parameter in model.parameters():
        parameter.data = parameter.data.to(dtype)


def import_muon() -> None:
    """Import DeepSpeed's Muon, which every ZeRO step looks up, without compiling its functions.

    To decorate them with `torch.compile` imports torch's inductor: a second before the first step.
    Ropewalk trains with no Muon.
    """
    with patched_method(deepspeed_compiler, "compile", lambda function: function):
        importlib.import_module("deepspeed.runtime.zero.muon.original_muon")


def force_zero_optimizer(train: TrainConfig) -> AbstractContextManager[None]:
    """Build the same optimizer for ZeRO 1 in bf16 with fp32 sums as for every other case.

    DeepSpeed has a second one for this case alone, with its own norm, skipped steps and
    checkpoints.
    """
    if not train.zero_stage:
        return nullcontext()
    return patched_method(DeepSpeedEngine, "_do_optimizer_sanity_check", ZERO_OPTIMIZATION)


@contextmanager
def patched_method(owner: object, name: str, result: object) -> Iterator[None]:
    """While open, `owner.name(...)` returns `result`."""
    original = vars(owner).get(name)
    setattr(owner, name, lambda *_, **__: result)
    try:
        yield
    finally:
        if original is None:
            delattr(owner, name)
        else:
            setattr(owner, name, original)
