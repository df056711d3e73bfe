"""The page of a comparison, as a file and in a real browser."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from browser import Browser, find
from compared_runs import RunFolder, planted
from page_scripts import CONTRAST, FIGURES, OUTSIDE

from ropewalk.launch.cli import main
from ropewalk.launch.compare.command import compare_runs

PROGRAM = find()
needs_browser = pytest.mark.skipif(PROGRAM is None, reason="no Chromium on this machine")
METHODS: dict[str, dict[str, float]] = {
    "none": {"past": 1.5},
    "pi": {"past": 0.1, "short": 0.2},
    "yarn": {"past": -0.05},
    "a_method_with_a_name_as_long_as_a_user_may_give": {"past": 0.3, "short": 0.3},
}


def gate(verdict: str) -> dict[str, Any]:
    row = {"name": "Short <documents>", "verdict": verdict, "text": "+0.210 nats [+0.1, +0.3]"}
    return row | {"rule": "at most +0.1", "n": 24, "unit": "document", "decides": True}


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Three seeds of four methods, of which the second fails."""
    folder, words = tmp_path_factory.mktemp("compared"), []
    for number, (method, effects) in enumerate(METHODS.items()):
        for seed in range(3):
            kept = {"base": planted(50), "extended": planted(10 * number + seed, **effects)}
            settings = {"rope": {"method": method}, "cache_dir": f"/home/someone/{seed}"}
            settings["data"] = {"sources": {"books": {"path": f"/home/someone/{method}"}}}
            results = {"gates": [gate("fail" if method == "pi" else "undecided")]}
            run = RunFolder(f"demo-{method}-seed={seed}", kept, seed, settings, results)
            words.append(run.write(folder))
    return words


@pytest.fixture(scope="module")
def page(runs: list[Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    return compare_runs(runs, "demo-none-seed=0", tmp_path_factory.mktemp("out"))


def test_the_page_is_one_file_without_a_users_folders(page: Path) -> None:
    html = page.read_text()
    assert "/home/someone" not in html and "…/yarn" in html
    links = re.findall(r"(?:src|href)=\"([^\"]*)\"", html)
    assert links and all(link.startswith("#") for link in links)
    assert not re.search(r"<(script|img|link|iframe)\b", html)
    assert "Short &lt;documents&gt;" in html


def test_failed_verdicts_stand_first(page: Path) -> None:
    html = page.read_text()
    verdicts = re.findall(r'<p class="verdict"><span class="mark">.</span> ([^<]*)</p>', html)
    assert verdicts == ["1 failed"] * 3 + ["1 undecided"]
    assert html.index("1 failed") < html.index("1 undecided") < html.index('id="differences"')


def test_what_differs_is_named_with_the_models_that_have_it(page: Path) -> None:
    section = page.read_text().split('id="facts"')[1]
    head, table = section.split("<table", 1)
    different = re.findall(r'<th scope="row" class="l">([^<]+)</th>', table.split("</table>")[0])
    assert {"seed", "rope.method", "data.sources.books.path"} <= set(different)
    assert "cache_dir" not in different and "cache_dir" in head


def test_the_verb_prints_the_table_and_the_page(
    runs: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [str(run) for run in runs if run.name.endswith("=1")]
    main(["compare", *words[:2], "--output", str(tmp_path), words[2]])
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("FAIL  demo-pi-seed=1: Short <documents>")
    assert lines[-1] == f"wrote {tmp_path / 'index.html'}"
    assert sum(line.startswith("past_window ") for line in lines) == 3


def test_json_is_a_list_of_rows_with_the_name_first_and_the_page_is_the_same_again(
    runs: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    main(["compare", str(runs[0]), str(runs[3]), "--json", "--output", str(tmp_path)])
    rows = json.loads(capsys.readouterr().out)
    assert [next(iter(row.items())) for row in rows] == [("name", runs[n].name) for n in (0, 3)]
    assert rows == json.loads((tmp_path / "comparison.json").read_text())
    assert rows[1]["failed"] == ["Short <documents>"] and rows[1]["hours_are"] == "GPU-hours"
    again = compare_runs([runs[0], runs[3]], None, tmp_path / "again")
    assert again.read_bytes() == (tmp_path / "index.html").read_bytes()


def test_a_refusal_is_exit_code_2(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        main(["compare", "nowhere", "elsewhere"])
    assert stop.value.code == 2
    assert len(capsys.readouterr().err.splitlines()) == 3


@pytest.fixture(scope="module")
def tab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    assert PROGRAM is not None
    with Browser(PROGRAM, tmp_path_factory.mktemp("profile")) as browser:
        yield browser


@needs_browser
@pytest.mark.parametrize("width", [390, 1400])
def test_nothing_overflows_and_figures_are_readable(tab: Browser, page: Path, width: int) -> None:
    tab.open(page, width)
    assert tab.evaluate(OUTSIDE) == []
    assert tab.evaluate("document.documentElement.scrollWidth") <= width
    figures = tab.evaluate(FIGURES)
    labels = [figure["label"] for figure in figures]
    assert len(labels) == len(set(labels)) == 7
    assert min(figure["text"] for figure in figures) >= 9  # pixels


@needs_browser
@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_text_has_the_contrast_that_wcag_asks_for(tab: Browser, page: Path, dark: bool) -> None:
    tab.open(page, 390, dark=dark)
    texts = tab.evaluate(CONTRAST)
    assert len(texts) > 100
    assert [text for text in texts if text["ratio"] < 4.5] == []
