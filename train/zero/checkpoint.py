"""What our checkpoints use of DeepSpeed: its writer interface, its files, its engine's state."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

import torch
from deepspeed.runtime.checkpoint_engine.checkpoint_engine import CheckpointEngine
from deepspeed.runtime.fp16.loss_scaler import LossScaler
from deepspeed.runtime.zero.config import ZeroStageEnum
from deepspeed.utils.tensor_fragment import fragment_address
from torch import nn

from ropewalk.conf.errors import ConfigError
from ropewalk.train.zero.engine import Engine
from ropewalk.train.zero.flat_params import refresh_weights

# the classes that DeepSpeed pickles into its files; nothing else is unpickled
PICKLED_CLASSES = [LossScaler, ZeroStageEnum, fragment_address]


class CheckpointWriter(Protocol):
    """Writes the files of a checkpoint."""

    def create(self) -> None: ...
    def makedirs(self, path: Path) -> None: ...
    def save(self, state_dict: object, path: Path) -> None: ...


class _WriterAdapter(CheckpointEngine):  # type: ignore[misc]
    """DeepSpeed's interface over our writer; mypy checks nothing that inherits from DeepSpeed."""

    def __init__(self, writer: CheckpointWriter) -> None:
        super().__init__()
        self.writer: CheckpointWriter = writer

    def create(self, info: object) -> None:
        self.writer.create()

    def makedirs(self, path: str, exist_ok: bool = False) -> None:
        self.writer.makedirs(Path(path))

    def save(self, state_dict: object, path: str) -> None:
        self.writer.save(state_dict, Path(path))

    def load(self, path: str, map_location: object = None) -> object:
        return load_file(path)

    def commit(self, info: object) -> bool:
        """Nothing: `Checkpointer.poll` publishes."""
        return True


def use_checkpoint_writer(engine: Engine, writer: CheckpointWriter) -> None:
    """Let the engine save through `writer`, and of its module only what is trained.

    DeepSpeed's own `exclude_frozen_parameters` would keep a frozen tied head.
    """
    state_dict = engine.module_state_dict

    def trainable_state_dict(*args: Any, **kwargs: Any) -> dict[str, Any]:
        names = trainable_names(engine.module)
        return {k: v for k, v in state_dict(*args, **kwargs).items() if k in names}

    engine.checkpoint_engine = _WriterAdapter(writer)
    engine.module_state_dict = trainable_state_dict
    # the copies of its recovery script would be one more way in which rank 0 alone can fail
    engine._copy_recovery_script = lambda _: None


def trainable_names(module: nn.Module) -> set[str]:
    """Names of trained parameters, tied ones by all their names, and of buffers."""
    parameters = module.named_parameters(remove_duplicate=False)
    trained = {name for name, p in parameters if p.requires_grad}
    return trained | {name for name, _ in module.named_buffers()}


def load_trainable(src: dict[str, torch.Tensor], dst: nn.Module) -> None:
    """Load the trained weights `src` into `dst`; the engine's `custom_load_fn`.

    Frozen weights come from the base's files again. Raises: ConfigError when a trained weight is
    missing, or `src` has one that the model lacks.
    """
    keys = dst.load_state_dict(src, strict=False)
    wrong = sorted({*keys.missing_keys} & trainable_names(dst)) + list(keys.unexpected_keys)
    if wrong:
        raise ConfigError(
            f"the checkpoint and the model differ in {wrong[0]}, and in {len(wrong) - 1} more; "
            "they must have the same trained weights; take another checkpoint"
        )


def load_file(path: str) -> Any:
    """Map a file into memory. Only DeepSpeed's own classes are unpickled."""
    with torch.serialization.safe_globals(PICKLED_CLASSES):
        return torch.load(path, map_location="cpu", weights_only=True, mmap=True)


def saved_flat_tensors(
    path: Path, zero_stage: int, first_names: list[str]
) -> list[tuple[torch.Tensor, dict[str, Any]]]:
    """Fp32 weights and optimizer states of each flat tensor in one rank's file of `zero_stage`.

    `first_names`: the first parameter of each flat tensor; at stage 0 each holds one parameter.
    """
    file = load_file(str(path))
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
