"""The model that returns its loss: the cross-entropy, and what is minimised beside it."""

from typing import Any

import torch
from torch import nn
from transformers import PreTrainedModel

from ropewalk.train.loss import summed_objective
from ropewalk.train.rope.mixed_windows import MixedWindows
from ropewalk.train.router_loss import RouterLoss, Routing, can_record


class LossModel(nn.Module):
    """A model whose `forward` returns its loss.

    The loss is computed inside: around the engine, ZeRO 3 gives wrong gradients of a chunked loss.

        S tokens of this rank's row   E hidden size
    """

    def __init__(
        self, model: PreTrainedModel, z_loss: float = 0.0, router_loss: RouterLoss | None = None
    ) -> None:
        super().__init__()
        self.model, self.z_loss, self.router_loss = model, z_loss, router_loss
        self.rope: MixedWindows | None = None
        self.cross_entropy = torch.zeros(())
        """The last call's loss without the z-loss and the router's; it carries no gradient."""
        self.router_part = torch.zeros(())
        """The router's loss in the last call; it carries no gradient."""
        self.routing: Routing | None = None
        """How the last batch in training was routed; None without a router's loss."""
        self.nll = torch.zeros(0)
        """(S,) fp32: the loss of each token in the last call, 0 where its label is ignored."""

    def forward(
        self,
        input_ids: torch.Tensor,
        position_ids: torch.Tensor,
        labels: torch.Tensor,
        total_labels: int,
        is_text: torch.Tensor | None = None,
        batch_routing: Routing | None = None,
        **borders: Any,
    ) -> torch.Tensor:
        """The row's summed losses over `total_labels`, the valid labels of the whole global batch.

        input_ids, position_ids, labels (1, S); `borders` as attention.document_borders gives them
        -> (). For the router's loss: `is_text` (S,) bool, False on padding; `batch_routing`, how
        the global batch is routed, which is this call's rows on all ranks where it is None.
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
        loss = self._token_losses(output.last_hidden_state[0], labels[0], total_labels)
        if not with_router:
            return loss
        return loss + self._router_loss(output.router_logits, is_text, batch_routing)

    def _token_losses(
        self, hidden: torch.Tensor, labels: torch.Tensor, total_labels: int
    ) -> torch.Tensor:
        """Cross-entropy and z-loss. hidden (S, E), labels (S,) -> ()."""
        head = self.model.get_output_embeddings().weight  # type: ignore[union-attr]
        self.nll = torch.empty(len(labels), dtype=torch.float32, device=labels.device)
        loss, cross_entropy = summed_objective(
            hidden,
            head,  # type: ignore[arg-type]
            labels,
            self.z_loss,
            nll=self.nll,
        )
        self.cross_entropy = cross_entropy / total_labels
        return loss / total_labels

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
