"""Proof, before the first step, that a model's code fits the trainer's attention and its loss.

Documents laid end to end must not see each other, sliding windows must reach the kernel, and the
logits must be hidden states times head, as the loss assumes. An architecture may mix tokens outside
its attention (convolutions, states), or apply its window in a mask that our kernels never see: it
would train on, with losses that look right.

    S tokens (9)   E hidden size   V vocabulary
"""

from typing import Any

import torch
from torch import nn
from transformers import PreTrainedModel

from ropewalk.conf.errors import ConfigError
from ropewalk.train.attention.borders import document_borders
from ropewalk.train.attention.sdpa import sdpa
from ropewalk.train.model.attention_swap import swapped_attention
from ropewalk.train.model.geometry import sliding_layers
from ropewalk.train.zero import params

NAME = "ropewalk_leaks"
FIRST, SECOND = 5, 4
"""Tokens of the two documents."""


def prove_documents_isolated(model: PreTrainedModel) -> None:
    """Run the model twice on two small documents, the first one changed, through our SDPA.

    The model's own attention implementation is restored. Raises: ConfigError when a proof fails;
    it names the layer or the architecture.
    """
    windows: dict[int, int | None] = {}

    def record(
        module: nn.Module, *args: Any, sliding_window: int | None = None, **kwargs: Any
    ) -> tuple[torch.Tensor, None]:
        windows[int(getattr(module, "layer_idx", len(windows)))] = sliding_window
        return sdpa(module, *args, sliding_window=sliding_window, **kwargs)

    with swapped_attention(model, NAME, record):
        hidden, changed_hidden = (_hidden_states(model, shift) for shift in (0, 1))
        _check_logits(model, hidden)
    _check_windows(model, windows)
    _check_isolated(model, hidden[FIRST:], changed_hidden[FIRST:])


def _hidden_states(model: PreTrainedModel, shift: int) -> torch.Tensor:
    """Last hidden states (S, E) fp32; `shift` is added to the token ids of the first document."""
    output = forward_two_documents(model.base_model, model, shift)
    return output.last_hidden_state[0].float()  # type: ignore[no-any-return]


def forward_two_documents(
    part: nn.Module, model: PreTrainedModel, shift: int, **options: Any
) -> Any:
    """The output of `part`, which is the model or its body, on the two documents.

    `options`: further arguments of the call.
    """
    device = next(model.parameters()).device
    ids = torch.arange(1, 1 + FIRST + SECOND, device=device)
    ids[:FIRST] += shift
    positions = torch.cat([torch.arange(FIRST), torch.arange(SECOND)]).to(device)
    cu_seqlens = torch.tensor([0, FIRST, FIRST + SECOND], dtype=torch.int32)
    with torch.no_grad():
        return part(
            input_ids=ids[None],
            position_ids=positions[None],
            use_cache=False,
            **document_borders(cu_seqlens, device),
            **options,
        )


def _check_logits(model: PreTrainedModel, hidden: torch.Tensor) -> None:
    """Hold the logits (S, V) against the product of the hidden states (S, E) and the head (V, E).

    The chunked loss computes only that product: it would leave out a scale, a cap or a bias.
    """
    logits = forward_two_documents(model, model, 0).logits[0].float()
    head = model.get_output_embeddings().weight  # type: ignore[union-attr]
    with params.gathered(head), torch.no_grad():  # type: ignore[arg-type]
        product = (hidden.to(head.dtype) @ head.T).float()  # type: ignore[operator, call-overload]
    distance = float((logits - product).abs().max())
    if not distance <= _rounding(model, product):
        raise ConfigError(
            f"model.path is a {model.config.model_type}; its logits are not its hidden states "
            f"times its head, but {distance:.2g} away from it: the loss would be another model's; "
            "choose another model"
        )


def _check_windows(model: PreTrainedModel, windows: dict[int, int | None]) -> None:
    """Each layer that the config calls sliding must pass its window to the kernel, and no other."""
    sliding = sliding_layers(model.config)
    for layer, window in sorted(windows.items()):
        # layers without an index are numbered on through the forward passes
        expected = sliding[layer % len(sliding)]
        if expected != (window is not None):
            kind = "a sliding-window layer" if expected else "no sliding-window layer"
            raise ConfigError(
                f"model.path is a {model.config.model_type}; its layer {layer} is {kind} and its "
                f"code gives its attention kernel the window {window}; another model would be "
                "trained; choose another model"
            )


def _check_isolated(model: PreTrainedModel, hidden: torch.Tensor, changed: torch.Tensor) -> None:
    """Hidden states (SECOND, E) of the second document must not depend on the first one.

    Experts compute other batches of tokens, so equal values may differ by a few roundings.
    """
    distance = float((hidden - changed).abs().max())
    if not distance <= _rounding(model, hidden):
        raise ConfigError(
            f"model.path is a {model.config.model_type}; a document changes the hidden states of "
            f"the next one by {distance:.2g}: it mixes tokens elsewhere than in its attention; "
            "documents could not be kept apart; choose another model"
        )


def _rounding(model: PreTrainedModel, values: torch.Tensor) -> float:
    """A difference that a few roundings in the model's dtype can make."""
    return 8 * torch.finfo(model.dtype).eps * float(values.abs().max())
