"""The module that DeepSpeed's engine wraps: model and loss together."""

from typing import Any

import torch
from torch import nn
from transformers import PreTrainedModel

from ropewalk.train.loss import summed_objective
from ropewalk.train.rope.mixed_windows import MixedWindows


class LossModel(nn.Module):
    """A model whose `forward` returns its loss.

    The loss is computed inside: around the engine, ZeRO 3 gives wrong gradients of a chunked loss.

        S tokens of this rank's row
    """

    def __init__(self, model: PreTrainedModel, z_loss: float = 0.0) -> None:
        super().__init__()
        self.model, self.z_loss = model, z_loss
        self.rope: MixedWindows | None = None
        self.cross_entropy = torch.zeros(())
        """The last call's loss without the z-loss; it carries no gradient."""
        self.nll = torch.zeros(0)
        """(S,) fp32: the loss of each token in the last call, 0 where its label is ignored."""

    def forward(
        self,
        input_ids: torch.Tensor,
        position_ids: torch.Tensor,
        labels: torch.Tensor,
        total_labels: int,
        **borders: Any,
    ) -> torch.Tensor:
        """The row's summed losses over `total_labels`, the valid labels of the whole global batch.

        input_ids, position_ids, labels (1, S); `borders` as attention.document_borders gives them
        -> ().
        """
        if self.rope is not None:
            # in validation the exported model is measured: the plan's
            ends = borders["document_ends"] if self.training else None
            self.rope.choose(ends, input_ids.shape[1], input_ids.device)
        hidden = self.model.base_model(
            input_ids=input_ids, position_ids=position_ids, use_cache=False, **borders
        ).last_hidden_state
        head = self.model.get_output_embeddings().weight  # type: ignore[union-attr]
        self.nll = torch.empty(labels.shape[1], dtype=torch.float32, device=labels.device)
        loss, cross_entropy = summed_objective(
            hidden[0],
            head,  # type: ignore[arg-type]
            labels[0],
            self.z_loss,
            nll=self.nll,
        )
        self.cross_entropy = cross_entropy / total_labels
        return loss / total_labels
