"""Whole tensors of a model that ZeRO-3 keeps in pieces, and the model written from them in Hugging Face form."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import nn

from ropewalk.conf.errors import RopewalkError
from ropewalk.train.adapters import merge
from ropewalk.train.adapters.attach import adapter_config
from ropewalk.train.adapters.quantize import dequantized
from ropewalk.train.zero import params
from ropewalk.train.zero.engine import Engine


def gather_full_state_dict(named: Iterable[tuple[str, nn.Parameter]]) -> dict[str, torch.Tensor]:
    """Each tensor whole, in host memory on rank 0; one at a time, so that no device holds the model twice. {} on other ranks.

    Every rank calls it with the same parameters. Raises: RopewalkError when a tensor comes out empty.
    """
    found: dict[str, torch.Tensor] = {}
    for name, parameter in named:
        with params.gathered(parameter):
            if dist.get_rank() == 0:
                found[name] = dequantized(parameter).cpu().clone()
    refuse_empty(found)
    return found


def refuse_empty(tensors: dict[str, torch.Tensor]) -> None:
    """ZeRO-3 leaves a tensor of size 0 where nothing was gathered; such a file loads without a word. Raises: RopewalkError."""
    empty = [name for name, tensor in tensors.items() if tensor.numel() == 0]
    if empty:
        raise RopewalkError(
            f"{empty[0]} is empty, and {len(empty) - 1} more; a saved model must have whole tensors; report this as a bug"
        )


def save_pretrained(engine: Engine, folder: Path) -> None:
    """The model in Hugging Face form, whole tensors gathered from every rank, an adapter merged into them; safetensors."""
    model = engine.module.model
    whole = gather_full_state_dict(model.named_parameters())
    if dist.get_rank() == 0:
        whole |= {
            name: b.detach().cpu()
            for name, b in model.named_buffers()
            if name in model.state_dict()
        }
        if adapter_config(model) is not None:
            model, whole = merge.without_adapter(model), merge.merge_adapter(model, whole)
        if model.config.tie_word_embeddings:
            whole.setdefault("lm_head.weight", whole[_embedding_name(model)])
        model.save_pretrained(str(folder), state_dict=whole)
    dist.barrier()


def _embedding_name(model: Any) -> str:
    embedding = model.get_input_embeddings().weight
    return next(name for name, p in model.named_parameters() if p is embedding)
