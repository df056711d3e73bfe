"""Rows of scores by hand: intervals by scipy, what a mean joins, cells without data."""

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import ruler_suite
from scipy import stats

from ropewalk.conf.errors import DataError
from ropewalk.eval.requests import Prompts
from ropewalk.eval.ruler import cells, haystacks, niah, rows, words
from ropewalk.eval.ruler.configurations import ALL
from ropewalk.eval.ruler.draft import Draw
from ropewalk.eval.ruler.haystacks import Prose
from ropewalk.eval.ruler.rows import Scores
from ropewalk.eval.ruler.wording import OWN
from ropewalk.eval.tasks import ruler
from ropewalk.eval.tasks.ruler import Ruler
from ropewalk.eval.tasks.task import Sample

FACTS = dict.fromkeys(rows.PROTOCOL, "same")


def cell(name: str, scores: list[float], base: list[float] | None = None, **facts: Any) -> Scores:
    request = Prompts(())
    made = [
        Sample(f"{n}", f"{n}", request, {**FACTS, "fill": 900 + 20 * n, **facts})
        for n in range(len(scores))
    ]
    of_base = None if base is None else np.array(base)
    return Scores(name, 1000, made, np.array(scores), of_base, facts.get("chance"))


def wilson(hits: int, n: int) -> Any:
    return pytest.approx(tuple(stats.binomtest(hits, n).proportion_ci(method="wilson")), abs=1e-6)


def test_right_and_wrong_answers_of_one_configuration_are_a_proportion() -> None:
    row = rows.row(cell("vt", [1, 0, 1, 1, 1, 1, 1, 1], [0, 0, 1, 1, 1, 1, 1, 1]), 0)
    assert (row["n"], row["accuracy"], row["difference"]) == (8, 7 / 8, 1 / 8)
    assert (row["low"], row["high"]) == wilson(7, 8)
    assert (row["fill"], row["configurations"], row["reason"]) == (0.97, 1, None)
    # Agresti and Min 2005: half an item more in each cell
    half = 1.959964 * (1.5 + 0.5 - 1 / 10) ** 0.5 / 10
    assert row["difference_low"] == pytest.approx(0.1 - half, abs=1e-6)
    assert row["difference_high"] == pytest.approx(0.1 + half, abs=1e-6)
    assert rows.row(cell("vt", [1.0]), 0)["difference"] is None
    assert [*row] == [*rows.KEYS]


def test_all_right_is_a_proportion_of_all_questions_and_shares_are_resampled() -> None:
    mean = rows.mean_row([cell("vt", [1] * 8), cell("cwe", [1] * 8)], 0)
    assert (mean["low"], mean["high"]) == wilson(16, 16)
    mixed = rows.mean_row([cell("vt", [1] * 8), cell("cwe", [0] * 8)], 0)
    assert mixed["accuracy"] == 0.5 and mixed["low"] == mixed["high"] == 0.5  # no chance in it
    part = rows.row(cell("cwe", [0.5, 0.5, 0.5, 0.7]), 0)  # of few: Student's t
    half = stats.t.ppf(0.975, 3) * np.std([0.5, 0.5, 0.5, 0.7], ddof=1) / 2
    assert (part["low"], part["high"]) == pytest.approx((0.55 - half, 0.55 + half))
    wide = rows.row(cell("cwe", [0.0, 0.1, 1.0, 0.9]), 0)
    assert (wide["low"], wide["high"]) == (0, 1)  # within what a share can be


def test_a_mean_weighs_configurations_equally_and_joins_what_differs() -> None:
    first = cell("vt", [1, 1], [1, 0], chance=0.2, haystack="noise", haystack_hash="", budget=30)
    second = cell("niah_single_2", [0.5, 0, 0, 0.5], [0] * 4, haystack="book", budget=128)
    mean = rows.mean_row([first, second], 0)
    assert mean["accuracy"] == (1 + 0.25) / 2 and mean["difference"] == (0.5 + 0.25) / 2
    assert (mean["configuration"], mean["configurations"], mean["n"]) == ("mean", 2, 6)
    assert (mean["chance"], mean["budget"], mean["haystack"]) == (0.2, "30 128", "book")
    assert mean["data"] == "ruler, 2 configurations, samples"
    assert mean["fill"] == round((0.91 + 0.93) / 2, 4) and mean["form"] == "same"
    equal = rows.mean_row([first, cell("fwe", [0, 0], chance=0.4)], 0)
    assert equal["data"] == "ruler, 2 configurations, 2 samples"
    assert equal["chance"] == pytest.approx(0.3)
    assert rows.mean_row([cell("vt", [1]), cell("fwe", [1])], 0)["chance"] is None
    noise = [cell(n, [1], haystack=h) for n, h in (("vt", "noise"), ("qa_1", "squad"))]
    assert rows.mean_row(noise, 0)["haystack"] == "noise squad"


