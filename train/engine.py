"""The DeepSpeed engine from our settings, the same on CPU (gloo) and GPU (nccl)."""

import os
from contextlib import AbstractContextManager, nullcontext
from datetime import timedelta
from typing import Any

import deepspeed
import torch
from deepspeed.runtime.engine import DeepSpeedEngine
from deepspeed.runtime.zero.config import ZERO_OPTIMIZATION
from torch import nn
from torch.distributed import distributed_c10d as c10d
from transformers import PreTrainedModel

from ropewalk.conf.errors import ConfigError
from ropewalk.conf.schema import Config
from ropewalk.conf.training import TrainConfig
from ropewalk.train import groups, ulysses
from ropewalk.train.gate import answering
from ropewalk.train.loss import summed_objective
from ropewalk.train.memory import activations, compiled, tiles
from ropewalk.train.memory.offload import check_device, zero_settings
from ropewalk.train.memory.optimizer import maker
from ropewalk.train.mesh import Mesh
from ropewalk.train.mixed_rope import MixedWindows

# Of a collective, by which torch would end the run without a name. Who hangs is found sooner (train.hang_s), and some waits are long and
# right: for rank 0, which alone writes a large model.
WAIT = timedelta(days=1)


class LossModel(nn.Module):
    """The loss inside the module: called around the engine, ZeRO-3 gradients of a chunked loss come out wrong."""

    def __init__(self, model: PreTrainedModel, z_loss: float = 0.0) -> None:
        super().__init__()
        self.model, self.z_loss = model, z_loss
        self.rope: MixedWindows | None = None
        self.plain = torch.zeros(())  # what the last call returned, without the z-loss and without a gradient
        self.nll: torch.Tensor | None = None  # (S,) fp32, of the last row: each token's loss, 0 where it does not count

    def forward(
        self,
        input_ids: torch.Tensor,
        position_ids: torch.Tensor,
        labels: torch.Tensor,
        total: int,
        **borders: Any,
    ) -> torch.Tensor:
        """Sum of the row's losses over `total`, the labels that count in the whole global batch. All inputs (1, S)."""
        if self.rope is not None:
            # validation measures what is exported: the plan's model
            self.rope.choose(borders["document_ends"] if self.training else None, input_ids.shape[1], input_ids.device)
        body = self.model.base_model
        hidden = body(input_ids=input_ids, position_ids=position_ids, use_cache=False, **borders).last_hidden_state
        head = self.model.get_output_embeddings().weight  # type: ignore[union-attr]
        self.nll = torch.empty(labels.shape[1], dtype=torch.float32, device=labels.device)
        summed, plain = summed_objective(hidden[0], head, labels[0], self.z_loss, nll=self.nll)  # type: ignore[arg-type]
        self.plain = plain / total
        return summed / total


def start_distributed() -> None:
    """Join the process group. gloo's own collectives are used on CPU, so that nothing has to be compiled."""
    cuda = torch.cuda.is_available()
    if not cuda:
        deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
    # of this group, and of those that DeepSpeed makes without saying one
    c10d.default_pg_timeout = c10d.default_pg_nccl_timeout = WAIT
    deepspeed.init_distributed(dist_backend="nccl" if cuda else "gloo", verbose=False, timeout=WAIT)
    if cuda:
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")))


def device() -> torch.device:
    return torch.device("cuda", torch.cuda.current_device()) if torch.cuda.is_available() else torch.device("cpu")


def accumulation(config: Config, dp_size: int) -> int:
    """Micro-steps of one optimizer step, of the first where a ramp follows. Raises: ConfigError when a batch does not divide."""
    return ramp(config, dp_size)[0][1]


def ramp(config: Config, dp_size: int) -> list[tuple[int, int]]:
    """(first step from 0, micro-steps of an optimizer step from there on) of each size of the batch. Raises: ConfigError."""
    found, ranks = [], config.micro_batch_tokens * dp_size
    for key, first, tokens in config.batches():
        if tokens % ranks:
            near = max(1, round(tokens / ranks)) * ranks
            raise ConfigError(
                f"{key} is {tokens}; it must be a multiple of {config.micro_batch_tokens} tokens x {dp_size} ranks = {ranks}; try {near}"
            )
        found.append((first, tokens // ranks))
    return found


def accumulate(engine: Any, steps: int) -> None:
    """How many micro-steps the next optimizer step sums: told to the engine, which counts modulo a fixed number by itself."""
    # set_train_batch_size does the same by way of a data-parallel size, which is None where a sequence is shared
    engine._config.gradient_accumulation_steps = steps
    if hasattr(engine.optimizer, "gradient_accumulation_steps"):
        engine.optimizer.gradient_accumulation_steps = steps


def settings(train: TrainConfig, steps_accumulated: int) -> dict[str, Any]:
    """DeepSpeed's configuration. Clipping is always said: its default is 1.0, not off.

    Gradients are added in fp32, over micro-steps and over ranks: its default for bf16 adds in bf16, where 1 + 255 x 1/512 is 1.
    """
    sums = {"data_types": {"grad_accum_dtype": "fp32"}, "communication_data_type": "fp32"} if train.zero_stage else {}
    return {
        **sums,
        "train_micro_batch_size_per_gpu": 1,
        "gradient_accumulation_steps": steps_accumulated,
        "gradient_clipping": train.gradient_clipping,
        "zero_optimization": zero_settings(train),
        # the optimizer is ours to choose (train.memory.optimizer): 8-bit ones are none that DeepSpeed has tried
        "zero_allow_untested_optimizer": True,
        "zero_force_ds_cpu_optimizer": False,
        "bf16": {"enabled": train.precision == "bf16"},
        "steps_per_print": 1 << 30,
    }


def make(model: PreTrainedModel, config: Config, steps_accumulated: int, mesh: Mesh | None = None) -> Any:
    """The engine around `LossModel(model)`; without a `mesh` no sequence is shared.

    Raises: ConfigError for what this device or machine cannot do, and a pattern that names no parameter.
    """
    check_device(config.train)
    if config.train.activation_checkpointing:
        activations.enable(model, config.train.offload_activations)
    if config.train.tile_mlp:
        tiles.enable(model, config.train.tile_mlp)
    if config.train.compile:
        compiled.enable(model)
    groups.choose(model, config.train)
    model.train()
    wrapped = LossModel(model, config.train.z_loss)
    with one_optimizer(config.train):
        engine, *_ = deepspeed.initialize(
            model=wrapped,
            model_parameters=groups.parameter_groups(model, config.train),
            optimizer=maker(config.train),
            config=settings(config.train, steps_accumulated),
            mpu=ulysses.groups(mesh) if mesh is not None else None,
            dist_init_required=False,
        )
    return engine


def round_weights(model: nn.Module, dtype: torch.dtype) -> None:
    """The weights as the engine will make them, before they go to the device: in fp32 they would take twice its memory for a moment.

    Buffers stay: the rotary table is none of its business.
    """
    for parameter in model.parameters():
        parameter.data = parameter.data.to(dtype)


def one_optimizer(train: TrainConfig) -> AbstractContextManager[None]:
    """ZeRO 1 in bf16 with sums in fp32 by the optimizer of every other case: DeepSpeed has a second one for this alone, with a norm, a way
    out of a step and checkpoints of its own."""
    if not train.zero_stage:
        return nullcontext()
    return answering(DeepSpeedEngine, "_do_optimizer_sanity_check", ZERO_OPTIMIZATION)
