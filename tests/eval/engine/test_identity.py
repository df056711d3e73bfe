"""What the engine gives: the same as transformers, and the same whether beginnings are shared."""

from collections.abc import Sequence
from typing import Any

import engine_models
import numpy as np
import pytest
import torch

from ropewalk.eval.engine.engine import Engine
from ropewalk.eval.requests import Prompt, Prompts, Reply, Text

CHUNK = 32
NAMES = list(engine_models.MODELS)
DTYPES = [torch.float32, torch.bfloat16]


def ids(length: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(3, 97, length)


def questions(contexts: Sequence[np.ndarray], new: int, answers: Any = None) -> Prompts:
    """Two questions of other lengths after each context."""
    prompts = []
    for number, context in enumerate(contexts):
        for n, length in enumerate((5, 9)):
            text = np.concatenate([context, ids(length, 10 * number + n + 1)])
            answer = ids(4, 1) if answers is None else answers[2 * number + n]
            prompts.append(Prompt(text, answer, context=len(context), max_new_tokens=new))
    return Prompts(tuple(prompts))


def generated(model: Any, prompt: np.ndarray, new: int) -> list[int]:
    """transformers' greedy decoding."""
    tokens = torch.from_numpy(prompt)[None]
    output = model.generate(
        tokens,
        attention_mask=torch.ones_like(tokens),
        max_new_tokens=new,
        do_sample=False,
        pad_token_id=0,
    )
    return output[0, tokens.shape[1] :].tolist()


def losses(model: Any, text: np.ndarray) -> np.ndarray:
    """transformers' losses of each token but the first, by one full pass."""
    tokens = torch.from_numpy(text)[None]
    with torch.no_grad():
        log_probs = model(tokens).logits[0, :-1].float().log_softmax(-1)
    return -log_probs.gather(1, tokens[0, 1:, None])[:, 0].numpy()


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
    assert [list(reply.ids) for reply in replies] == expected
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


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("name", NAMES)
def test_shared_beginnings_give_the_same_bits(name: str, dtype: torch.dtype) -> None:
    model = engine_models.measured(name, dtype)
    requests = [questions([ids(70, 50), ids(45, 51)], new=8), Prompts(depth_sweep())]
    results = [
        Engine(model, 4096, chunk_tokens=CHUNK, share=share).measure(requests)
        for share in (True, False)
    ]
    assert bits(results[0]) == bits(results[1])


def depth_sweep() -> tuple[Prompt, ...]:
    """One needle at each of four depths of the same filler."""
    filler, needle = ids(120, 7), ids(6, 8)
    texts = [np.insert(filler, depth, needle) for depth in (0, 40, 80, 120)]
    return tuple(Prompt(text, ids(3, 9), max_new_tokens=4) for text in texts)


def bits(results: Sequence[Any]) -> list[tuple[Any, ...]]:
    replies: list[Reply] = [reply for group in results for reply in group]
    return [(reply.correct, np.float64(reply.nll).tobytes(), reply.ids) for reply in replies]
