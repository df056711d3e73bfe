"""The page in a real browser: a phone, the dark colours, a printer."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import matplotlib.image
import pytest
from browser import Browser, find, picture
from page_scripts import CONTRAST, FIGURES, GROUND, OUTSIDE
from report_run import make_run
from report_tasks import other_models

from ropewalk.eval.report.page import make

PROGRAM = find()
pytestmark = pytest.mark.skipif(PROGRAM is None, reason="no Chromium on this machine")


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Every task of eight columns, some with long names."""
    folder = tmp_path_factory.mktemp("report")
    make(make_run(tmp_path_factory.mktemp("run"), other_models())).write(folder)
    return folder / "index.html"


@pytest.fixture(scope="module")
def tab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    assert PROGRAM is not None
    with Browser(PROGRAM, tmp_path_factory.mktemp("profile")) as browser:
        yield browser


@pytest.mark.parametrize("width", [390, 1200])
def test_nothing_overflows_and_no_figure_or_text_is_clipped(
    tab: Browser, page: Path, width: int
) -> None:
    tab.open(page, width)
    assert tab.evaluate(OUTSIDE) == []
    assert tab.evaluate("document.documentElement.scrollWidth") <= width


@pytest.mark.parametrize("width", [390, 1200])
def test_figures_are_shown_once_without_scrolling_in_readable_type(
    tab: Browser, page: Path, width: int
) -> None:
    tab.open(page, width)
    figures = tab.evaluate(FIGURES)
    labels = [figure["label"] for figure in figures]
    assert len(labels) == len(set(labels)) >= 5
    assert not any(figure["scrolls"] for figure in figures)
    assert min(figure["text"] for figure in figures) >= 9  # pixels


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_text_has_the_contrast_that_wcag_asks_for(tab: Browser, page: Path, dark: bool) -> None:
    tab.open(page, 390, dark=dark)
    assert (sum(tab.evaluate(GROUND)) < 150) == dark
    texts = tab.evaluate(CONTRAST)
    assert len(texts) > 200
    assert [text for text in texts if text["ratio"] < 4.5] == []


def test_paper_stays_white_where_the_screen_is_dark(tab: Browser, page: Path) -> None:
    tab.open(page, 800, dark=True, media="print")
    assert min(tab.evaluate(GROUND)) > 240
    assert [text for text in tab.evaluate(CONTRAST) if text["ratio"] < 4.5] == []
    assert tab.evaluate("document.documentElement.scrollWidth") <= 800
    assert tab.evaluate("getComputedStyle(document.querySelector('nav')).display") == "none"


def test_the_answers_fit_one_screen(tab: Browser, page: Path) -> None:
    for width, height in ((390, 844), (1200, 800)):
        tab.open(page, width, height)
        box: Any = tab.evaluate(
            "document.querySelector('.answers').getBoundingClientRect().toJSON()"
        )
        assert box["bottom"] <= height


def test_the_picture_of_the_readme_is_the_beginning_of_the_page(page: Path, tmp_path: Path) -> None:
    picture(page, tmp_path / "report.png", 640, 480)
    image = matplotlib.image.imread(tmp_path / "report.png")
    assert image.shape[:2] == (480, 640) and image.std() > 0.01
