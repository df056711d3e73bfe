"""An adapter's dropout: torch's distribution, drawn by sequence and token."""

import pytest
import torch

from ropewalk.conf.errors import ConfigError
from ropewalk.data.dataset import TokenSpan
from ropewalk.train.adapters.dropout import BLOCK_TOKENS, DrawnRow, TokenDropout

WIDTH = 8


def dropped(spans: list[TokenSpan], *, step: int = 0, layer: str = "layer") -> torch.Tensor:
    module = TokenDropout(0.25, layer, DrawnRow((0, 0, step), spans)).train()
    tokens = sum(span.end - span.begin for span in spans)
    return module(torch.ones(1, tokens, WIDTH))[0]  # type: ignore[no-any-return]


def test_each_value_is_dropped_with_its_probability_and_the_others_scaled_as_torch_does() -> None:
    values = dropped([TokenSpan(3, 0, 0, 8 * BLOCK_TOKENS)])
    reference = torch.nn.functional.dropout(torch.ones(4), 0.25).max()
    assert set(values.unique().tolist()) == {0.0, float(reference)}
    assert float((values == 0).float().mean()) == pytest.approx(0.25, abs=0.01)


def test_slices_of_a_sequence_drop_what_the_sequence_alone_drops() -> None:
    end = BLOCK_TOKENS + 100
    full = dropped([TokenSpan(3, 1, 0, end)])
    for cut in (1, BLOCK_TOKENS - 1, BLOCK_TOKENS, BLOCK_TOKENS + 7):
        parts = [dropped([TokenSpan(3, 1, *span)]) for span in ((0, cut), (cut, end))]
        assert torch.equal(torch.cat(parts), full)
    both = dropped([TokenSpan(2, 0, 5, 9), TokenSpan(3, 1, 0, end), TokenSpan(-1, 0, 0, 0)])
    assert torch.equal(both[4:], full)


def test_steps_layers_sequences_and_epochs_have_masks_of_their_own() -> None:
    masks = [
        dropped([TokenSpan(3, 0, 0, 64)]),
        dropped([TokenSpan(3, 1, 0, 64)]),
        dropped([TokenSpan(4, 0, 0, 64)]),
        dropped([TokenSpan(3, 0, 0, 64)], step=1),
        dropped([TokenSpan(3, 0, 0, 64)], layer="other"),
    ]
    assert len({tuple(mask.flatten().tolist()) for mask in masks}) == len(masks)


def test_outside_a_step_and_in_evaluation_nothing_is_dropped() -> None:
    x = torch.ones(1, 4, WIDTH)
    assert TokenDropout(0.9, "layer", DrawnRow()).train()(x) is x
    row = DrawnRow((0,), [TokenSpan(0, 0, 0, 4)])
    assert TokenDropout(0.9, "layer", row).eval()(x) is x


def test_a_layer_that_sees_other_tokens_is_refused() -> None:
    module = TokenDropout(0.9, "an expert", DrawnRow((0,), [TokenSpan(0, 0, 0, 4)])).train()
    with pytest.raises(ConfigError, match="an expert sees 24 values of 8 a token.*dropout=0"):
        module(torch.ones(3, WIDTH))
