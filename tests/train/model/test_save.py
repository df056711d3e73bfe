"""A model partitioned over two ranks is saved with full tensors; an empty tensor is refused."""

from pathlib import Path

import pytest
import ranks
import save_ranks
import torch
from models import tiny_model
from transformers import AutoModelForCausalLM


@pytest.mark.parametrize("tied", [True, False])
def test_a_partitioned_model_is_saved_with_full_tensors(tmp_path: Path, tied: bool) -> None:
    changes = {"tie_word_embeddings": tied}
    assert ranks.run(2, save_ranks.export_partitioned, str(tmp_path), changes) == [False, False]
    result = AutoModelForCausalLM.from_pretrained(tmp_path, dtype=torch.float32).state_dict()
    expected = tiny_model(**changes).state_dict()
    assert set(result) == set(expected)
    assert all(torch.equal(result[name], expected[name]) for name in expected)


def test_an_empty_tensor_is_refused_by_name() -> None:
    (message,) = ranks.run(1, save_ranks.error_of_empty_weight)
    assert message.startswith(
        "RopewalkError: b.weight is empty, and 0 more; a saved model must have whole tensors"
    )
