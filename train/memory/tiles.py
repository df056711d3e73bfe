"""MLPs computed tile by tile: DeepSpeed's `TiledMLP` (ALST, arXiv:2506.13996, section 3.1) put into a model's decoder layers.

S tokens of a row   E hidden size   I intermediate size. Held are the insides of one tile, not (S, I).
"""

import math
from typing import Any

import torch
from deepspeed.runtime.sequence_parallel.ulysses_sp import TiledMLP
from torch import nn
from transformers.modeling_layers import GradientCheckpointingLayer

from ropewalk.conf.errors import ConfigError

# the parts of MLPs that look at one token at a time: Llama's and its kin's, Phi-3's
KNOWN = ({"gate_proj", "up_proj", "down_proj", "act_fn"}, {"gate_up_proj", "down_proj", "activation_fn"})


def enable(model: nn.Module, tokens: int) -> int:
    """Tile the MLP of every decoder layer; returns how many. Raises: ConfigError by the name of one that is not known."""
    layers = {name: module for name, module in model.named_modules() if isinstance(module, GradientCheckpointingLayer)}
    found: list[tuple[str, Any]] = [(f"{name}.mlp", getattr(layer, "mlp", None)) for name, layer in layers.items()]
    for name, mlp in found:
        if mlp is None or set(dict(mlp.named_children())) not in KNOWN:
            raise ConfigError(
                f"train.tile_mlp is {tokens}; it tiles MLPs of gate, up and down that see one token at a time, and {name} is "
                f"{type(mlp).__name__}; set train.tile_mlp=0"
            )
    if not found:
        raise ConfigError(f"train.tile_mlp is {tokens}; no decoder layer was found in the model; set train.tile_mlp=0")
    for _, mlp in found:
        mlp.forward = _Tiled(mlp, tokens)
    return len(found)


class _Tiled:
    """In place of an MLP's `forward`."""

    def __init__(self, mlp: nn.Module, tokens: int) -> None:
        self.whole, self.parameters, self.tokens = mlp.forward, list(mlp.parameters()), tokens

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        """(1, S, E) -> (1, S, E)."""
        if torch.is_grad_enabled() and not x.requires_grad and any(p.requires_grad for p in self.parameters):
            # the weights are no inputs of TiledMLP: without this they would get no gradient, and nothing would say so
            x = x.detach().requires_grad_()
        # torch.chunk makes exactly as many when the size is a whole number; TiledMLP would wait for one that it did not make
        tiles = math.ceil(x.shape[-2] / self.tokens)
        found: Any = TiledMLP.apply(self._of_tile, None, x, tiles, self.parameters)  # type: ignore[no-untyped-call]
        return found  # type: ignore[no-any-return]

    def _of_tile(self, _: None, x: torch.Tensor) -> torch.Tensor:
        return self.whole(x)  # type: ignore[no-any-return]
