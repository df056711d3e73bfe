"""Where calls, trunks and branches begin and end, by hand; which models and requests are packed."""

from typing import Any

import numpy as np
import pytest
import torch

from ropewalk.eval.engine import branch_attention, calls, whole
from ropewalk.eval.engine.branches import Branch, BranchCache
from ropewalk.eval.engine.cache import AppendCache
from ropewalk.eval.engine.decoding import Answer, End
from ropewalk.eval.engine.finite import NotFinite, refuse_not_finite
from ropewalk.eval.engine.passes import Scores
from ropewalk.eval.requests import Prompt, Prompts, Reply, Text, answered, digest


def prompt(tokens: int, answer: int = 2, start: int = 0, **more: Any) -> Prompt:
    return Prompt(np.arange(start, start + tokens), np.arange(answer), **more)


def test_short_requests_and_those_that_share_nothing_are_packed() -> None:
    """In calls of 8 tokens."""
    assert calls.is_packed(Text(np.arange(8)), 8) and not calls.is_packed(Text(np.arange(9)), 8)
    assert calls.is_packed(Prompts((prompt(6),)), 8)
    assert not calls.is_packed(Prompts((prompt(7),)), 8)  # 9 tokens with its answer
    assert not calls.is_packed(Prompts((prompt(4, max_new_tokens=1),)), 8)
    same = [Prompt(np.append(np.arange(4), n), np.arange(2), context=4) for n in range(3)]
    assert not calls.is_packed(Prompts(tuple(same)), 8)  # 21 tokens, of which 8 are shared
    assert calls.is_packed(Prompts(tuple(same[:1])), 8)
    apart = tuple(prompt(5, start=10 * n) for n in range(3))
    assert calls.is_packed(Prompts(apart), 8)
    assert calls.is_packed(Prompts(tuple(same)), 21)  # all in one call


def test_a_batch_has_as_many_items_as_fit_and_a_longer_one_is_alone() -> None:
    parts = [range(8)[part] for part in calls.batches([4, 4, 3, 9, 8, 1, 1, 6], 8)]
    assert [[*part] for part in parts] == [[0, 1], [2], [3], [4], [5, 6, 7]]
    assert list(calls.batches([], 8)) == []


def test_a_prompt_counts_the_longer_of_answer_and_new_tokens() -> None:
    assert prompt(5, 2).tokens == 7 and prompt(5, 2, max_new_tokens=4).tokens == 9
    assert prompt(5, 6, max_new_tokens=4).tokens == 11
    assert Prompts((prompt(5), prompt(6))).tokens == 15 and Text(np.arange(4)).tokens == 4


def test_consecutive_prompts_of_one_context_are_a_run() -> None:
    texts = [([1, 2, 3, 9], 3), ([1, 2, 3, 8], 3), ([1, 2, 4, 8], 3), ([1, 2, 4, 7], 2)]
    plans = []
    for ids, context in texts:
        one = Prompt(np.array(ids), np.arange(2), context=context)
        plans.append(calls.PromptCalls(one, calls.prompt_ends(one, 8, ())))
    assert list(calls.runs(plans)) == [slice(0, 2), slice(2, 3), slice(3, 4)]
    none = calls.PromptCalls(prompt(4), [6])
    assert not none.has_context_of(none) and none.shared_with(None) == 0


def test_a_request_is_known_by_all_that_it_asks() -> None:
    one = prompt(4)
    others = [
        prompt(5), prompt(4, 3), prompt(4, context=1), prompt(4, max_new_tokens=1),
        prompt(4, until=("a",)), Prompt(np.arange(4) + 1, np.arange(2)),
    ]  # fmt: skip
    requests = [Prompts((one,)), Prompts((one, one)), *(Prompts((other,)) for other in others)]
    requests += [Text(np.arange(4)), Text(np.arange(4), 2), Text(np.arange(5))]  # type: ignore[list-item]
    assert len({digest(request) for request in requests}) == len(requests)
    assert all(len(digest(request)) == 32 for request in requests)
    right = answered(Prompts((one, one)), (Reply(2, 0.0), Reply(1, 0.0)))
    assert right == [True, False]


def branches_of(lengths: list[tuple[int, int]], room: int = 3) -> tuple[BranchCache, AppendCache]:
    """Of one cache of 9 tokens, a branch from each place (trunk, end) on."""
    cache = AppendCache(1, 9)
    values = torch.arange(9.0).expand(1, 1, 9).unsqueeze(-1).expand(1, 2, 9, 4)
    cache.update(values, values, 0)
    return BranchCache([Branch.of(cache, low, high) for low, high in lengths], room), cache