def test_the_mean_is_read_at_the_longest_length_and_at_the_window() -> None:
    def row(name: str, length: int, accuracy: float | None) -> dict[str, Any]:
        n = 0 if accuracy is None else 9
        return {"configuration": name, "length": length, "accuracy": accuracy, "n": n}

    model = [
        row("vt", 4096, 0.9), row("mean", 4096, 0.4), row("vt", 2048, 0.8), row("vt", 1024, 0.7),
        row("mean", 8192, None),
    ]  # fmt: skip
    text = Ruler().reading({"base": model}, 1024)
    assert text is not None
    longest, window = text.rstrip(".").split("; ")
    assert longest.lower() == "at 4,096 tokens the mean score is 40% (base)"
    assert window == "at 1,024 tokens the mean score is 70% (base)"


@pytest.mark.parametrize(
    ("names", "lengths", "fit", "failed", "message"),
    [
        (["vt"], [1024], set(), "vt", "lengths is .1024.; vt cannot .* or leave 1024 out"),
        (["smoke"], [1024], {1024}, "vt", None),
        (["smoke"], [1024], set(), "vt", "lengths is .1024."),
        (["vt"], None, set(), "vt", None),
        (["qa_1"], None, set(), "qa_1", "configurations is .* or leave qa_1 out"),
        (["all"], None, set(), "qa_1", None),
        (["all"], [1024], {1024}, "qa_1", None),
    ],
)
def test_only_what_is_named_itself_is_refused(
    names: list[str], lengths: list[int] | None, fit: set[int], failed: str, message: str | None
) -> None:
    suite = ruler_suite.suite(configurations=names, lengths=lengths)
    one: Any = SimpleNamespace(configuration=ALL[failed], length=1024, lacks_data=failed == "qa_1")
    if message is None:
        ruler._refuse_named(suite, fit, [(one, "why")])
        return
    with pytest.raises(DataError, match=message):
        ruler._refuse_named(suite, fit, [(one, "why")])


def test_the_shortest_and_the_longest_length_are_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    tried: list[Any] = []
    monkeypatch.setattr(
        cells.Cell, "samples", lambda cell, count: tried.append((cell.length, count)) or []
    )
    ruler.try_samples(ruler_suite.suite(configurations=["vt"], lengths=[2048, 1024, 4096]))
    assert tried == [(1024, 1), (4096, 1)] or tried == [(4096, 1), (1024, 1)]


def test_a_needle_in_prose_goes_to_the_nearest_border_of_two_sentences() -> None:
    """Sentences of 4, 4 and 2 characters, with a space after each: borders 0, 5, 10, 13."""
    ends = [0, 5, 10, 13]
    places = {0: 0, 2.4: 0, 2.5: 0, 2.6: 1, 7.6: 2, 11.4: 2, 11.6: 3, 12.9: 3, 13: 3}
    assert {place: haystacks._nearest(ends, place) for place in places} == places
    draw = Draw(True, 4096, 0, 1, 0)
    (depth,) = draw.depths(1)
    texts = ["abcd", "efgh", "ij"]
    assert haystacks.prose_places(draw, texts, 1) == [haystacks._nearest(ends, 13 * depth)]
    assert all(0 <= d < 1 for n in range(50) for d in Draw(True, 9, 0, 1, n).depths(3))


def test_rulers_depths_in_prose_are_forty_from_0_to_100_percent() -> None:
    """numpy.linspace(0, 100, 40) rounded, as its script has them."""
    grid = [round(100 * n / 39) for n in range(40)]
    assert haystacks.GRID.tolist() == grid
    places = {
        haystacks.prose_places(Draw(False, 4096, 0, 1, n), ["x"] * 1000, 1)[0] for n in range(300)
    }
    assert places == {10 * depth for depth in grid}


@pytest.mark.parametrize("name", ["niah_single_1", "niah_single_2", "niah_multikey_1"])
def test_the_smallest_haystack_has_a_part_more_than_needles_or_eight_words(name: str) -> None:
    one, prose = ALL[name], Prose("", tuple(["a b c d e."] * 20))
    text = prose if one.haystack == "prose" else None
    for exact in (True, False):
        made = niah.Needles(one, OWN, words.generated(), text, Draw(exact, 4096, 0, 1, 0))
        assert made.least == (2 if text is None else 8)
        assert (made.most == 100) is (exact and text is not None)
        asked = 1 if one.asked == 1 else 4
        assert len(made.asked) == asked and len(made.needles) == one.inserted
        body = made.body(60)
        assert body.message.count(made.references[0]) == 1
        assert f"{made.asked[0]}?" in body.message and ", and " not in body.message


def test_words_are_made_up_in_one_order() -> None:
    """15,013 = (15 x 70 + 22) x 14 + 5: syllables 15 (ga) and 22 (ki), consonant 5 (l)."""
    assert next(words.pronounceable()) == "gakil"


def test_a_reply_ends_early_only_where_that_loses_no_score() -> None:
    made = ruler_suite.suite(configurations=["vt", "niah_single_1"], lengths=[1500], samples=1)
    for sample in Ruler().samples(made):
        assert isinstance(sample.request, Prompts)
        assert sample.request.prompts[0].until == tuple(sample.facts["references"])
        assert len(sample.facts["haystack_hash"]) == 0 and len(sample.facts["prompt_hash"]) == 16
    assert len(Prose("", ("a",)).hash) == len(words.generated().hash) == 16
