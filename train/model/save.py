"""Full tensors of a model that ZeRO 3 partitions, and the model saved in Hugging Face form."""

from collections.abc import Iterable
from pathlib import Path

import torch
import torch.distributed as dist
from torch import nn
from transformers import PreTrainedModel

from ropewalk.conf.errors import RopewalkError
from ropewalk.train.adapters import merge
from ropewalk.train.adapters.attach import adapter_config
from ropewalk.train.adapters.quantize import dequantized
from ropewalk.train.zero.params import gathered


def gather_full_state_dict(named: Iterable[tuple[str, nn.Parameter]]) -> dict[str, torch.Tensor]:
    """Collective. Gathers one tensor at a time into rank 0's host memory; {} on other ranks.

    Raises: RopewalkError when a tensor is empty.
    """
    state_dict: dict[str, torch.Tensor] = {}
    for name, parameter in named:
        with gathered(parameter):
            if dist.get_rank() == 0:
                state_dict[name] = dequantized(parameter).cpu().clone()
    refuse_empty(state_dict)
    return state_dict


def refuse_empty(tensors: dict[str, torch.Tensor]) -> None:
    """Raises: RopewalkError for a tensor of size 0, which ZeRO 3 leaves where nothing was gathered.

    Such a file would load without an error.
    """
    if empty := [name for name, tensor in tensors.items() if tensor.numel() == 0]:
        raise RopewalkError(
            f"{empty[0]} is empty, and {len(empty) - 1} more; a saved model must have whole "
            "tensors; report this as a bug"
        )


def save_pretrained(model: PreTrainedModel, folder: Path) -> None:
    """Collective. Write the model as safetensors in Hugging Face form, with its adapter merged."""
    state_dict = gather_full_state_dict(model.named_parameters())
    if dist.get_rank() == 0:
        state_dict |= {
            name: buffer.detach().cpu()
            for name, buffer in model.named_buffers()
            if name in model.state_dict()
        }
        if adapter_config(model) is not None:
            model, state_dict = merge.without_adapter(model), merge.merge_adapter(model, state_dict)
        state_dict |= {
            name: state_dict[tied_to]
            for name, tied_to in model.all_tied_weights_keys.items()
            if name not in state_dict
        }
        model.save_pretrained(str(folder), state_dict=state_dict)
    dist.barrier()