def test_a_branch_has_the_tokens_after_its_trunk() -> None:
    cache, trunk = branches_of([(5, 7), (5, 6), (4, 4)])
    assert cache.longest == 2 and cache.positions.tolist() == [7, 6, 4]
    keys = cache.layers[0].keys
    assert keys is not None and keys.shape == (3, 2, 2 + 3, 4)
    assert keys[:, 0, :2, 0].tolist() == [[5, 6], [5, 0], [0, 0]]
    assert [(length, rows) for _, length, rows in cache.trunks()] == [
        (5, slice(0, 2)), (4, slice(2, 3)),
    ]  # fmt: skip
    assert cache.layers[0].get_mask_sizes(1) == (3, 0)
    assert (cache.layers[0].get_seq_length(), cache.layers[0].get_max_length()) == (2, 5)
    new = torch.full((3, 2, 1, 4), 99.0)
    kept, _ = cache.update(new, new, 0)
    assert kept[:, 0, :, 0].tolist() == [[5, 6, 99], [5, 99, 0], [99, 0, 0]]
    cache.advance()
    cache.keep([0, 2])
    assert cache.positions.tolist() == [8, 5] and cache.longest == 3
    assert [rows for _, _, rows in cache.trunks()] == [slice(0, 1), slice(1, 2)]
    assert trunk.layers[0].span(2, 4)[0][0, :, 0].tolist() == [2, 3]


@pytest.mark.parametrize(("window", "first"), [(None, 0), (100, 0), (8, 0), (7, 1), (3, 5), (1, 5)])
def test_a_window_hides_the_first_tokens_of_a_trunk(window: int | None, first: int) -> None:
    """5 tokens and a branch of 2 before the query at place 7: a window of 7 sees 1 to 7."""
    cache, _ = branches_of([(5, 7), (5, 8)])
    assert cache.first_visible(5, slice(0, 2), window) == first


def test_scores_of_keys_that_are_not_seen_are_masked() -> None:
    scores = branch_attention._masked(torch.zeros(2, 1, 1, 5), torch.tensor([1, 4]), 2)
    seen = (scores[:, 0, 0] == 0).tolist()
    assert seen == [[True, True, False, False, False], [False, False, False, True, True]]
    every = branch_attention._masked(torch.zeros(1, 1, 1, 3), torch.tensor([2]), None)
    assert bool((every == 0).all())


def test_a_cache_has_its_room_and_is_rolled_back() -> None:
    cache = AppendCache(2, 4)
    assert len(cache.layers) == 2
    part = torch.ones(1, 1, 3, 2)
    cache.update(part, part, 0)
    assert cache.layers[0].get_mask_sizes(1) == (4, 0) and cache.layers[0].get_seq_length() == 3
    with pytest.raises(ValueError, match="room for 4 tokens, not 6"):
        cache.update(part, part, 0)
    cache.rollback(1)
    assert [layer.length for layer in cache.layers] == [1, 0]
    cache.update(part, part, 0)
    assert cache.layers[0].length == 4 == cache.layers[0].get_max_length()
    cache.layers[0].crop(-3)
    assert cache.layers[0].length == 1


@pytest.mark.parametrize(
    ("parameters", "depends"),
    [
        ({"rope_type": "default"}, False),
        ({"rope_type": "dynamic"}, True),
        ({"rope_type": "longrope", "short_factor": [1], "long_factor": [1]}, False),
        ({"rope_type": "longrope", "short_factor": [1], "long_factor": [2]}, True),
        ({"rope_type": "yarn", "short_factor": [1], "long_factor": [2]}, False),
    ],
)
def test_a_table_that_switches_by_length_depends_on_the_call(
    parameters: dict[str, Any], depends: bool
) -> None:
    assert whole._depends_on_the_call(parameters) is depends
    nested = {"full_attention": parameters, "sliding_attention": {"rope_type": "default"}}
    assert any(map(whole._depends_on_the_call, whole._rope_tables(nested))) is depends
    assert list(whole._rope_tables(parameters)) == [parameters]


def test_an_answer_is_judged_by_its_leading_tokens() -> None:
    end = End(frozenset({7}), lambda ids: " ".join(map(str, ids)))
    scores = Scores(np.array([0.5, 0.25, 2.0], np.float32), np.array([0, 5, 2]))

    def judged(**more: Any) -> Answer:
        one = prompt(4, 3, **more)
        return Answer.judged(Prompts((one,)), one, scores, end)

    first = judged()
    assert (first.correct, first.nll, first.ids, first.is_finished) == (1, 2.75, [], True)
    decoding = judged(max_new_tokens=4)  # the right token, and the first after it
    assert (decoding.ids, decoding.is_finished, decoding.computed_tokens) == ([0, 5], False, 5)
    assert judged(max_new_tokens=1).ids == [0] and judged(max_new_tokens=2).is_finished
    assert judged(max_new_tokens=9, until=("5", "0")).is_finished
    assert not judged(max_new_tokens=9, until=("5", "6")).is_finished
    decoding.append(7, end)
    assert decoding.is_finished and decoding.reply.ids == (0, 5, 7)
    with pytest.raises(ValueError, match="text_of"):
        End(frozenset(), None).reached(prompt(4, max_new_tokens=9, until=("a",)), [1])


def test_logits_that_are_no_numbers_are_refused_by_the_samples_name() -> None:
    text = Text(np.arange(4))
    refuse_not_finite("base", {}, text, True)
    with pytest.raises(NotFinite, match=f"of base are NaN or infinite in request {digest(text)}"):
        refuse_not_finite("base", {}, text, False)
    with pytest.raises(NotFinite, match="infinite in window/003;"):
        refuse_not_finite("base", {digest(text): "window/003"}, text, False)
    for nll, tokens, good in (([1.0], [0], True), ([np.inf], [0], False), ([1.0], [-1], False)):
        assert Scores(np.array(nll), np.array(tokens)).finite is good
