"""The held-out text that haystacks are made of: which part, its hash, and too little of it."""

from dataclasses import replace

import language_suites
import numpy as np
import pytest

from ropewalk.conf.errors import DataError
from ropewalk.data.dataset import Window
from ropewalk.eval.tasks.needle import Needle
from ropewalk.eval.tasks.passkey import PasskeyRetrieval
from ropewalk.eval.tasks.task import EvalSuite

LONG, SHORT, OTHER = np.arange(30), np.arange(100, 110), np.arange(200, 225)


def suite(*fillers: np.ndarray) -> EvalSuite:
    empty = language_suites.suite([Window("a", np.arange(64))], 64, 32)
    return replace(empty, fillers=list(fillers))


def test_sources_with_enough_text_give_it_in_turn_else_all_end_to_end() -> None:
    texts = suite(LONG, SHORT, OTHER)
    assert [texts.filler(20, turn)[0] for turn in range(4)] == [0, 200, 0, 200]
    assert [texts.filler(5, turn)[0] for turn in range(4)] == [0, 100, 200, 0]
    whole = [*range(30), *range(100, 110), *range(200, 225)]
    assert texts.filler(40, 1).tolist() == whole


def test_the_hash_is_of_the_tokens_and_of_where_a_source_ends() -> None:
    known = suite(LONG, SHORT).haystack_hash
    assert len(known) == 16
    assert known == suite(LONG.astype(np.uint16), SHORT.copy()).haystack_hash
    others = [(SHORT, LONG), (LONG[:-1], SHORT), (LONG, SHORT + 1)]
    others += [(LONG[:20], np.concatenate([LONG[20:], SHORT]))]
    assert known not in [suite(*texts).haystack_hash for texts in others]


@pytest.mark.parametrize(
    ("task", "key"),
    [(PasskeyRetrieval(), "eval.passkey_lengths"), (Needle(), "eval.needle.lengths")],
)
def test_too_little_text_is_refused(task: PasskeyRetrieval | Needle, key: str) -> None:
    with pytest.raises(DataError) as caught:
        task.samples(suite(LONG, SHORT))
    assert str(caught.value) == (
        f"{key} is [32, 64]; held-out text has 40 tokens; raise data.heldout_share or lower the "
        "lengths"
    )
