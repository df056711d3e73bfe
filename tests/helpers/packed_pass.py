"""One pass of documents that are laid end to end, under the model's attention: its hidden states,
and the losses of torch's own cross-entropy."""

import torch
import torch.nn.functional as F
from transformers import PreTrainedModel

from ropewalk.data.dataset import Row
from ropewalk.train.attention import document_borders
from ropewalk.train.model.build import evaluating


def hidden_states(model: PreTrainedModel, row: Row) -> torch.Tensor:
    """The last ones: (S, E)."""
    ids, positions = (torch.from_numpy(array)[None] for array in (row.input_ids, row.position_ids))
    borders = document_borders(torch.from_numpy(row.cu_seqlens), ids.device)
    with evaluating(model):
        output = model.base_model(input_ids=ids, position_ids=positions, use_cache=False, **borders)
    return output.last_hidden_state[0]  # type: ignore[no-any-return]


def logits(model: PreTrainedModel, row: Row) -> torch.Tensor:
    """(S, V)."""
    return hidden_states(model, row) @ model.get_output_embeddings().weight.detach().T


def losses(model: PreTrainedModel, row: Row) -> torch.Tensor:
    """In nats, 0 without a label: (S,)."""
    return F.cross_entropy(logits(model, row), torch.from_numpy(row.labels), reduction="none")
