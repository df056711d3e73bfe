"""Sizes, places and texts of drafts, against values worked out by hand."""

import json
from pathlib import Path

import numpy as np
import pytest

from ropewalk.eval.ruler import fitting, question_files, words
from ropewalk.eval.ruler.draft import Body, CannotFit, Draw
from ropewalk.eval.ruler.haystacks import Prose, line_places, noise_lines, with_needles
from ropewalk.eval.ruler.tracking import Chain
from ropewalk.eval.ruler.wording import OWN
from ropewalk.eval.ruler.words import Words


def sizes_tried(counts: np.ndarray, room: int, most: int) -> list[int]:
    """The sizes of `largest` from 1 on; `counts[size]` are the tokens."""
    tried: list[int] = []

    def tokens(size: int) -> int:
        tried.append(size)
        return int(counts[size])

    fitting.largest(tokens, room, 1, most)
    return tried


def test_a_size_is_guessed_by_the_tokens_of_a_unit() -> None:
    """From 1 by 64; then by what is left, divided by the tokens of a unit in the last step."""
    unit = np.arange(2001)
    assert sizes_tried(10 + 7 * unit, 10 + 7 * 1000, 2000) == [1, 65, 1000, 1001]
    # 10 tokens a unit to 65, 5 beyond: 1000 left = 100 units of 10; then 500 left = 100 of 5
    slower = 10 * np.minimum(unit, 65) + 5 * np.maximum(unit - 65, 0)
    assert sizes_tried(slower, 1650, 2000) == [1, 65, 165, 265, 266]
    # no tokens beyond 65: an eighth of 8 is taken, 80 / 1 = 80 units, then 80 / (1/8) = 640
    assert sizes_tried(8 * np.minimum(unit, 65), 600, 2000) == [1, 65, 75, 155, 795, 2000]


def test_after_twelve_guesses_the_step_doubles_and_the_range_is_halved() -> None:
    full = np.full(1001, 600)  # nothing is left: each guess is the next size
    begin = [1, 65, *range(66, 78), 79, 83, 91]
    assert sizes_tried(full, 600, 100) == [*begin, 100]
    full[91:] = 5000
    assert sizes_tried(full, 600, 1000) == [*begin, 87, 89, 90]
    full[91:100] = 600
    assert sizes_tried(full, 600, 100) == [*begin, 100, 95, 97, 98, 99]


def test_a_size_in_steps_is_a_multiple_that_fits_and_is_not_below_the_least() -> None:
    def size(room: int, least: int, most: int) -> int:
        return fitting.in_steps(lambda n: n, room, least, most, 5)

    assert [size(24, 6, 100), size(25, 6, 100), size(10, 6, 100)] == [20, 25, 10]
    assert [size(99, 5, 23), size(99, 6, 7)] == [20, 10]
    with pytest.raises(CannotFit, match="smallest prompt has 10 tokens, and 9 are left"):
        size(9, 6, 100)


def test_depths_go_from_the_first_character_to_the_last_place_of_the_longest_text() -> None:
    assert Body("", "", "gxxg2xxyy", ("gx", "xy")).depths == (0, 6 / 7)
    assert Body("", "", "xg", ("g",)).depths == (1.0,)
    assert Body("", "", "g", ("g",)).depths == (0.0,)
    assert Body("", "", "long b", ("long", "b")).depths == (0.0, 1.0)


@pytest.mark.parametrize("exact", [True, False])
def test_a_chain_has_four_copies_and_one_line_more_than_needles(exact: bool) -> None:
    """RULER's default: one chain of four hops (Hsieh et al., 2024, appendix B)."""
    chain = Chain(OWN, Draw(exact, 4096, 0, 1, 0))
    assert len(chain.references) == 5 and chain.least == 6
    assert all(len(name) == 5 and name.isupper() for name in chain.names)
    body = chain.body(40)
    assert len(body.gold) == 5 and [body.context.count(text) for text in body.gold] == [1] * 5
    assert body.prefix == f" Answer: The 5 registers that hold {chain.value} are"
    assert f"hold {chain.value} in the end" in body.message and len(chain.value) == 5


def squad(path: Path, *questions: dict[str, object]) -> question_files.QuestionSet:
    paragraphs = [{"context": "b", "qas": questions}, {"context": "a", "qas": []}]
    path.write_text(json.dumps({"data": [{"paragraphs": paragraphs}]}))
    return question_files.read("squad", str(path))


