"""The five questions at the top of the page: from gates, from answers, and where nothing stands."""

import re
from html import unescape
from typing import Any

import pytest
from report_run import gate, gates, results, write_json

from ropewalk.eval.report.answers import QUESTIONS, answers
from ropewalk.eval.report.page import render


def rows(html: str) -> list[str]:
    """Text of each row of the list."""
    items = re.findall(r"<li class=\"[\w-]+\">(.*?)</li>", html, flags=re.S)
    return [re.sub(r"\s+", " ", unescape(re.sub(r"<[^>]*>", " ", item))) for item in items]


def test_each_row_has_question_answer_number_n_and_unit(html: str) -> None:
    shown = rows(html)
    assert len(shown) == 5
    for text, question in zip(shown, QUESTIONS, strict=True):
        assert question in text
    assert "✓ yes" in shown[0] and "\u22120.412 nats [\u22120.520, \u22120.301]" in shown[0]
    assert "n = 32 documents" in shown[0]
    assert "✗ no" in shown[1]
    assert "? undecided" in shown[2] and "n = 50 haystacks" in shown[2]
    assert "412 would decide" in shown[2]
    assert "– not measured" in shown[3]
    # of two gates the worse answers, and both are there
    assert (
        "? undecided" in shown[4] and "+0.004 nats" in shown[4] and "9,214 would decide" in shown[4]
    )


def test_the_list_comes_before_every_section(html: str) -> None:
    assert html.index('<ol class="answers">') < html.index("<nav") < html.index("<section")


@pytest.mark.parametrize(
    ("verdicts", "answer"),
    [
        (["pass", "pass"], "yes"),
        (["pass", "undecided"], "undecided"),
        (["undecided", "fail", "pass"], "no"),
        ([], "not measured"),
    ],
)
def test_of_several_gates_the_worst_answers(verdicts: list[str], answer: str) -> None:
    content = {"gates": [gate(3, verdict, "1") for verdict in verdicts]}
    assert answers(content)[2].answer == answer
    assert answers(content)[1].answer == "not measured"


def test_an_answer_of_the_results_stands_over_the_gates() -> None:
    given = {"question": 4, "answer": "not measured", "reason": "both are at their floor"}
    content: dict[str, Any] = {
        "gates": gates(),
        "answers": [given, {"question": 1, "answer": "no"}],
    }
    first, *_, fourth, _ = answers(content)
    assert (first.answer, first.evidence[0].n) == ("no", "32 documents")
    assert (fourth.answer, fourth.reason) == ("not measured", "both are at their floor")


def test_what_an_answer_says_beside_its_gates_is_shown_once() -> None:
    (own,) = (row for row in gates() if row["question"] == 3)
    text = f"{own['name']}: {own['text']} (n 50); worst at 2,048 tokens, depth 50%: 70% (n 50)"
    given = {"question": 3, "answer": "undecided", "text": text, "reason": None}
    shown = answers({"gates": gates(), "answers": [given]})[2]
    assert shown.beside == "Worst at 2,048 tokens, depth 50%: 70% (n 50)"
    assert [part.value for part in shown.evidence] == ["81% [72%, 88%]"]


def test_a_value_beside_a_question_that_was_not_measured_is_not_its_answer(run_dir: Any) -> None:
    """A pass key that is found says little where no value of an object is."""
    given = {"question": 3, "answer": "not measured", "reason": "json_kv is at its floor"}
    write_json(run_dir / "eval" / "results.json", results() | {"answers": [given]})
    html = render(run_dir)
    assert "not measured" in rows(html)[2] and "81% [72%, 88%]" in rows(html)[2]
    assert "<b>81% [72%, 88%]</b>" not in html and "<b>+0.004 nats" in html


def test_without_results_there_are_no_questions(run_dir: Any) -> None:
    write_json(run_dir / "eval" / "results.json", {key: None for key in results()})
    assert "answers" not in re.findall(r'<ol class="(\w+)"', render(run_dir))
