""""""

from typing import Any

import torch
from torch import nn
from transformers import PreTrainedModel

from ropewalk.train.loss import summed_objective
from ropewalk.train.rope.mixed_windows import MixedWindows


class LossModel(nn.Module):
    """The loss inside the module: called around the engine, ZeRO-3 gradients of a chunked loss come out wrong."""

    def __init__(self, model: PreTrainedModel, z_loss: float = 0.0) -> None:
        super().__init__()
        self.model, self.z_loss = model, z_loss
        self.rope: MixedWindows | None = None
        self.plain = torch.zeros(
            ()
        )  # what the last call returned, without the z-loss and without a gradient
        self.nll: torch.Tensor | None = (
            None  # (S,) fp32, of the last row: each token's loss, 0 where it does not count
        )

    def forward(
        self,
        input_ids: torch.Tensor,
        position_ids: torch.Tensor,
        labels: torch.Tensor,
        total: int,
        **borders: Any,
    ) -> torch.Tensor:
        """Sum of the row's losses over `total`, the labels that count in the whole global batch. All inputs (1, S)."""
        if self.rope is not None:
            # validation measures what is exported: the plan's model
            self.rope.choose(
                borders["document_ends"] if self.training else None,
                input_ids.shape[1],
                input_ids.device,
            )
        body = self.model.base_model
        hidden = body(
            input_ids=input_ids, position_ids=position_ids, use_cache=False, **borders
        ).last_hidden_state
        head = self.model.get_output_embeddings().weight  # type: ignore[union-attr]
        self.nll = torch.empty(labels.shape[1], dtype=torch.float32, device=labels.device)
        summed, plain = summed_objective(hidden[0], head, labels[0], self.z_loss, nll=self.nll)  # type: ignore[arg-type]
        self.plain = plain / total
        return summed / total
