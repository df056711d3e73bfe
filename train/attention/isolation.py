"""Proof, before the first step, that documents laid end to end do not see each other in this model, that windows arrive, and that its
logits are what the loss takes them for.

An architecture may mix tokens elsewhere than in its attention (convolutions, states), or say its window in a mask that our kernels
never see: both would train on, with losses that look right.

S tokens (9)   E hidden size
"""

from typing import Any

import torch
from transformers import AttentionInterface, AttentionMaskInterface, PreTrainedModel

from ropewalk.conf.errors import ConfigError
from ropewalk.train.attention.backend import no_mask
from ropewalk.train.attention.borders import document_borders
from ropewalk.train.attention.sdpa import sdpa
from ropewalk.train.rope.model_config import has_sliding_layers
from ropewalk.train.zero import params

NAME = "ropewalk_leaks"
FIRST, SECOND = 5, 4
"""Tokens of two documents."""


def prove_documents_isolated(model: PreTrainedModel) -> None:
    """Run the model twice on two small documents, the first one changed, through per-document SDPA.

    The model's own implementation is set again after it. Raises: ConfigError that names the layer or the architecture.
    """
    windows: dict[int, int | None] = {}

    def record(module: Any, *args: Any, sliding_window: int | None = None, **words: Any) -> Any:
        windows[int(getattr(module, "layer_idx", len(windows)))] = sliding_window
        return sdpa(module, *args, sliding_window=sliding_window, **words)

    AttentionInterface.register(NAME, record)
    AttentionMaskInterface.register(NAME, no_mask)
    before, training = model.config._attn_implementation, model.training
    model.set_attn_implementation(NAME)
    model.eval()
    try:
        one, other = (_hidden(model, changed) for changed in (0, 1))
        _check_logits(model, one)
    finally:
        model.set_attn_implementation(before)  # type: ignore[arg-type]
        model.train(training)
    _check_windows(model, windows)
    _check_apart(model, one[FIRST:], other[FIRST:])


def _hidden(model: PreTrainedModel, changed: int) -> torch.Tensor:
    """Last hidden states (S, E) fp32, with another first document where `changed` is 1."""
    found = _forward(model.base_model, model, changed)
    return found.last_hidden_state[0].float()  # type: ignore[no-any-return]


def _forward(part: Any, model: PreTrainedModel, changed: int) -> Any:
    at = next(model.parameters()).device
    ids = torch.arange(1, 1 + FIRST + SECOND, device=at)
    ids[:FIRST] += changed
    positions = torch.cat([torch.arange(FIRST), torch.arange(SECOND)]).to(at)
    marks = document_borders(torch.tensor([0, FIRST, FIRST + SECOND], dtype=torch.int32, device=at))
    with torch.no_grad():
        return part(input_ids=ids[None], position_ids=positions[None], use_cache=False, **marks)


def _check_logits(model: PreTrainedModel, hidden: torch.Tensor) -> None:
    """The chunked loss multiplies hidden states (S, E) by the head and nothing more: a scale, a cap or a bias would be left out of it."""
    logits, head = _forward(model, model, 0).logits[0].float(), model.get_output_embeddings().weight  # type: ignore[union-attr]
    with params.gathered(head), torch.no_grad():  # type: ignore[arg-type]
        plain = (hidden.to(head.dtype) @ head.T).float()  # type: ignore[operator, call-overload]
    apart, allowed = (
        float((logits - plain).abs().max()),
        8 * torch.finfo(model.dtype).eps * float(plain.abs().max()),
    )
    if not apart <= allowed:
        raise ConfigError(
            f"model.path is a {model.config.model_type}; its logits are not its hidden states times its head, but {apart:.2g} away from it: "
            "the loss would be another model's; choose another model"
        )


def _check_windows(model: PreTrainedModel, windows: dict[int, int | None]) -> None:
    """Each layer that its config calls sliding must give its kernel the window, and no other one may."""
    config = model.config
    kinds = getattr(config, "layer_types", None)
    for layer, window in sorted(windows.items()):
        wanted = kinds[layer] == "sliding_attention" if kinds else has_sliding_layers(config)
        if wanted != (window is not None):
            kind = "a sliding-window layer" if wanted else "no sliding-window layer"
            raise ConfigError(
                f"model.path is a {config.model_type}; its layer {layer} is {kind} and its code gives its attention kernel the window "
                f"{window}; what it trains would not be what it is; choose another model"
            )


def _check_apart(model: PreTrainedModel, one: torch.Tensor, other: torch.Tensor) -> None:
    """Experts are computed on other batches of tokens, so what is equal may differ by a few roundings."""
    apart, allowed = (
        float((one - other).abs().max()),
        8 * torch.finfo(model.dtype).eps * float(one.abs().max()),
    )
    if not apart <= allowed:
        raise ConfigError(
            f"model.path is a {model.config.model_type}; a document changes the hidden states of the next one by {apart:.2g}: it mixes "
            "tokens elsewhere than in its attention; documents could not be kept apart; choose another model"
        )
