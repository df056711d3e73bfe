"""Where a cut may stand, by hand: texts of one-character tokens, and tokens as arrays."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
from tokenizers import Tokenizer, models, pre_tokenizers

from ropewalk.data.tokens import long_texts
from ropewalk.data.tokens.locate import Located, Locator
from ropewalk.data.tokens.long_texts import CONTEXT, Cut, find_cuts


@pytest.fixture(scope="module")
def characters() -> Locator:
    """A token a character, so that any two may be cut apart."""
    tokenizer = Tokenizer(models.WordLevel({"a": 0, "b": 1}, unk_token="b"))
    tokenizer.pre_tokenizer = pre_tokenizers.Split("", "isolated")  # type: ignore[assignment]
    return Locator(tokenizer)


def cut_between_tokens(characters: Locator, last: Cut, beyond: int) -> Cut | None:
    return long_texts._between_tokens("a" * 2000, last, CONTEXT + beyond, characters)


@pytest.mark.parametrize("last", [Cut(), Cut(100, 40, (0,) * 60)])
def test_a_cut_has_the_context_after_it_and_nine_tokens_of_the_part_before(
    characters: Locator, last: Cut
) -> None:
    """`CONTEXT + n` characters behind a cut: the last of the n tokens is not the border's left."""
    assert cut_between_tokens(characters, last, 9) is None
    for beyond in (10, 40):
        cut = cut_between_tokens(characters, last, beyond)
        assert cut is not None and cut.ids_before is not None
        assert cut.position == last.position + beyond - 1
        assert len(cut.ids_before) == beyond - 1
        assert cut.context == max(cut.position - CONTEXT, 0)
        assert len(cut.context_ids) == cut.position - cut.context


def test_another_context_than_the_cuts_gives_no_cut(characters: Locator) -> None:
    assert cut_between_tokens(characters, Cut(100, 40, (1,) * 60), 40) is None


def test_a_text_is_cut_while_two_parts_remain(
    characters: Locator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(long_texts, "PART", 500)
    assert find_cuts("a" * 999, characters) == []
    first, *_ = find_cuts("a" * 1000, characters)
    assert first.position == 500 - CONTEXT - 1
    (cut,) = find_cuts("a" * 520 + " a" + "a" * 478, characters)  # before the space: a word ends
    assert (cut.position, cut.context) == (520, 520 - CONTEXT)


def located(ids: Sequence[int], words: Sequence[int] | None = None) -> Located:
    """A token a character."""
    number = np.arange(len(ids))
    return Located(np.array(ids), number, number + 1, np.array(words or number))


def in_step(window: Located, first: int, count: int = 14) -> bool:
    """Of 20 tokens and a window that begins with number `first`."""
    ids = long_texts._in_step(located(range(20)), count, window, first)
    assert ids is None or ids == tuple(window.ids[: count - first].tolist())
    return ids is not None


def changed(window: Located, place: int, field: str = "ids") -> Located:
    values = getattr(window, field).copy()
    values[place] += 100
    return replace(window, **{field: values})


def test_up_to_eight_tokens_before_a_cut_are_compared_but_not_the_windows_first() -> None:
    full, short = located(range(20)), located(range(10, 20))
    assert in_step(full, 0) and in_step(short, 10)
    for place in range(14):
        assert in_step(changed(full, place), 0) is (place < 14 - 8), place
    for place in range(4):
        assert in_step(changed(short, place), 10) is (place == 0), place
    for place in (14, 15):  # after the cut
        assert in_step(changed(full, place), 0)


def test_two_tokens_at_least_are_before_a_cut_and_one_behind() -> None:
    assert not in_step(located(range(13, 20)), 13)
    two = located(range(12, 20))
    assert (
        in_step(two, 12) and not in_step(changed(two, 0), 12) and not in_step(changed(two, 1), 12)
    )
    assert in_step(located(range(10, 15)), 10) and not in_step(located(range(10, 14)), 10)


def test_characters_and_words_of_the_tokens_are_compared_too() -> None:
    full = located(range(20))
    assert not in_step(changed(full, 8, "start"), 0) and in_step(changed(full, 3, "start"), 0)
    joined = located(range(20), [*range(10), 9, *range(11, 20)])
    assert not in_step(joined, 0)  # tokens 9 and 10 are one word here
    across = located(range(20), [*range(14), 13, *range(15, 20)])
    assert not in_step(across, 0)  # the cut is inside a word here
    assert in_step(located(range(20), [*range(5), 4, *range(6, 20)]), 0)
    assert in_step(located(range(20), [*range(15), 14, *range(16, 20)]), 0)


def test_tokens_before_a_character_end_by_it_and_none_lies_across() -> None:
    tokens = Located(np.arange(3), np.array([0, 2, 5]), np.array([2, 5, 6]), np.array([0, 0, 1]))
    assert [tokens.before(n) for n in range(7)] == [0, None, 1, None, None, 2, 3]
    assert [tokens.ends_word(n) for n in (1, 2)] == [False, True]
