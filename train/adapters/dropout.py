"""An adapter's dropout, the same at any number of ranks: drawn by sequence and token.

torch's own is drawn from a generator of the rank, in the order of the calls, so each way of cutting
the global batch would train another adapter. Here the mask of a token is a function of the seed,
the step, the layer, the sequence in the plan and the token's place in it; no generator's state
matters, so a layer that is computed again drops the same elements.

    S tokens of this rank's row   E inputs of the layer
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import torch
from torch import nn

from ropewalk.conf.artifacts.manifest import fingerprint
from ropewalk.conf.errors import ConfigError
from ropewalk.data.dataset import TokenSpan

BLOCK_TOKENS = 512
"""Tokens of a sequence that are drawn at once, from a seed of their own."""


@dataclass(eq=False)
class DrawnRow:
    """What the masks of the current micro-batch are drawn from; shared by all layers."""

    key: tuple[object, ...] = ()
    """The run's seed, the phase and the step."""
    spans: Sequence[TokenSpan] = field(default_factory=tuple)
    """The sequences of the row, in order; empty outside the training's steps: nothing is dropped"""


class TokenDropout(nn.Module):
    """Takes the place of an adapter's `nn.Dropout`."""

    def __init__(self, probability: float, layer: str, row: DrawnRow) -> None:
        super().__init__()
        self.probability, self.layer, self.row = probability, layer, row

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(1, S, E) -> (1, S, E). Raises: ConfigError when the layer sees other tokens."""
        if not self.training or not self.row.spans:
            return x
        tokens = sum(span.end - span.begin for span in self.row.spans)
        if x.numel() != tokens * x.shape[-1]:
            raise ConfigError(
                f"train.lora.dropout is {self.probability}; {self.layer} sees {x.numel()} values "
                f"of {x.shape[-1]} a token, not those of the row's {tokens} tokens, so none can be "
                "dropped by token; set train.lora.dropout=0, or leave it out of train.lora.targets"
            )
        kept = torch.cat([*self._kept(x.shape[-1], x.device)]).view_as(x)
        return x * kept.to(x.dtype) / (1 - self.probability)

    def _kept(self, width: int, device: torch.device) -> Iterator[torch.Tensor]:
        """Masks (tokens, E) bool of each block of each sequence of the row."""
        generator = torch.Generator(device)
        for span in self.row.spans:
            first = span.begin // BLOCK_TOKENS
            for block in range(first, -(-span.end // BLOCK_TOKENS)):
                key = [*self.row.key, self.layer, span.number, span.epoch, block]
                generator.manual_seed(int(fingerprint(["dropout", *key])[:15], 16))
                drawn = torch.rand(BLOCK_TOKENS, width, generator=generator, device=device)
                start = block * BLOCK_TOKENS
                own = slice(max(span.begin - start, 0), min(span.end - start, BLOCK_TOKENS))
                yield drawn[own] >= self.probability


def install(model: nn.Module) -> None:
    """Replace the dropout of an adapter that was just attached to `model`."""
    row = DrawnRow()
    for name, module in list(model.named_modules()):
        if isinstance(module, nn.Dropout) and ".lora_dropout." in name:
            model.set_submodule(name, TokenDropout(module.p, name, row))


def row_of(model: nn.Module) -> DrawnRow:
    """The row that all layers of `model` share; one that nobody reads without dropout."""
    rows = (module.row for module in model.modules() if isinstance(module, TokenDropout))
    return next(rows, DrawnRow())
