"""Figures as files: an SVG that stands alone, a PNG, the same bytes each time."""

import io
import xml.etree.ElementTree as ET
from pathlib import Path

import matplotlib.image
import numpy as np
import pytest
from report_run import make_run
from report_tasks import full_results

from ropewalk.eval.report.figures.style import COLOURS
from ropewalk.eval.report.page import Report, make

SVG = "{http://www.w3.org/2000/svg}"


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_run(tmp_path_factory.mktemp("run"), full_results())


@pytest.fixture(scope="module")
def report(run: Path) -> Report:
    return make(run, phone=False)


@pytest.fixture(scope="module")
def folder(report: Report, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("report")
    report.write(folder)
    return folder / "figures"


def test_every_figure_of_the_page_has_both_files(folder: Path, report: Report) -> None:
    names = {path.name for path in folder.iterdir()}
    assert names == {f"{name}.{suffix}" for name in report.figures for suffix in ("svg", "png")}
    assert {"nll_by_position.svg", "passkey.png", "json_kv.svg", "lost_in_middle.png"} <= names


def test_an_svg_is_valid_alone_and_has_the_light_colours(folder: Path) -> None:
    for path in sorted(folder.glob("*.svg")):
        text = path.read_text(encoding="utf-8")
        root = ET.fromstring(text)
        assert root.tag == f"{SVG}svg" and root.get("width") and root.get("viewBox")
        assert "var(--" not in text and COLOURS["paper"] in text, path.name
        assert list(root.iter(f"{SVG}text")), path.name


def test_text_of_the_heat_map_is_that_of_the_table(folder: Path) -> None:
    root = ET.parse(folder / "json_kv.svg").getroot()
    texts = ["".join(node.itertext()).strip() for node in root.iter(f"{SVG}text")]
    assert texts.count("0.95") == 15 and {"25%", "1,024", "rescaled only"} <= set(texts)


def test_a_png_is_an_image_on_paper(folder: Path) -> None:
    paper = [int(COLOURS["paper"][k : k + 2], 16) / 255 for k in (1, 3, 5)]
    for path in sorted(folder.glob("*.png")):
        image = matplotlib.image.imread(io.BytesIO(path.read_bytes()))
        assert image.shape[0] > 200 and image.shape[1] > 600, path.name
        assert np.allclose(image[0, 0, :3], paper, atol=0.01) and image.std() > 0.01, path.name


def test_the_same_run_gives_the_same_bytes(run: Path, report: Report, folder: Path) -> None:
    again = make(run, phone=False)
    for name in ("json_kv", "nll_by_position"):
        files = again.figures[name].files()  # type: ignore[attr-defined]
        assert {s: (folder / f"{name}.{s}").read_bytes() for s in files} == files
