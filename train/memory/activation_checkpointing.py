"""Activation checkpointing, and where its checkpoints are held.

With it a decoder layer keeps its input, (1, S, E), and is computed again in the backward pass. The
inputs of all layers are then layers x S x E, which at long sequences is the largest tensor on the
device. kept_attention.py keeps attention's output beside it, and offloaded_activations.py holds
both in host memory.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

from torch.utils.checkpoint import checkpoint
from transformers import PreTrainedModel

from ropewalk.conf.log import log
from ropewalk.conf.schema import Config
from ropewalk.train.cost.traffic import model_sizes
from ropewalk.train.memory import attention_budget
from ropewalk.train.memory.kept_attention import KeptAttention
from ropewalk.train.memory.offloaded_activations import OffloadedActivations
from ropewalk.train.zero.mesh import Mesh, least_of_ranks


def enable(
    model: PreTrainedModel, offload: bool, kept: KeptAttention | None = None
) -> OffloadedActivations | None:
    """Checkpoint every decoder layer; `kept` keeps what attention computed in it.

    Returns the holder of the host copies if `offload` is set.
    """
    contexts = {} if kept is None else {"context_fn": kept.contexts}
    model.activation_checkpointing_enable({"use_reentrant": False, **contexts})
    if not offload:
        return None
    activations = OffloadedActivations()
    checkpointed: Callable[..., Any] = partial(checkpoint, use_reentrant=False, **contexts)

    def offloaded_checkpoint(function: Callable[..., Any], *args: Any) -> Any:
        # the hooks see the layer's input, and what is kept of its attention: inside, checkpoint
        # installs its own
        with activations.layer():
            return checkpointed(function, *args)

    for module in model.modules():
        if getattr(module, "_gradient_checkpointing_func", None) is not None:
            module._gradient_checkpointing_func = offloaded_checkpoint  # type: ignore[assignment]
    return activations


def kept_attention(model: PreTrainedModel, config: Config, mesh: Mesh) -> KeptAttention | None:
    """Collective. What the layers keep under `train.memory.keep_attention`, told in a line."""
    wanted = config.train.memory.keep_attention
    if wanted is False or not config.train.memory.activation_checkpointing:
        return None
    # under Ulysses a rank that alone computed its exchange again would wait for the others
    memory = least_of_ranks(*attention_budget.device_memory(mesh.world_size))
    decision = attention_budget.decide(
        config.train, model_sizes(model), attention_budget.micro_step(model, config, mesh), *memory
    )
    log.info(f"train.memory.keep_attention: {decision.reason}")
    if not decision.kept_ops:
        return None
    return KeptAttention(decision.kept_ops, is_required=wanted is True)
