"""How the model is called to be scored."""

from types import SimpleNamespace
from typing import Any

import numpy as np
import torch

from ropewalk.data.dataset import concatenate
from ropewalk.eval.measure.score import hidden_states


def test_the_model_keeps_no_keys_and_values_of_a_text_that_is_only_scored() -> None:
    calls: list[dict[str, Any]] = []

    def base_model(**kwargs: Any) -> SimpleNamespace:
        calls.append(kwargs)
        return SimpleNamespace(last_hidden_state=torch.zeros(1, 5, 4))

    model: Any = SimpleNamespace(base_model=base_model, device=torch.device("cpu"))
    states = hidden_states(model, concatenate([np.array([7, 8, 9]), np.array([1, 2])], 5))
    assert states.shape == (5, 4) and calls[0]["use_cache"] is False
    assert calls[0]["input_ids"].tolist() == [[7, 8, 9, 1, 2]]
    assert calls[0]["position_ids"].tolist() == [[0, 1, 2, 0, 1]]
