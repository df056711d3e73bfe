"""Two and three ranks that share a sequence give what transformers gives on one."""

from pathlib import Path
from typing import Any

import engine_models
import models
import numpy as np
import pytest
import ranks
import sequence_engine_ranks as programs
import torch

from ropewalk.eval.requests import Prompts, Text

SIX = {"num_attention_heads": 6, "num_key_value_heads": 3, "hidden_size": 48}
"""Heads that two and three ranks divide; of key/value heads two share one."""
CASES: list[tuple[str, int, dict[str, Any]]] = [
    ("llama", 2, {}),
    ("llama", 3, SIX),
    ("llama", 3, {}),  # heads that three ranks do not divide: keys are gathered
    ("mistral", 2, {}),
    ("gemma3", 3, SIX),
    ("gpt_oss", 2, {}),
    ("qwen3", 2, SIX),
]


def generated(model: Any, prompt: np.ndarray, new: int) -> list[int]:
    """transformers' greedy decoding."""
    tokens = torch.from_numpy(prompt)[None]
    mask = torch.ones_like(tokens)
    settings = {"max_new_tokens": new, "do_sample": False, "pad_token_id": 0}
    output = model.generate(tokens, attention_mask=mask, **settings)
    return output[0, tokens.shape[1] :].tolist()  # type: ignore[no-any-return]


def losses(model: Any, text: np.ndarray) -> np.ndarray:
    """transformers' losses of each token but the first, by one full pass."""
    tokens = torch.from_numpy(text)[None]
    with torch.no_grad():
        log_probs = model(tokens).logits[0, :-1].float().log_softmax(-1)
    return -log_probs.gather(1, tokens[0, 1:, None])[:, 0].numpy()


@pytest.mark.parametrize(("name", "sp", "changes"), CASES)
def test_losses_and_new_tokens_are_those_of_transformers_on_one_process(
    name: str, sp: int, changes: dict[str, Any]
) -> None:
    oracle = engine_models.reference(name, changes)
    prompts = [p for r in programs.requests() if isinstance(r, Prompts) for p in r.prompts]
    expected = [generated(oracle, prompt.ids, 10) for prompt in prompts]
    drafts = [np.array(tokens[:5]) for tokens in expected]
    drafts[1] = (drafts[1] + 1) % 97  # wrong at once
    drafts[2][-1] = (drafts[2][-1] + 1) % 97  # wrong at its end
    asked = programs.requests(drafts)
    longest = 0
    for results, tokens in ranks.run(sp, programs.answered, name, sp, asked, changes):
        replies = []
        for request, result in zip(asked, results, strict=True):
            if isinstance(request, Text):
                loss = losses(oracle, request.ids)[request.first - 1 :]
                np.testing.assert_allclose(result, loss, rtol=1e-5, atol=1e-5)
            else:
                replies += result
        assert [list(reply.ids) for reply in replies] == expected
        forced = [
            losses(oracle, np.concatenate([p.ids, draft]))[len(p.ids) - 1 :].sum()
            for p, draft in zip(prompts, drafts, strict=True)
        ]
        np.testing.assert_allclose([reply.nll for reply in replies], forced, rtol=1e-5)
        right = [
            int(np.cumprod(np.array(e[: len(d)]) == d[: len(e)]).sum())
            for e, d in zip(expected, drafts, strict=True)
        ]
        assert [reply.correct for reply in replies] == right
        longest = max(longest, tokens)
    row = max(61 + 83, 70 + 5 + 5 + 9 + 5)  # both texts, or two questions after one context
    assert longest <= -(-row // sp)


def same(results: list[Any], expected: list[Any]) -> None:
    for ours, theirs in zip(results, expected, strict=True):
        if isinstance(theirs, np.ndarray):
            np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-5)
        else:
            assert [(r.correct, r.ids) for r in ours] == [(r.correct, r.ids) for r in theirs]


def test_two_groups_of_ranks_share_the_batches() -> None:
    asked = programs.requests()
    ((alone, _), *_) = ranks.run(2, programs.answered, "llama", 2, asked, {})
    for results in ranks.run(4, programs.dealt, "llama", asked):
        same(results, alone)


@pytest.mark.parametrize(("world", "sp"), [(2, 2), (4, 2)])
def test_weights_in_parts_on_all_ranks_give_the_same(tmp_path: Path, world: int, sp: int) -> None:
    """The tokens decoded differ from group to group, and all ranks gather in every step."""
    folder = str(tmp_path)
    models.tiny_model().save_pretrained(folder)
    asked = programs.requests()
    (alone,) = ranks.run(1, programs.whole, folder, asked)
    for results in ranks.run(world, programs.partitioned, folder, sp, asked):
        same(results, alone)


@pytest.mark.parametrize("step", [1, 4])
def test_a_decode_step_that_is_not_finite_is_an_error_of_its_sample_on_every_rank(
    step: int,
) -> None:
    """All passes before are finite."""
    expected = "the logits of base are NaN or infinite in needle/0; "
    for message, steps in ranks.run(2, programs.broken_step, step):
        assert message.startswith(expected) and steps == step