def test_a_squad_question_needs_an_answer_and_must_be_possible(tmp_path: Path) -> None:
    """SQuAD 2.0 marks those that no text answers; version 1.1 has no mark."""
    answer, path = [{"text": "x"}, {"text": "y"}, {"text": "x"}], tmp_path / "squad.json"
    data = squad(
        path,
        {"question": "good", "answers": answer},
        {"question": "marked possible", "answers": answer, "is_impossible": False},
        {"question": "marked", "answers": answer, "is_impossible": True},
        {"question": "none", "answers": []},
        {"question": "marked, none", "answers": [], "is_impossible": True},
    )
    assert [q.text for q in data.questions] == ["good", "marked possible"]
    assert data.documents == ("a", "b")
    first = data.questions[0]
    assert (first.answers, first.gold, first.near) == (("x", "y"), (1,), (0,))


def test_a_hotpotqa_question_needs_gold_and_an_answer(tmp_path: Path) -> None:
    path, context = tmp_path / "hotpotqa.json", [["B", ["one.", " two."]], ["A", ["three."]]]
    items = [
        {"question": "good", "answer": "x", "context": context, "supporting_facts": [["B", 1]]},
        {"question": "no answer", "answer": "", "context": context, "supporting_facts": [["B", 1]]},
        {"question": "no gold", "answer": "x", "context": context, "supporting_facts": [["C", 0]]},
    ]
    path.write_text(json.dumps(items))
    data = question_files.read("hotpotqa", str(path))
    (only,) = data.questions
    assert (only.text, only.gold, only.near) == ("good", (1,), (0,))
    assert data.documents == ("A\nthree.", "B\none. two.")


def test_prose_is_cut_to_words_and_begins_again_after_its_end() -> None:
    prose = Prose("", ("a b", "c", "d e f"))
    assert prose.words == 6 and Prose("", ()).words == 0
    every = ["a", "b", "c", "d", "e", "f"]
    for first, skipped in enumerate([0, 2, 3]):
        for count in range(1, 15):
            expected = [every[(skipped + n) % 6] for n in range(count)]
            assert " ".join(prose.cut(first, count)).split() == expected, (first, count)
    assert prose.cut(1, 3) == ["c", "d e"] and prose.cut(0, 6) == [*prose.sentences]


def test_noise_ends_with_single_sentences_in_an_exact_draft() -> None:
    line = "One. Two. Three."
    assert noise_lines(line, 7, True) == [line, line, "One."]
    assert noise_lines(line, 5, True) == [line, "One. Two."] and noise_lines(line, 2, False) == [
        line,
        line,
    ]
    assert noise_lines(line, 6, True) == [line] * 2


def test_needles_stand_before_the_part_of_their_place() -> None:
    assert with_needles(["a", "b", "c"], [3, 0, 1], ["X", "Y", "Z"]) == [*"YaZbcX"]
    draw = Draw(True, 4096, 0, 1, 3)
    assert line_places(draw, 1000, 2) == [round(1000 * depth) for depth in draw.depths(2)]


def test_depths_are_the_golden_ratios_sequence() -> None:
    """One place: the step is 1 / 1.618..., the root of x^2 = x + 1 (Roberts, 2018); of two
    1 / 1.3247... and its square, the root of x^3 = x + 1."""
    golden, plastic = (1 + 5**0.5) / 2, float(np.roots([1, 0, -1, -1])[0].real)
    for count, steps in ((1, [1 / golden]), (2, [1 / plastic, 1 / plastic**2])):
        first, second = (Draw(True, 4096, 0, 1, n).depths(count) for n in (0, 1))
        assert (second - first) % 1 == pytest.approx(steps)


def test_words_follow_the_lists_and_then_are_made_up() -> None:
    lists = Words("", ("b", "a"), ("c", "b"))
    rng = np.random.Generator(np.random.PCG64(0))
    assert lists.all == ("a", "b", "c")
    chosen = lists.distinct(rng, 5)
    assert {*chosen[:3]} == {"a", "b", "c"} and chosen[3:] == [*lists.more[:2]]
    assert len(lists.distinct(rng, 2)) == 2 and lists.available == 3 + 14 * 5 * 14 * 5 * 14
    pairs = {lists.pair(rng) for _ in range(100)}
    assert pairs == {"a-b", "a-c", "b-b", "b-c"}


def test_the_words_of_the_package_are_read_where_it_is_installed() -> None:
    """As RULER's own `wonderwords.RandomWord` has them."""
    wonderwords = pytest.importorskip("wonderwords", reason="the extra `eval` has it")
    installed = words.of_package()
    assert installed is not None and installed.source.startswith("wonderwords ")
    drawn = wonderwords.RandomWord().random_words(50, include_parts_of_speech=["nouns"])
    assert set(drawn) <= set(installed.nouns)
