"""The five answers from rows by hand, and from results that lack tasks."""

from typing import Any

from ropewalk.eval.measure.answers import answers, verdicts
from ropewalk.eval.measure.gates import judge


def rows() -> dict[str, Any]:
    gain = {"gain": 0.3, "low": 0.2, "high": 0.4, "n": 16, "unit": "document"}
    ratio = {"unit": "haystack", "n": 50, "longest": 2048, "reason": None}
    key_value = {"source": "json_kv", "ratio": 0.9, "ratio_low": 0.8, "ratio_high": 1.0, **ratio}
    ruler = {"source": "ruler", "ratio": 0.4, "ratio_low": 0.3, "ratio_high": 0.5, **ratio}
    depths = [
        {"length": length, "depth": depth, "accuracy": share, "n": 50}
        for length, depth, share in ((256, 0.5, 0.1), (2048, 0.0, 0.9), (2048, 0.5, 0.6))
    ]
    copies = [
        {"kind": kind, "nll": nll, "tokens": tokens}
        for kind, nll, tokens in (("near", 1.0, 10), ("far", 2.0, 10), ("far", 3.0, 30))
    ]
    return {
        "swapped_gain": [{"gain": 9.0}, gain],
        "effective_length": [key_value, ruler],
        "json_kv": [*depths, {"length": 2048, "accuracy": 0.7, "n": 100}],
        "far_copy": [*copies, {"kind": "far", "nll": None, "tokens": 0}],
    }


def test_each_question_is_answered_by_its_gates() -> None:
    gates = judge(verdicts(rows()), [1, 5])
    assert [(g["question"], g["verdict"]) for g in gates] == [
        (2, "pass"),
        (3, "undecided"),
        (4, "fail"),
    ]
    found = answers(gates, rows())
    assert [a["answer"] for a in found] == ["not measured", "yes", "undecided", "no"] + [
        "not measured"
    ]
    assert "+0.300 nats [+0.200, +0.400] (n 16)" in found[1]["text"]
    assert "copies from far back 2.750 nats, from near 1.000" in found[1]["text"]
    assert "worst at 2,048 tokens, depth 50%: 60% (n 50)" in found[2]["text"]
    assert "context_gain" in found[0]["reason"] and found[1]["reason"] is None


def test_of_several_gates_the_worst_answers() -> None:
    gates = [
        {"question": 5, "verdict": verdict, "name": "a", "text": "b", "n": 9}
        for verdict in ("pass", "undecided")
    ]
    assert answers(gates, {})[4]["answer"] == "undecided"
    failed = {**gates[0], "verdict": "fail"}
    assert answers([*gates, failed], {})[4]["answer"] == "no"


def test_missing_tasks_are_not_measured() -> None:
    assert verdicts({}) == []
    assert {a["answer"] for a in answers([], {})} == {"not measured"}


def test_why_there_are_no_gates_is_the_reason_of_each_answer() -> None:
    found = answers([], rows(), "there is no column beside a")
    assert {a["reason"] for a in found} == {"there is no column beside a"}
    assert {a["answer"] for a in found} == {"not measured"}


def test_a_floor_is_not_measured_with_its_reason() -> None:
    floor = {"source": "json_kv", "ratio": None, "reason": "the score is 4%, below 20%", "n": 50}
    rows = {"effective_length": [floor]}
    assert verdicts(rows) == [] and answers([], rows)[2]["reason"] == floor["reason"]


def test_a_pass_key_that_is_found_does_not_answer_for_a_floor_of_key_values() -> None:
    gate = {"question": 3, "verdict": "pass", "name": "Passkey", "text": "95%", "n": 60}
    assert answers([gate], {})[2]["answer"] == "yes"  # nothing else was asked
    floor = {"source": "json_kv", "ratio": None, "reason": "not measurable: 1%"}
    found = answers([gate], {"effective_length": [floor]})[2]
    assert found["answer"] == "not measured" and found["reason"] == "not measurable: 1%"
    assert "Passkey: 95% (n 60)" in found["text"]


def test_why_no_text_was_swapped_is_the_reason_of_the_second_answer_alone() -> None:
    without = {"swapped_gain": [{"gain": 9.0}, {"gain": None, "reason": "no donor"}]}
    reasons = [row["reason"] for row in answers([], without)]
    assert reasons[1] == "no donor"
    assert all(reason.startswith("eval.tasks needs ") for reason in [reasons[0], *reasons[2:]])
    assert answers([], {})[1]["reason"].startswith("eval.tasks needs swapped_gain")
