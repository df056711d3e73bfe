"""What the engine gives: the same as transformers, and the same whether beginnings are shared."""

from collections.abc import Sequence
from typing import Any

import engine_models
import numpy as np
import pytest
import torch
from engine_models import generated, ids, losses, questions

from ropewalk.eval.engine.engine import Engine
from ropewalk.eval.requests import Prompt, Prompts, Reply, Text

CHUNK = 32
NAMES = list(engine_models.MODELS)
DTYPES = [torch.float32, torch.bfloat16]


@pytest.mark.parametrize("name", NAMES)
def test_new_tokens_and_losses_are_those_of_transformers(name: str) -> None:
    """Drafts that are right to their end, wrong at once, and wrong in the middle."""
    oracle = engine_models.reference(name)
    contexts = [ids(70, 50), ids(45, 51)]
    group = questions(contexts, new=10)
    texts = [prompt.ids for prompt in group.prompts]
    expected = [generated(oracle, text, 10) for text in texts]
    drafts = [np.array(tokens[:5]) for tokens in expected]
    drafts[1] = (drafts[1] + 1) % 97
    drafts[2][-1] = (drafts[2][-1] + 1) % 97
    engine = Engine(engine_models.measured(name), 512, chunk_tokens=CHUNK)
    (replies,) = engine.measure([questions(contexts, 10, drafts)])
    assert isinstance(replies, tuple)
    assert [list(reply.ids) for reply in replies] == expected and not engine.is_whole
    of_drafts = [
        losses(oracle, np.concatenate([text, draft]))[len(text) - 1 :].sum()
        for text, draft in zip(texts, drafts, strict=True)
    ]
    np.testing.assert_allclose([reply.nll for reply in replies], of_drafts, rtol=1e-5)
    right = [
        int(np.cumprod(np.array(e[: len(d)]) == d[: len(e)]).sum())
        for e, d in zip(expected, drafts, strict=True)
    ]
    assert [reply.correct for reply in replies] == right


@pytest.mark.parametrize("name", NAMES)
def test_losses_of_a_text_in_calls_are_those_of_one_full_pass(name: str) -> None:
    text = ids(150, 3)
    engine = Engine(engine_models.measured(name), 512, chunk_tokens=CHUNK)
    for first in (1, 40, 65, 149):
        (result,) = engine.measure([Text(text, first)])
        expected = losses(engine_models.reference(name), text)[first - 1 :]
        np.testing.assert_allclose(result, expected, atol=1e-5)
    assert not engine.is_whole


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("name", NAMES)
def test_shared_beginnings_give_the_same_bits(name: str, dtype: torch.dtype) -> None:
    model = engine_models.measured(name, dtype)
    requests = [questions([ids(70, 50), ids(45, 51)], new=8), Prompts(depth_sweep())]
    tokens: list[int] = []
    model.base_model.register_forward_pre_hook(
        lambda *call: tokens.append(call[2]["input_ids"].numel()), with_kwargs=True
    )
    results, computed = [], []
    for share in (True, False):
        results.append(Engine(model, 4096, chunk_tokens=CHUNK, share=share).measure(requests))
        computed.append(sum(tokens))
        tokens.clear()
    assert bits(results[0]) == bits(results[1])
    assert computed[0] < 0.8 * computed[1]


def depth_sweep() -> tuple[Prompt, ...]:
    """One needle at each of four depths of the same filler."""
    filler, needle = ids(120, 7), ids(6, 8)
    texts = [np.insert(filler, depth, needle) for depth in (0, 40, 80, 120)]
    return tuple(Prompt(text, ids(3, 9), max_new_tokens=4) for text in texts)


def bits(results: Sequence[Any]) -> list[tuple[Any, ...]]:
    replies: list[Reply] = [reply for group in results for reply in group]
    return [(reply.correct, np.float64(reply.nll).tobytes(), reply.ids) for reply in replies]
