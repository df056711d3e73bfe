"""The model that returns its loss: the cross-entropy, and what is minimised beside it.

S tokens of this rank's row   E hidden size   V vocabulary
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedModel

from ropewalk.train.loss import summed_objective
from ropewalk.train.memory.kept_attention import KeptAttention
from ropewalk.train.rope.mixed_windows import MixedWindows
from ropewalk.train.router_loss import RouterLoss, Routing, can_record


class TokenLoss(nn.Module):
    """Cross-entropy and z-loss of hidden states.

    A module of its own, although it has no parameter: ZeRO 3 then gathers the head's weight, which
    may be larger than all that it keeps gathered otherwise, around the loss only. Read by
    `LossModel` itself, the weight would be there from before the first layer until after the last,
    and no layer would be prefetched.
    """

    def __init__(self, head_weight: Callable[[], torch.Tensor], z_loss: float = 0.0) -> None:
        """`head_weight` returns the (V, E) weight of the model's output head."""
        super().__init__()
        self.head_weight, self.z_loss = head_weight, z_loss
        self.cross_entropy = torch.zeros(())
        self.nll = torch.zeros(0)
        self.hits: torch.Tensor | None = None

    def forward(
        self,
        hidden: torch.Tensor,
        labels: torch.Tensor,
        total_labels: int,
        label_positions: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """The summed losses over `total_labels`.

        hidden (S, E), labels (S,), label_positions (N,) as `summed_objective` takes them -> ().
        """
        self.nll = torch.empty(len(labels), dtype=torch.float32, device=labels.device)
        self.hits = None if torch.is_grad_enabled() else torch.empty_like(labels, dtype=torch.bool)
        loss, cross_entropy = summed_objective(
            hidden,
            self.head_weight(),
            labels,
            self.z_loss,
            nll=self.nll,
            hits=self.hits,
            label_positions=label_positions,
        )
        self.cross_entropy = cross_entropy / total_labels
        return loss / total_labels


class LossModel(nn.Module):
    """A model whose `forward` returns its loss.

    The loss is computed inside: around the engine, ZeRO 3 gives wrong gradients of a chunked loss.
    """

    def __init__(
        self, model: PreTrainedModel, z_loss: float = 0.0, router_loss: RouterLoss | None = None
    ) -> None:
        super().__init__()
        self.model, self.router_loss = model, router_loss
        self.token_loss = TokenLoss(self.head_weight, z_loss)
        self.rope: MixedWindows | None = None
        self.kept_attention: KeptAttention | None = None
        """What activation checkpointing keeps of attention; None where it computes it again."""
        self.router_part = torch.zeros(())
        """The router's loss in the last call; it carries no gradient."""
        self.routing: Routing | None = None
        """How the last batch in training was routed; None without a router's loss."""

    @property
    def cross_entropy(self) -> torch.Tensor:
        """The last call's loss without the z-loss and the router's; it carries no gradient."""
        return self.token_loss.cross_entropy

    @property
    def nll(self) -> torch.Tensor:
        """(S,) fp32: the loss of each token in the last call, 0 where its label is ignored."""
        return self.token_loss.nll

    @property
    def hits(self) -> torch.Tensor:
        """(S,) bool: whether each label of the last call, which had no gradient, is the likeliest
        token; False where it is ignored."""
        assert self.token_loss.hits is not None
        return self.token_loss.hits

    def head_weight(self) -> torch.Tensor:
        """The (V, E) weight of the output head, which ZeRO 3 may have partitioned."""
        return self.model.get_output_embeddings().weight  # type: ignore[union-attr, return-value]

    def forward(
        self,
        input_ids: torch.Tensor,
        position_ids: torch.Tensor,
        labels: torch.Tensor,
        total_labels: int,
        label_positions: torch.Tensor | None = None,
        is_text: torch.Tensor | None = None,
        batch_routing: Routing | None = None,
        **borders: Any,
    ) -> torch.Tensor:
        """The row's summed losses over `total_labels`, the valid labels of the whole global batch.

        input_ids, position_ids, labels (1, S); `label_positions` (N,) int64 as `summed_objective`
        takes it; `borders` as attention.document_borders gives them -> (). For the router's loss:
        `is_text` (S,) bool, False on padding; `batch_routing`, how the global batch is routed,
        which is this call's rows on all ranks where it is None.
        """
        if self.rope is not None:
            # in validation the exported model is measured: the plan's
            ends = borders["document_ends"] if self.training else None
            self.rope.choose(ends, input_ids.shape[1], input_ids.device)
        with_router = self.training and self.router_loss is not None
        if can_record(self.model):  # where it is not said, the config decides
            borders["output_router_logits"] = with_router
        output = self.model.base_model(
            input_ids=input_ids, position_ids=position_ids, use_cache=False, **borders
        )
        # only what is positional passes the hooks of ZeRO 3
        loss: torch.Tensor = self.token_loss(
            output.last_hidden_state[0],
            labels[0],
            total_labels=total_labels,
            label_positions=label_positions,
        )
        if not with_router:
            return loss
        return loss + self._router_loss(output.router_logits, is_text, batch_routing)

    def _router_loss(
        self,
        router_logits: tuple[torch.Tensor, ...],
        is_text: torch.Tensor | None,
        batch_routing: Routing | None,
    ) -> torch.Tensor:
        """The row's part of the router's loss. router_logits (S, experts) of each layer -> ()."""
        assert self.router_loss is not None
        if is_text is None:
            is_text = torch.ones(len(router_logits[0]), device=router_logits[0].device)
        row, probabilities = self.router_loss.route(router_logits, is_text)
        self.routing = row.over_all_ranks() if batch_routing is None else batch_routing
        part = self.router_loss.objective(probabilities, self.routing)
        self.router_part = part.detach()
        return part
