"""The report page: self-contained, escaped, deterministic; missing and unreadable artifacts."""

import json
import re

import pytest
from report_run import Page, write_json

from ropewalk.conf.errors import DataError
from ropewalk.eval.report.page import render


def test_the_page_needs_nothing_outside_itself(html):
    page = Page(html)
    assert not {"script", "link", "iframe", "img", "object", "embed", "base"} & set(page.tags)
    assert not page.values("src")
    assert all(value.startswith("#") for value in page.values("href"))
    assert not re.search(r"https?:|//[a-z]|@import|@font-face", html)
    assert all(target.startswith("#") for target in re.findall(r"url\(([^)]*)\)", html))


def test_text_from_the_run_is_escaped(html):
    page = Page(html)
    assert "script" not in page.tags and "b" in page.tags
    assert "<script>alert(1)</script>" in page.text["data"]
    assert "passkey $a$" in page.text["data"]
    assert "note: <b>&" in page.text["reproduce"]


def test_ids_are_unique_and_every_reference_has_an_id(html):
    page = Page(html)
    ids = page.values("id")
    assert len(ids) == len(set(ids)) > 100
    references = {value[1:] for value in page.values("href")}
    references |= set(re.findall(r"url\(#([^)]*)\)", html))
    assert references <= set(ids)


def test_the_same_files_give_the_same_bytes(html, run_dir):
    assert render(run_dir) == html


def test_figures_use_the_page_s_colour_variables(html):
    svg = "".join(re.findall(r"<svg.*?</svg>", html, flags=re.S))
    assert not re.search(r"#[0-9a-f]{6}\b", svg)
    colours = set(re.findall(r"var\(--\w+\)", svg))
    assert {"var(--base)", "var(--rescaled)", "var(--extended)"} <= colours


MISSING = {
    "eval/results.json": ["position", "perplexity", "gain", "passkey"],
    "rope.json": ["rope"],
    "data/ledger.json": ["data"],
    "train/metrics.jsonl": ["training"],
}


@pytest.mark.parametrize("name", MISSING)
def test_a_missing_stage_is_reported(html, run_dir, name):
    (run_dir / name).unlink()
    for section, text in Page(render(run_dir)).text.items():
        if section not in ("header", "reproduce"):
            assert ("Not run." in text) == (section in MISSING[name]), section
    assert "Not run." not in "".join(Page(html).text.values())


def test_an_empty_run_folder_is_all_not_run(tmp_path):
    page = Page(render(tmp_path))
    assert sum(text.count("Not run.") for text in page.text.values()) == 7
    assert page.text["reproduce"].count("not run") == 4
    assert "config.yaml is not in this run" in page.text["reproduce"]
    assert "svg" not in page.tags


@pytest.mark.parametrize(
    "name", ["rope.json", "data/ledger.json", "eval/results.json", "manifest.json"]
)
def test_every_part_may_be_null(run_dir, name):
    """A null is a missing value: no crash, and no number in its place."""
    write_json(run_dir / name, dict.fromkeys(json.loads((run_dir / name).read_text())))
    page = Page(render(run_dir))
    assert "None" not in "".join(page.text.values())


@pytest.mark.parametrize(
    ("name", "content"), [("rope.json", "{"), ("rope.json", "[]"), ("rope.json", '{"schema": 2}')]
)
def test_an_unreadable_artifact_is_refused_by_name(run_dir, name, content):
    (run_dir / name).write_text(content)
    with pytest.raises(DataError, match=r"rope\.json .*; .*; "):
        render(run_dir)


def test_an_evaluation_of_another_schema_is_refused_with_the_way_out(run_dir):
    write_json(run_dir / "eval" / "results.json", {"schema": 1, "models": {}})
    with pytest.raises(DataError, match=r"schema is 1; this report reads 2; .*ropewalk eval"):
        render(run_dir)
