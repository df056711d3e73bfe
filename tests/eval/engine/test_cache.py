"""Keys and values that are appended and rolled back, against transformers' own cache."""

import engine_models
import pytest
import torch
from transformers import DynamicCache

from ropewalk.eval.engine.cache import AppendCache
from ropewalk.eval.engine.whole import number_of_layers


@pytest.mark.parametrize("name", list(engine_models.MODELS))
def test_a_rollback_leaves_what_was_computed_before_it(name: str) -> None:
    """transformers builds the masks, windows among them, from the sizes that the cache tells."""
    model = engine_models.reference(name)
    tokens = torch.arange(3, 83)[None]
    own, theirs = AppendCache(number_of_layers(model.config), 90), DynamicCache(config=model.config)
    with torch.no_grad():
        model(tokens[:, :50], past_key_values=own)
        model(tokens.flip(1)[:, :40], past_key_values=own)
        own.rollback(50)
        model(tokens[:, :50], past_key_values=theirs)
        for start, end in ((50, 51), (51, 80)):
            ours = model(tokens[:, start:end], past_key_values=own).logits
            expected = model(tokens[:, start:end], past_key_values=theirs).logits
            torch.testing.assert_close(ours, expected, atol=1e-4, rtol=1e-5)
    assert own.get_seq_length() == 80
    own.crop(-30)
    assert own.get_seq_length() == 50 and own.is_croppable


def test_an_appended_token_copies_no_other() -> None:
    cache = AppendCache(1, 8)
    keys = torch.ones(1, 2, 5, 4)
    first, _ = cache.update(keys, keys, 0)
    second, values = cache.update(keys[:, :, :1] * 2, keys[:, :, :1] * 3, 0)
    assert second.data_ptr() == first.data_ptr() and second.shape == (1, 2, 6, 4)
    assert values[0, 0, :, 0].tolist() == [1, 1, 1, 1, 1, 3]
    with pytest.raises(ValueError, match="room for 8 tokens, not 9"):
        cache.update(keys[:, :, :3], keys[:, :, :3], 0)
