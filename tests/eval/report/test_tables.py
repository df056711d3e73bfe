"""The general section of a task: what its table says of n, intervals, gaps and protocol."""

from itertools import combinations
from typing import Any

import pytest
from report_tasks import full_results, json_kv, other_models, ruler

from ropewalk.eval.report import results
from ropewalk.eval.report.figures.columns import column_styles, page_columns
from ropewalk.eval.report.figures.heatmap import heat_maps
from ropewalk.eval.report.figures.style import MARKERS, SLOTS

FLOOR = {"length": 64, "n": 0, "accuracy": None, "reason": "too short", "unit": "haystack"}
ROW = {"length": 256, "n": 40, "accuracy": 0.5, "low": 0.4, "high": 0.6, "unit": "haystack"}


def table(*rows: dict[str, Any]) -> results.Table:
    made = results.table({"extended": [*rows]})
    assert made is not None
    return made


def test_a_null_is_not_measurable_with_its_reason_and_a_missing_cell_is_empty() -> None:
    made = table(FLOOR, ROW, {**ROW, "chance": 0.1})
    assert made.head == ["length", "n", "accuracy", "chance", "interval"]
    floor, row, with_chance = made.body["extended"]
    assert floor == ["64", "0", "not measurable", "", ""]
    assert row == ["256", "40", "0.5", "", "0.4 to 0.6"]
    assert with_chance == ["256", "40", "0.5", "0.1", "0.4 to 0.6"]
    assert made.reasons == ["too short"]


def test_the_protocol_is_said_once_with_unit_interval_and_n() -> None:
    made = results.table({name: json_kv(name) for name in ("base", "rescaled")})
    assert made is not None and made.protocol["unit"] == "haystack"
    assert made.protocol["intervals"] == "95%, by haystack"
    assert made.protocol["n"] == "12 to 250" and made.protocol["shots"] == "2"
    assert "JSON key-value" in made.protocol["protocol"] and "protocol" not in made.head


def test_a_text_that_differs_between_rows_stays_in_the_table() -> None:
    made = results.table({"extended": ruler("extended")})
    assert made is not None and "configuration" in made.head and "mode" in made.protocol
    assert made.reasons == ["SQuAD's questions are absent; set eval.ruler.squad"]


def test_long_lists_are_counted() -> None:
    made = table({"places": [[1, 2], [3]], "tokens": [*range(90)], "few": [1, 2]})
    assert made.body["extended"] == [["2 lists", "90 values", "1, 2"]]


def test_an_interval_stands_behind_its_value() -> None:
    made = table({"difference": 0.1, "difference_low": 0.0, "difference_high": 0.2, "n": 3})
    assert made.head == ["difference", "difference interval", "n"]


@pytest.mark.parametrize(("n", "coloured"), [(19, False), (20, True), (None, False)])
def test_a_cell_of_few_samples_has_no_colour(n: int | None, coloured: bool) -> None:
    cells = heat_maps({"extended": [ROW | {"depth": 0.5, "n": n}]}, "share")
    assert cells is not None and "0.50</td>" in cells
    assert ('class="heat' in cells) == coloured and ('class="few"' in cells) != coloured


def test_a_floor_has_no_number_in_the_map_and_what_was_not_run_is_empty() -> None:
    rows = [FLOOR | {"depth": 0.5}, ROW | {"depth": 1.0}]
    cells = heat_maps({"extended": rows}, "share")
    assert cells is not None and "not measurable: too short" in cells
    assert "n/m</td>" in cells and cells.count("<td></td>") == 2


def test_eight_columns_differ_in_colour_and_marker_and_keep_both_in_every_figure() -> None:
    names = results.shown(other_models())
    assert names[:3] == ["base", "rescaled", "extended"] and len(names) == 8
    styles = column_styles(names)
    for one, two in combinations(styles.values(), 2):
        assert one.colour != two.colour and one.marker["marker"] != two.marker["marker"]
    with page_columns(names):
        assert column_styles(["smol", "base"]) == {n: styles[n] for n in ("base", "smol")}
    assert set(MARKERS) == set(SLOTS)
    many = column_styles([f"model {k}" for k in range(24)])
    assert len({(style.slot, str(style.dash)) for style in many.values()}) == 24


def test_columns_of_a_run_are_shown_though_one_was_not_measured() -> None:
    content = full_results()
    del content["models"]["extended"]
    assert results.shown(content) == ["base", "rescaled", "extended"]
    assert results.shown({"models": {"a": {}, "b": {}}}) == ["a", "b"]
