"""The page in a real browser: a phone, the dark colours, a printer."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import matplotlib.image
import pytest
from browser import Browser, find, picture
from report_run import make_run
from report_tasks import other_models

from ropewalk.eval.report.page import make

PROGRAM = find()
pytestmark = pytest.mark.skipif(PROGRAM is None, reason="no Chromium on this machine")

OUTSIDE = """(() => {
  const width = document.documentElement.clientWidth, bad = [];
  document.querySelectorAll('details').forEach(d => d.open = true);
  const inside = (r, b) => r.left >= b.left - 1 && r.right <= b.right + 1;
  const page = {left: 0, right: width};
  for (const e of document.body.querySelectorAll('*')) {
    const r = e.getBoundingClientRect(), svg = e.closest('svg');
    if (!r.width || !r.height) continue;
    if (svg && svg !== e) {
      const b = svg.getBoundingClientRect();
      if (e.tagName === 'text' && !(inside(r, b) && r.top >= b.top - 1 && r.bottom <= b.bottom + 1))
        bad.push('clipped in its figure: ' + e.textContent);
    } else if (!(e.parentElement.closest('.scroll')) && !inside(r, page)) {
      bad.push('outside the page: ' + e.tagName + '.' + e.className + ' ' + r.left + ' ' + r.right);
    }
  }
  const texts = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (texts.nextNode()) {
    const node = texts.currentNode, range = document.createRange(), box = node.parentElement;
    if (!node.data.trim() || box.closest('svg, style')) continue;
    range.selectNodeContents(node);
    const r = range.getBoundingClientRect(), block = box.closest('td, th, p, div, li, h1, h2, pre');
    const scrolls = box.closest('.scroll, pre');
    if (r.width && block && !scrolls && !inside(r, block.getBoundingClientRect()))
      bad.push('text outside its box: ' + node.data);
  }
  return bad;
})()"""

FIGURES = """[...document.querySelectorAll('figure svg')]
  .filter(s => s.getBoundingClientRect().width)
  .map(s => ({
    scrolls: !!s.closest('.scroll'),
    label: s.getAttribute('aria-label'),
    text: Math.min(...[...s.querySelectorAll('text')].map(t => t.getBoundingClientRect().height)),
  }))"""

CONTRAST = """(() => {
  const parse = c => (c.match(/[\\d.]+/g) || []).map(Number);
  const over = (top, under) => {
    const a = top.length > 3 ? top[3] : 1;
    return [0, 1, 2].map(k => a * top[k] + (1 - a) * under[k]);
  };
  const light = c => {
    const [r, g, b] = c.map(v => v / 255).map(
      v => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const ground = e => {
    if (!e) return [255, 255, 255];
    const own = parse(getComputedStyle(e).backgroundColor);
    return own.length > 3 && own[3] === 0 ? ground(e.parentElement)
      : over(own, own.length > 3 ? ground(e.parentElement) : [255, 255, 255]);
  };
  document.querySelectorAll('details').forEach(d => d.open = true);
  const found = [];
  for (const e of document.body.querySelectorAll('*')) {
    const own = [...e.childNodes].some(n => n.nodeType === 3 && n.data.trim());
    const r = e.getBoundingClientRect(), svg = e.closest('svg'), style = getComputedStyle(e);
    if (!own || !r.width || (svg && svg.getAttribute('aria-label').startsWith('Tokens by length')))
      continue;  // the labels of that figure lie on its bars
    const back = ground(svg ? svg.parentElement : e);
    const text = over(parse(svg ? style.fill : style.color), back);
    const [a, b] = [light(text), light(back)].sort((x, y) => y - x);
    found.push({text: e.textContent.trim().slice(0, 60), ratio: (a + 0.05) / (b + 0.05)});
  }
  return found;
})()"""

GROUND = """getComputedStyle(document.body).backgroundColor.match(/\\d+/g).map(Number)"""


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
