"""Windows and sinks inside Ulysses' exchange, against each document alone in one process.

The reference is transformers' eager attention.
"""

from typing import Any

import numpy as np
import pytest
import ranks
import torch
import ulysses_model_ranks
from architectures import small_model
from ulysses_model_ranks import ENDS, ids, weighted

MIXED = {
    "sliding_window": 6,
    "num_hidden_layers": 2,
    "layer_types": ["sliding_attention", "full_attention"],
}
MODELS: dict[str, tuple[str, dict[str, Any]]] = {
    "mistral": ("Mistral", {"sliding_window": 6, "num_hidden_layers": 2}),
    "gemma 3": ("Gemma3Text", MIXED),
    "gpt-oss": ("GptOss", {**MIXED, "num_local_experts": 4, "num_experts_per_tok": 2}),
}
THREE = {"hidden_size": 48, "num_attention_heads": 3, "num_key_value_heads": 1}
MODELS |= {f"{name} of 3 heads": (kind, {**c, **THREE}) for name, (kind, c) in MODELS.items()}
slow = pytest.mark.slow


def alone(
    kind: str, changes: dict[str, Any], dtype: torch.dtype = torch.float32
) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    model = small_model(kind, changes).to(dtype)
    model.set_attn_implementation("eager")
    parts = [
        model.base_model(input_ids=ids(None)[a:b][None], use_cache=False).last_hidden_state[0]
        for a, b in zip(ENDS, ENDS[1:], strict=False)
    ]
    hidden = torch.cat(parts)
    weighted(hidden, slice(None)).backward()
    return hidden.detach(), {
        name: p.grad for name, p in model.named_parameters() if p.grad is not None
    }


@pytest.mark.parametrize(
    ("name", "world"),
    [
        ("mistral", 2),
        ("gemma 3", 4),
        ("gpt-oss", 4),
        ("gpt-oss of 3 heads", 2),
        # four groups of heads, two parts of the sequence
        pytest.param("gemma 3", 8, marks=slow),
        pytest.param("gpt-oss", 8, marks=slow),
        pytest.param("mistral of 3 heads", 2, marks=slow),
        pytest.param("gemma 3 of 3 heads", 8, marks=slow),
    ],
)
def test_states_and_gradients_are_those_of_each_document_alone(name: str, world: int) -> None:
    """Four ranks have fewer key/value heads than ranks, and each a part of the sinks. Heads that
    the ranks do not divide: each rank attends for a part of the sequence.
    """
    kind, changes = MODELS[name]
    token = 16  # of the third document, whose next ones reach into another rank's slice
    results = ranks.run(
        world, ulysses_model_ranks.hidden_states_and_gradients, kind, changes, [None, token]
    )
    hidden_states, changed_states = (
        torch.from_numpy(np.concatenate([states[n] for states, _ in results])) for n in (0, 1)
    )
    expected, expected_gradients = alone(kind, changes)
    torch.testing.assert_close(hidden_states, expected, atol=2e-5, rtol=1e-5)
    for _, rank_gradients in results:
        assert rank_gradients.keys() == expected_gradients.keys()
        for key, gradient in expected_gradients.items():
            assert (
                torch.from_numpy(rank_gradients[key]) - gradient
            ).norm() <= 1e-5 * gradient.norm() + 1e-7, key
    changed = (hidden_states != changed_states).any(dim=1).nonzero().flatten().tolist()
    # two windowed layers reach 2 x 5 tokens on; a full layer to the document's end
    reach = 2 * 5 if name.startswith("mistral") else ENDS[3]
    assert token in changed and set(changed) <= set(range(token, min(ENDS[3], token + reach + 1)))


def of_heads(heads: int, shared: int) -> dict[str, Any]:
    sizes = {"num_attention_heads": heads, "num_key_value_heads": shared, "num_hidden_layers": 2}
    return {"hidden_size": 8 * heads, "head_dim": 8, **sizes}


EVERY = [(1, 1), (2, 1), (2, 2), (3, 1), (3, 3), (6, 3), (7, 1), (7, 7), (9, 3), (9, 9), (12, 3)]


@pytest.mark.parametrize(
    ("world", "heads"),
    [
        (2, [(3, 1)]),
        *(pytest.param(world, EVERY, marks=slow) for world in (2, 4, 8)),
    ],
)
def test_gradients_by_heads_are_those_of_each_document_alone(
    world: int, heads: list[tuple[int, int]]
) -> None:
    """In double precision but for the norms and eager attention's softmax, which transformers
    computes in single precision.
    """
    every = [of_heads(*pair) for pair in heads]
    results = ranks.run(world, ulysses_model_ranks.by_heads, every)
    for number, changes in enumerate(every):
        states = [
            torch.from_numpy(np.concatenate([rank[number][0][n] for rank in results]))
            for n in (0, 1)
        ]
        expected, gradients = alone("Llama", changes, torch.float64)
        assert (states[0] - expected).norm() < 1e-6 * expected.norm(), heads[number]
        changed = (states[0] != states[1]).any(dim=1).nonzero().flatten()
        assert changed.min() == 5 and changed.max() < ENDS[1]
        actual = results[0][number][1]
        assert actual.keys() == gradients.keys()
        for name, gradient in gradients.items():
            apart = (torch.from_numpy(actual[name]) - gradient).norm() / gradient.norm()
            assert apart < 1e-6, (heads[number], name, apart)
