"""MLPs of decoder layers computed tile by tile (TiledMLP of ALST, arXiv:2506.13996, section 3.1).

Only one tile's intermediate activations are in memory at a time, not (S, I). DeepSpeed's TiledMLP
adds the tiles' gradients in the weights' dtype: in bf16 that is wrong in the third digit for some
dozens of tiles.

    S tokens of a row   T tokens of a tile   E hidden size   I intermediate size
"""

from collections.abc import Callable, Sequence
from typing import Any, Protocol

import torch
from torch import nn
from transformers.modeling_layers import GradientCheckpointingLayer

from ropewalk.conf.errors import ConfigError

# children of the MLPs that compute each token by itself: Llama's (and most others'), Phi-3's
KNOWN_MLPS = (
    {"gate_proj", "up_proj", "down_proj", "act_fn"},
    {"gate_up_proj", "down_proj", "activation_fn"},
)


def enable(model: nn.Module, tile_tokens: int) -> int:
    """Tile the MLP of every decoder layer. Returns the number of tiled MLPs.

    Raises: ConfigError when the model has no decoder layer, or an MLP that is not known to compute
    token by token.
    """
    mlps: dict[str, Any] = {
        f"{name}.mlp": getattr(module, "mlp", None)
        for name, module in model.named_modules()
        if isinstance(module, GradientCheckpointingLayer)
    }
    for name, mlp in mlps.items():
        if mlp is None or set(dict(mlp.named_children())) not in KNOWN_MLPS:
            raise ConfigError(
                f"train.memory.tile_mlp_tokens is {tile_tokens}; it tiles MLPs of gate, up and "
                f"down that compute each token by itself, and {name} is {type(mlp).__name__}; set "
                "train.memory.tile_mlp_tokens=0"
            )
    if not mlps:
        raise ConfigError(
            f"train.memory.tile_mlp_tokens is {tile_tokens}; the model has no decoder layer; set "
            "train.memory.tile_mlp_tokens=0"
        )
    for mlp in mlps.values():
        mlp.forward = TiledForward(mlp, tile_tokens)
    return len(mlps)


class TiledForward:
    """Replaces an MLP's `forward`."""

    def __init__(self, mlp: nn.Module, tile_tokens: int) -> None:
        self.forward, self.tile_tokens = mlp.forward, tile_tokens
        self.parameters = list(mlp.parameters())

    def compile(self) -> None:
        """torch.compile of what computes a tile. The tiles themselves are in no graph."""
        self.forward = torch.compile(self.forward)

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        """(1, S, E) -> (1, S, E)."""
        has_gradient = torch.is_grad_enabled() and any(p.requires_grad for p in self.parameters)
        if has_gradient and not x.requires_grad:
            # the weights are no inputs of the function: below a frozen input they would silently
            # get no gradient
            x = x.detach().requires_grad_()
        output: torch.Tensor = _TiledFunction.apply(  # type: ignore[no-untyped-call]
            self.forward, x, self.tile_tokens, self.parameters
        )
        return output


class _Context(Protocol):
    """What the forward pass leaves for the backward pass."""

    mlp: Callable[[torch.Tensor], torch.Tensor]
    tile_tokens: int
    weights: list[nn.Parameter]
    saved_tensors: tuple[torch.Tensor, ...]

    def save_for_backward(self, *tensors: torch.Tensor) -> None: ...


class _TiledFunction(torch.autograd.Function):
    """The forward pass saves the input alone; the backward pass computes each tile again."""

    @staticmethod
    def forward(
        ctx: _Context,
        mlp: Callable[[torch.Tensor], torch.Tensor],
        x: torch.Tensor,
        tile_tokens: int,
        parameters: Sequence[nn.Parameter],
    ) -> torch.Tensor:
        ctx.mlp, ctx.tile_tokens = mlp, tile_tokens
        ctx.weights = [p for p in parameters if p.requires_grad]
        ctx.save_for_backward(x)
        return torch.cat([mlp(tile) for tile in x.split(tile_tokens, dim=-2)], dim=-2)

    @staticmethod
    def backward(ctx: _Context, grad_output: torch.Tensor) -> tuple[torch.Tensor | None, ...]:  # type: ignore[override]
        (x,) = ctx.saved_tensors
        grad_input = torch.empty_like(x)
        *tiles, last_tile = zip(
            *(t.split(ctx.tile_tokens, dim=-2) for t in (x, grad_output, grad_input)), strict=True
        )
        weight_grads: list[torch.Tensor] = []
        for tile, tile_grad_output, tile_grad_input in tiles:
            output, inputs = _recompute(ctx, tile)
            grad, *grads = torch.autograd.grad(output, inputs, tile_grad_output)
            tile_grad_input.copy_(grad)
            if weight_grads:
                weight_grads = [s.add_(g) for s, g in zip(weight_grads, grads, strict=True)]
            else:
                weight_grads = [g.float() for g in grads]
        _backward_last(ctx, last_tile, weight_grads)
        return None, grad_input, None, None


def _backward_last(
    ctx: _Context, tiles: tuple[torch.Tensor, ...], weight_grads: Sequence[torch.Tensor]
) -> None:
    """The last tile's backward pass, which adds the other tiles' gradients to each weight's.

    The engine then sees one gradient of each weight: ZeRO may partition a weight once it has seen
    its gradient. `tiles`: (1, T, E) slices of input, gradient of the output, and gradient of the
    input.
    """
    tile, grad_output, grad_input = tiles
    output, (leaf, *_) = _recompute(ctx, tile)
    hooks = [
        weight.register_hook(_add_in_fp32(grad))
        for weight, grad in zip(ctx.weights, weight_grads, strict=False)
    ]
    torch.autograd.backward(output, grad_output)
    for hook in hooks:
        hook.remove()
    assert leaf.grad is not None
    grad_input.copy_(leaf.grad)


def _recompute(ctx: _Context, tile: torch.Tensor) -> tuple[torch.Tensor, list[torch.Tensor]]:
    """The tile's output, and the leaves of its graph: the tile and the trained weights."""
    leaf = tile.detach().requires_grad_()
    with torch.enable_grad():
        return ctx.mlp(leaf), [leaf, *ctx.weights]


def _add_in_fp32(others: torch.Tensor) -> Callable[[torch.Tensor], torch.Tensor]:
    """A gradient hook that adds the fp32 sum of the other tiles' gradients, and rounds once."""
    return lambda last: (others + last).to(last.dtype)
