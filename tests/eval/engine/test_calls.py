"""The calls of prompts: where they end, and what two prompts share."""

import numpy as np
import pytest
from engine_models import ids, questions

from ropewalk.eval.engine import calls
from ropewalk.eval.requests import Prompt, Prompts, Text


def test_calls_end_at_absolute_places() -> None:
    text = Text(ids(70, 1))
    assert calls.text_ends(text, 32) == [32, 64, 70]
    assert calls.text_ends(Text(ids(64, 1)), 32) == [32, 64]
    prompt = Prompt(ids(60, 1), ids(9, 2), context=40)
    assert calls.prompt_ends(prompt, 32, ()) == [32, 40, 69]
    assert calls.prompt_ends(prompt, 32, {10, 11, 33, 36, 41, 59, 60, 99}) == [
        10,
        32,
        36,
        40,
        59,
        69,
    ]


def test_prompts_part_where_a_loop_over_all_pairs_says() -> None:
    rng = np.random.default_rng(0)
    for _ in range(50):
        texts = sorted(rng.integers(0, 2, 8).tolist() for _ in range(6))
        expected = [
            {next((i for i in range(8) if a[i] != b[i]), 8) for m, b in enumerate(texts) if m != n}
            for n, a in enumerate(texts)
        ]
        assert calls.partings([np.array(text) for text in texts]) == expected


def test_what_is_shared_is_what_a_loop_over_tokens_finds_equal() -> None:
    """Random prompts that part anywhere: no call is shared with another token or end before it."""
    rng = np.random.default_rng(1)
    for _ in range(100):
        texts = [rng.integers(0, 2, rng.integers(2, 30)) for _ in range(5)]
        texts += [np.append(texts[0][:n], [7, 8]) for n in (3, 9, 20)]
        contexts = rng.integers(0, 6, 8).tolist()
        pairs = zip(texts, contexts, strict=True)
        group = Prompts(tuple(Prompt(text, ids(2, 1), context) for text, context in pairs))
        order, plans = calls.ordered_calls(group, 8)
        assert sorted(order) == list(range(8))
        for before, plan in zip(plans, plans[1:], strict=False):
            shared = plan.shared_with(before)
            assert shared in [0, *plan.ends[:-1]] and shared in [0, *before.ends[:-1]]
            assert plan.prompt.ids[:shared].tolist() == before.prompt.ids[:shared].tolist()
            assert [e for e in plan.ends if e <= shared] == [e for e in before.ends if e <= shared]


def test_a_needle_at_ten_depths_is_computed_in_the_time_of_six_prompts() -> None:
    """10 prompts of 9 parts: those before the needle are shared, 1 + the sum of 1 - depth."""
    filler, needle = ids(9000, 1), np.full(20, 99)
    texts = [np.insert(filler, 1000 * n, needle) for n in range(10)]
    group = Prompts(tuple(Prompt(text, ids(4, 2)) for text in texts))
    tokens = calls.computed_tokens(group, 2048)
    assert tokens == pytest.approx(6.0 * group.tokens / 10, rel=0.02)


def test_questions_about_one_context_cost_their_own_tokens() -> None:
    group = questions([ids(70, 1)], new=0)
    assert calls.computed_tokens(group, 32) == group.tokens - 70
    assert calls.computed_tokens(Prompts(group.prompts[:1]), 32) == group.prompts[0].tokens
