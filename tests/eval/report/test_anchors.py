"""Published numbers: complete, checked when read, and beside the same protocol only."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from report_run import Page, results, write_json

from ropewalk.conf.errors import DataError
from ropewalk.eval.report import anchors
from ropewalk.eval.report.page import render

YARN = "proof-pile, test, first 10 documents of 131072 tokens"
ROW = {"protocol": "yarn_compat", "data": YARN, "tokenizer": "llama-2", "length": 2048}


def text(**changes: Any) -> str:
    row = {"row": 1, "model": "m", "values": [1.5, None]} | changes
    row = {key: value for key, value in row.items() if value != "left out"}
    group = {"protocol": "p", "metric": "loss", "data": "d", "tokenizer": "t", "source": "s"}
    return json.dumps([group | {"by": "length", "at": [2, 4], "rows": [row]}])


def test_all_rows_of_the_survey_are_there() -> None:
    published = anchors.published()
    assert {anchor.row for anchor in published} == set(range(1, 70))
    raw = yaml.safe_load((Path(anchors.__file__).parents[1] / "anchors.yaml").read_text())
    assert len(published) == sum(len(group["rows"]) for group in raw)


def test_a_longer_context_never_has_more_text_than_the_protocol_s() -> None:
    """RULER and other shares are percents, perplexities above 1; lengths grow along a row."""
    for anchor in anchors.published():
        values = [value for _, value in anchor.points]
        assert all(
            value > 1 if "perplexity" in anchor.metric.lower() else value >= 0 for value in values
        )
        assert "percent" not in anchor.metric or max(values) <= 100, anchor
        if anchor.by == "length":
            numbers = [place for place in anchor.at if isinstance(place, int)]
            assert numbers == sorted(set(numbers)), anchor


@pytest.mark.parametrize(
    "changes",
    [
        {"values": [1.5]},
        {"values": [None, None]},
        {"values": ["1.5", None]},
        {"values": "left out"},
        {"protocol": None},
        {"model": 7},
        {"second_hand": "yes"},
        {"secondhand": True},
    ],
    ids=str,
)
def test_a_damaged_row_is_refused_by_its_number(changes: dict[str, Any]) -> None:
    assert anchors.parse(text())[0].points == [(2, 1.5)]
    with pytest.raises(DataError, match=r"anchors\.yaml row 1 .*; .*; "):
        anchors.parse(text(**changes))


@pytest.mark.parametrize("key", ["protocol", "data", "haystack", "tokenizer"])
def test_an_anchor_stands_beside_the_same_protocol_only(key: str) -> None:
    assert {a.row for a in anchors.beside({"extended": [ROW]})} == {*range(1, 8), *range(15, 20)}
    assert not anchors.beside({"extended": [ROW | {key: "another"}]})
    without = {name: value for name, value in ROW.items() if name != key}
    assert bool(anchors.beside({"extended": [without]})) == (key == "haystack")  # ROW has none


def test_the_page_lists_it_and_marks_what_is_second_hand(run_dir: Path) -> None:
    changed = results()
    longest = changed["models"]["extended"]["context_gain"][-1]
    longest |= {"protocol": "pi_compat", "data": "pg19, test, 100 books", "tokenizer": "llama"}
    write_json(run_dir / "eval" / "results.json", changed)
    section = Page(render(run_dir)).text["gain"]
    assert "Published" in section and "112.1" in section and "second hand" in section
    longest["data"] = "pg19, test, 10 books"
    write_json(run_dir / "eval" / "results.json", changed)
    assert "Published" not in Page(render(run_dir)).text["gain"]
