"""Questions about one context in one pass against each of them alone under eager attention."""

from typing import Any

import numpy as np
import pytest
import torch
from architectures import small_model
from models import documents

from ropewalk.train import attention
from ropewalk.train.attention.shared_context import shared_context

CONTEXT = 30
QUESTIONS = [4, 11, 1, 7]
"""Tokens of each, of which the first goes with the context."""
WINDOWS = {"layer_types": ["sliding_attention", "full_attention"] * 2, "sliding_window": 6}
MODELS: dict[str, tuple[str, dict[str, Any]]] = {
    "llama": ("Llama", {}),
    "qwen 3": ("Qwen3", {}),
    "gemma 3": ("Gemma3Text", WINDOWS),
    "gpt-oss": ("GptOss", {**WINDOWS, "num_local_experts": 4, "num_experts_per_tok": 2}),
}


def hidden(model: Any, ids: np.ndarray, **kwargs: Any) -> torch.Tensor:
    with torch.no_grad():
        output = model.base_model(torch.from_numpy(ids)[None], use_cache=False, **kwargs)
    return output.last_hidden_state[0]  # type: ignore[no-any-return]


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("padding", [0, 3])
def test_each_question_sees_the_context_and_no_other_question(name: str, padding: int) -> None:
    model = small_model(*MODELS[name])
    model.set_attn_implementation("eager")
    context, *questions = documents([CONTEXT, *QUESTIONS])
    alone = [hidden(model, np.concatenate([context, q]))[CONTEXT:] for q in questions]
    model.set_attn_implementation(attention.register("sdpa"))
    lengths = [CONTEXT + QUESTIONS[0], *QUESTIONS[1:], *([padding] if padding else [])]
    borders = attention.document_borders(torch.tensor([0, *lengths]).cumsum(0, dtype=torch.int32))
    positions = [torch.arange(lengths[0]), *(CONTEXT + torch.arange(n) for n in lengths[1:])]
    ids = np.concatenate([context, *questions, np.zeros(padding, int)])
    device = torch.device("cpu")
    shared = shared_context(borders["document_ends"], len(QUESTIONS), CONTEXT, device)
    inputs = {"position_ids": torch.cat(positions)[None], "shared_context": shared, **borders}
    together = hidden(model, ids, **inputs)[CONTEXT:]
    assert shared.layers == 4
    for one, of_all in zip(alone, together.split([*QUESTIONS, padding]), strict=False):
        torch.testing.assert_close(of_all, one, rtol=1e-4, atol=1e-4)
