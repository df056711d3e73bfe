"""What is computed of hidden states, in chunks, is what whole logits give."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from ropewalk.eval.engine import passes


@pytest.mark.parametrize("chunk", [64, 1000])
def test_losses_and_likeliest_tokens_are_those_of_whole_logits(
    monkeypatch: pytest.MonkeyPatch, chunk: int
) -> None:
    monkeypatch.setattr(passes, "chunk_tokens", lambda *_: chunk)
    generator = torch.Generator().manual_seed(0)
    hidden, head = (torch.randn(rows, 16, generator=generator) for rows in (200, 50))
    labels = torch.randint(0, 50, (200,), generator=generator)
    labels[torch.randperm(200, generator=generator)[:30]] = -100
    hidden[7, 0], hidden[130, 3] = torch.nan, torch.inf
    scores = passes.scores(hidden, head, labels)
    logits = hidden @ head.T
    expected = F.cross_entropy(logits, labels, ignore_index=-100, reduction="none")
    np.testing.assert_allclose(scores.nll, expected.numpy(), rtol=1e-5, atol=1e-5)
    likeliest = logits.argmax(-1)
    likeliest[[7, 130]] = -1
    np.testing.assert_array_equal(scores.tokens, likeliest.numpy())
    assert not scores.finite and scores.split([5, 195])[0].finite
