"""What our checkpoints use of DeepSpeed: its writer interface, its files, its engine's state."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from deepspeed.runtime.checkpoint_engine.checkpoint_engine import (
    CheckpointCommitInfo,
    CheckpointEngine,
)
from deepspeed.runtime.fp16.loss_scaler import LossScaler
from deepspeed.runtime.zero.config import ZeroStageEnum
from deepspeed.utils.tensor_fragment import fragment_address
from torch import nn

from ropewalk.train.zero.engine import Engine
from ropewalk.train.zero.flat_params import refresh_weights

__all__ = ["CheckpointCommitInfo", "CheckpointEngine"]

# the classes that DeepSpeed pickles into its files; nothing else is unpickled
PICKLED_CLASSES = [LossScaler, ZeroStageEnum, fragment_address]


def use_checkpoint_writer(
    engine: Any, writer: CheckpointEngine, saved_names: Callable[[nn.Module], set[str]]
) -> None:
    """Let the engine save through `writer`, and of its module only the tensors in `saved_names`.

    DeepSpeed's own `exclude_frozen_parameters` would keep a frozen tied head.
    """
    state_dict = engine.module_state_dict

    def saved_state_dict(*args: Any, **kwargs: Any) -> dict[str, Any]:
        names = saved_names(engine.module)
        return {k: v for k, v in state_dict(*args, **kwargs).items() if k in names}

    engine.checkpoint_engine, engine.module_state_dict = writer, saved_state_dict
    # the copies of its recovery script would be one more way in which rank 0 alone can fail
    engine._copy_recovery_script = lambda _: None


def saved_flat_tensors(
    file: dict[str, Any], zero_stage: int, first_names: list[str]
) -> list[tuple[torch.Tensor, dict[str, Any]]]:
    """Fp32 weights and optimizer states of each flat tensor in one rank's file of `zero_stage`.

    `first_names`: the first parameter of each flat tensor; at stage 0 each holds one parameter.
    """
    if zero_stage == 0:
        weights = [file["module"][name].reshape(-1) for name in first_names]
        states = file["optimizer"]["state"]
    elif zero_stage == 3:
        weights = file["optimizer_state_dict"]["fp32_flat_groups"]
        states = file["optimizer_state_dict"]["optimizer_state_dict"]["state"]
    else:
        weights = file["optimizer_state_dict"]["single_partition_of_fp32_groups"]
        states = file["optimizer_state_dict"]["base_optimizer_state"]["state"]
    return [(weight, states.get(index, {})) for index, weight in enumerate(weights)]


@contextmanager
def rewriting_optimizer(engine: Engine) -> Iterator[None]:
    """Collective. Overwrite fp32 weights and states inside; the model is updated at the end."""
    zero3 = engine.zero_optimization_stage() == 3
    if zero3:
        engine.optimizer.checkpoint_event_prologue()
    with torch.no_grad():
        yield
        refresh_weights(engine)
    if zero3:
        engine.optimizer.checkpoint_event_epilogue()
