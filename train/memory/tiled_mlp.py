"""MLPs computed tile by tile (TiledMLP of ALST, arXiv:2506.13996, section 3.1), put into a model's decoder layers.

S tokens of a row   E hidden size   I intermediate size. Held are the insides of one tile, not (S, I).
DeepSpeed's own adds the tiles' gradients in the weights' dtype: in bf16 that is wrong in the third digit for some dozens of them.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import nn
from transformers.modeling_layers import GradientCheckpointingLayer

from ropewalk.conf.errors import ConfigError

# the parts of MLPs that look at one token at a time: Llama's and its kin's, Phi-3's
KNOWN = (
    {"gate_proj", "up_proj", "down_proj", "act_fn"},
    {"gate_up_proj", "down_proj", "activation_fn"},
)


def enable(model: nn.Module, tokens: int) -> int:
    """Tile the MLP of every decoder layer; returns how many. Raises: ConfigError by the name of one that is not known."""
    layers = {
        name: module
        for name, module in model.named_modules()
        if isinstance(module, GradientCheckpointingLayer)
    }
    found: list[tuple[str, Any]] = [
        (f"{name}.mlp", getattr(layer, "mlp", None)) for name, layer in layers.items()
    ]
    for name, mlp in found:
        if mlp is None or set(dict(mlp.named_children())) not in KNOWN:
            raise ConfigError(
                f"train.tile_mlp is {tokens}; it tiles MLPs of gate, up and down that see one token at a time, and {name} is "
                f"{type(mlp).__name__}; set train.tile_mlp=0"
            )
    if not found:
        raise ConfigError(
            f"train.tile_mlp is {tokens}; no decoder layer was found in the model; set train.tile_mlp=0"
        )
    for _, mlp in found:
        mlp.forward = _Tiled(mlp, tokens)
    return len(found)


class _Tiled:
    """In place of an MLP's `forward`."""

    def __init__(self, mlp: nn.Module, tokens: int) -> None:
        self.whole, self.parameters, self.tokens = mlp.forward, list(mlp.parameters()), tokens

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        """(1, S, E) -> (1, S, E)."""
        if (
            torch.is_grad_enabled()
            and not x.requires_grad
            and any(p.requires_grad for p in self.parameters)
        ):
            # the weights are no inputs of the function: without this they would get no gradient, and nothing would say so
            x = x.detach().requires_grad_()
        found: torch.Tensor = _InTiles.apply(self.whole, x, self.tokens, self.parameters)  # type: ignore[no-untyped-call]
        return found


class _InTiles(torch.autograd.Function):
    """Forward keeps the input alone; backward computes each tile again."""

    @staticmethod
    def forward(
        ctx: Any,
        mlp: Callable[..., Any],
        x: torch.Tensor,
        tokens: int,
        weights: Sequence[nn.Parameter],
    ) -> torch.Tensor:
        ctx.mlp, ctx.tokens, ctx.weights = mlp, tokens, [w for w in weights if w.requires_grad]
        ctx.save_for_backward(x)
        return torch.cat([mlp(tile) for tile in x.split(tokens, dim=-2)], dim=-2)

    @staticmethod
    def backward(ctx: Any, slope: torch.Tensor) -> tuple[torch.Tensor | None, ...]:  # type: ignore[override]
        (x,) = ctx.saved_tensors
        found = torch.empty_like(x)
        tiles = list(
            zip(*(whole.split(ctx.tokens, dim=-2) for whole in (x, slope, found)), strict=True)
        )
        sums: list[torch.Tensor] = []
        for tile, of_out, to in tiles[:-1]:
            of_tile, *of_weights = torch.autograd.grad(*_again(ctx, tile), of_out)
            to.copy_(of_tile)
            sums = (
                [s.add_(g) for s, g in zip(sums, of_weights, strict=True)]
                if sums
                else [g.float() for g in of_weights]
            )
        tile, of_out, to = tiles[-1]
        out, (leaf, *_) = _again(ctx, tile)
        # the engine sees one gradient of each weight: it may take a weight apart once it has seen it (ZeRO)
        hooks = [w.register_hook(_adding(s)) for w, s in zip(ctx.weights, sums, strict=False)]
        torch.autograd.backward(out, of_out)
        for hook in hooks:
            hook.remove()
        to.copy_(leaf.grad)
        return None, found, None, None


def _again(ctx: Any, tile: torch.Tensor) -> tuple[torch.Tensor, list[torch.Tensor]]:
    """The tile's outcome with its graph, and what it depends on."""
    leaf = tile.detach().requires_grad_()
    with torch.enable_grad():
        return ctx.mlp(leaf), [leaf, *ctx.weights]


def _adding(others: torch.Tensor) -> Callable[[torch.Tensor], torch.Tensor]:
    """What makes of the last tile's gradient that of all, rounded once."""
    return lambda last: (others + last).to(last.dtype)
