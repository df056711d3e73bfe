"""The section of calibrate: every number of its results, two figures, one sentence."""

import functools
import json
import operator
import re
from pathlib import Path
from typing import Any

import pytest

from ropewalk.eval.report.page import render

NAMES = ("none", "yarn", "pi", "calibrated")


def around(value: float) -> dict[str, float]:
    return {"nll": value, "low": value - 0.021, "high": value + 0.017}


def method(k: int) -> dict[str, Any]:
    bins = [
        {"from": 64 * n, "to": 64 * (n + 1), "tokens": 640, **around(2.5 + 0.31 * k + 0.07 * n)}
        for n in range(8)
    ]
    parts = {
        key: around(2.111 + 0.3 * k + 0.1 * j)
        for j, key in enumerate(("inside", "beyond", "value"))
    }
    differences = {
        key: around(0.333 * (k - 1) + 0.01 * j)
        for j, key in enumerate(("inside", "beyond", "value"))
    }
    return {"nll_by_position": bins, **parts, "difference": differences}


def trial(number: int, searcher: str, value: float | None) -> dict[str, Any]:
    loss = {"inside": value, "beyond": value, "value": value}
    return {
        "number": number,
        "searcher": searcher,
        "method": "yarn",
        "passes": 1.5,
        "short": 3.0,
        **loss,
    }


def calibration() -> dict[str, Any]:
    methods = {name: method(k) for k, name in enumerate(NAMES)}
    settings = {
        "method": "yarn",
        "factor": 2.0,
        "beta_fast": 17.25,
        "beta_slow": 0.75,
        "attention_factor": 1.0625,
    }
    return {
        "schema": 1,
        "base_window": 256,
        "original_max_position_embeddings": 256,
        "max_position_embeddings": 512,
        "factor": 2.0,
        "search_length": 512,
        "prefix": 384,
        "inside_weight": 0.5,
        "chosen_on": {"documents": 3, "windows": 4, "names": []},
        "reported_on": {"documents": 5, "windows": 7, "names": []},
        "budget": {"passes": 40, "spent": 37.5, "trials": 25, "pruned": 11},
        "chosen": {"trial": 2, "searcher": "ramp", "settings": settings, "lowest": 2, "kept": None},
        "methods": methods,
        "gain": {"over": "yarn", **methods["calibrated"]["difference"]},
        "verdict": "no gain shown: +0.0010 nats [-0.0100, +0.0120] against yarn's defaults, the "
        "interval holds zero",
        "trials": [
            trial(0, "paper", 2.9),
            trial(1, "ramp", None),
            trial(2, "ramp", 2.8),
            trial(3, "longrope", 3.4),
        ],
    }


def run(folder: Path) -> Path:
    (folder / "calibration").mkdir()
    (folder / "calibration" / "results.json").write_text(json.dumps(calibration()))
    (folder / "config.yaml").write_text("name: c\n")
    return folder


def section(html: str) -> str:
    match = re.search(r'<section id="calibration">.*?</section>', html, re.S)
    assert match is not None
    return match[0]


def test_every_number_is_in_the_table(tmp_path: Path) -> None:
    text = section(render(run(tmp_path))).replace("\u2212", "-")
    for name, measured in calibration()["methods"].items():
        (row,) = re.findall(rf'<tr[^>]*><th scope="row">{name}</th>.*?</tr>', text, re.S)
        expected = [
            f"{measured[key][part]:.3f}"
            for key in ("inside", "beyond")
            for part in ("nll", "low", "high")
        ]
        expected += [
            f"{measured['difference'][key]['nll']:+.3f}" for key in ("inside", "beyond", "value")
        ]
        expected += [f"{measured['difference']['value'][part]:+.3f}" for part in ("low", "high")]
        assert not [number for number in expected if number not in row], name


def test_figures_name_every_method_and_searcher_and_draw_no_raw_colour(tmp_path: Path) -> None:
    text = section(render(run(tmp_path)))
    curves, search = re.findall(r"<svg.*?</svg>", text, re.S)
    assert all(f">{name}</text>" in curves for name in NAMES)
    assert all(name in search for name in ("paper", "ramp", "longrope", "lowest so far"))
    assert not re.findall(r"(?:fill|stroke): #(?!000000|ffffff)[0-9a-f]{6}", curves + search)


def test_the_sentence_has_choice_cost_and_verdict_without_a_gain(tmp_path: Path) -> None:
    text = section(render(run(tmp_path)))
    assert "trial 2 (ramp: yarn, beta_fast 17.25, beta_slow 0.75, attention_factor 1.062)" in text
    assert "after 25 trials and 38 forward passes, 11 pruned" in text
    assert (
        "7 stretches of 5 documents that were not searched on: no gain shown: +0.0010 nats" in text
    )


def without(*paths: str) -> dict[str, Any]:
    """The calibration with nulls at paths such as `budget.spent`."""
    content = calibration()
    for path in paths:
        *parents, last = (int(key) if key.isdecimal() else key for key in path.split("."))
        functools.reduce(operator.getitem, parents, content)[last] = None
    return content


@pytest.mark.parametrize(
    "paths",
    [
        ("methods", "base_window", "budget", "gain", "chosen.settings"),
        ("trials", "reported_on", "chosen", "verdict", "methods.yarn"),
        ("methods.calibrated.nll_by_position", "methods.none.inside", "trials.2.passes"),
        ("methods.yarn.nll_by_position.3.nll", "trials.3.searcher", "chosen.settings.method"),
        ("budget.spent", "chosen.trial", "reported_on.windows", "trials.2.value"),
    ],
)
def test_any_part_may_be_null(tmp_path: Path, paths: tuple[str, ...]) -> None:
    """A null is a missing value: no crash, and no number in its place."""
    folder = run(tmp_path)
    (folder / "calibration" / "results.json").write_text(json.dumps(without(*paths)))
    text = section(render(folder))
    assert "None" not in text and "–" in re.sub(r"<svg.*?</svg>", "", text, flags=re.S)


@pytest.mark.parametrize("key", ["methods", "trials"])
def test_without_methods_or_trials_the_other_figure_is_drawn(tmp_path: Path, key: str) -> None:
    folder = run(tmp_path)
    (folder / "calibration" / "results.json").write_text(json.dumps(without(key)))
    text = section(render(folder))
    assert text.count("<svg") == 1 and ("lowest so far" in text) == (key == "methods")
    assert "Chosen: trial 2 (ramp: yarn," in text


def test_without_calibration_or_with_it_left_out_there_is_no_section(tmp_path: Path) -> None:
    assert 'id="calibration"' not in render(run(tmp_path), leave_out=["calibration"])
    (tmp_path / "calibration" / "results.json").unlink()
    assert "Methods before training" not in render(tmp_path)


def test_the_reason_for_keeping_the_paper_s_settings_is_shown(tmp_path: Path) -> None:
    folder, content = run(tmp_path), calibration()
    content["chosen"] |= {"kept": "trial 3 (ramp) was lower by 0.0042 nats on 1 document(s)"}
    (folder / "calibration" / "results.json").write_text(json.dumps(content))
    assert (
        "settings are kept: trial 3 (ramp) was lower by 0.0042 nats on 1 document(s)."
        in section(render(folder))
    )
