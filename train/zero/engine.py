"""The DeepSpeed engine from our settings, the same on CPU (gloo) and GPU (nccl)."""

from typing import Any

import deepspeed
import torch
from torch import nn
from transformers import PreTrainedModel

from ropewalk.conf.schema import Config
from ropewalk.train.memory import activation_checkpointing, compile, tiled_mlp
from ropewalk.train.model.loss_model import LossModel
from ropewalk.train.optim import param_groups
from ropewalk.train.optim.optimizer import optimizer_factory
from ropewalk.train.zero.config import check_offload_device, deepspeed_config
from ropewalk.train.zero.mesh import Mesh, process_groups
from ropewalk.train.zero.patches import force_zero_optimizer


def build_engine(
    model: PreTrainedModel, config: Config, steps_accumulated: int, mesh: Mesh | None = None
) -> Any:
    """The engine around `LossModel(model)`; without a `mesh` no sequence is shared.

    Raises: ConfigError for what this device or machine cannot do, and a pattern that names no parameter.
    """
    check_offload_device(config.train)
    if config.train.activation_checkpointing:
        activation_checkpointing.enable(model, config.train.offload_activations)
    if config.train.tile_mlp:
        tiled_mlp.enable(model, config.train.tile_mlp)
    if config.train.compile:
        compile.enable(model)
    param_groups.set_requires_grad(model, config.train)
    model.train()
    wrapped = LossModel(model, config.train.z_loss)
    with force_zero_optimizer(config.train):
        engine, *_ = deepspeed.initialize(
            model=wrapped,
            model_parameters=param_groups.parameter_groups(model, config.train),
            optimizer=optimizer_factory(config.train),
            config=deepspeed_config(config.train, steps_accumulated),
            mpu=process_groups(mesh) if mesh is not None else None,
            dist_init_required=False,
        )
    return engine


def round_weights(model: nn.Module, dtype: torch.dtype) -> None:
    """The weights as the engine will make them, before they go to the device: in fp32 they would take twice its memory for a moment.

    Buffers stay: the rotary table is none of its business.
    """
    for parameter in model.parameters():
        parameter.data = parameter.data.to(dtype)
