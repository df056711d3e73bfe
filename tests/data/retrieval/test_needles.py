"""Needles: each stands once at its depth in the filler, and the decoded prompt answers."""

import re

import byte_codec
import numpy as np
import pytest

from ropewalk.data.retrieval import Haystack, TooShort, needles, random_names

FILLER = np.arange(1000, 6000)
DEPTHS = np.linspace(0, 1, 10)


def make(length: int = 3000, seed: int = 0, depths: np.ndarray = DEPTHS) -> Haystack:
    names, keys = random_names(len(depths), np.random.default_rng(seed))
    return needles(byte_codec.encode, FILLER, length, depths.tolist(), names, keys)


def test_the_prompt_alone_answers_every_question() -> None:
    haystack = make()
    assert haystack.tokens == 3000 and haystack.pairs == 10
    for question in haystack.questions:
        text = byte_codec.decode([*haystack.context, *question.ids])
        found = dict(re.findall(r"\nThe pass key of the (\w+) is (\d{5})\.\n", text))
        assert len(found) == len(set(found.values())) == 10
        asked = re.search(r"What is the pass key of the (\w+)\? .* is$", text)
        assert asked is not None and found[asked[1]] == question.value
        assert byte_codec.decode(question.answer) == f" {question.value}"
        assert question.value not in byte_codec.decode(question.ids)


def test_each_needle_stands_at_its_depth_and_the_filler_is_in_order() -> None:
    haystack = make()
    is_filler = haystack.context >= 1000
    room = int(is_filler.sum())
    assert haystack.context[is_filler].tolist() == FILLER[:room].tolist()
    starts = np.flatnonzero(np.diff(np.r_[True, is_filler].astype(int)) == -1)
    before = [int(is_filler[:start].sum()) for start in starts]
    assert before == pytest.approx(DEPTHS * room, abs=1)


@pytest.mark.parametrize("depth", [0.0, 0.4, 1.0])
def test_a_single_needle_has_all_the_filler_around_it(depth: float) -> None:
    haystack = make(depths=np.array([depth]))
    is_filler = haystack.context >= 1000
    assert int(np.argmin(is_filler)) == pytest.approx(depth * is_filler.sum(), abs=1)


def test_without_room_for_half_the_length_of_filler_it_is_refused() -> None:
    with pytest.raises(TooShort, match=r"needle length is 500; it must hold \d+ tokens of 10 need"):
        make(500)
    with pytest.raises(TooShort, match="no more filler than the 5000 tokens there are"):
        make(7000)


def test_names_and_keys_differ() -> None:
    names, keys = random_names(45, np.random.default_rng(1))
    assert len(set(names)) == len(set(keys)) == 45
    assert all(re.fullmatch(r"\d{5}", key) for key in keys)
