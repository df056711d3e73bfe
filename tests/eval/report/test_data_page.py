"""The data section from a full ledger by hand; report_run.py has an older one."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

from ropewalk.eval.report.figures import data
from ropewalk.eval.report.page import render

BUCKET = [
    f"{part}{unit}"
    for part in ("", "heldout_", "taken_", "plan_")
    for unit in ("documents", "tokens")
]


def source(**more: Any) -> dict[str, Any]:
    row = {
        "kind": "jsonl",
        "documents": 91,
        "tokens": 700_301,
        "share_in_plan": 0.5,
        "tokens_in_plan": 131_071,
        "epochs": 1.25,
    }
    row |= {
        "plan_documents": 77,
        "repeated": 1_212,
        "own_context_share": {"1024": 0.623, "4096": 0.0},
        "refused": {"empty": 5},
    }
    lengths = {
        "1-256": (60, 9_001, 3, 402, 55, 8_203, 53, 8_104),
        ">1048576": (2, 691_300, 1, 300_000, 1, 391_300, 1, 122_967),
    }
    row["by_length"] = {
        label: dict(zip(BUCKET, row, strict=True)) for label, row in lengths.items()
    }
    return (
        row
        | {
            "left_out": {
                "held_out": {"documents": 4, "tokens": 300_402},
                "not_drawn": {"documents": 10, "tokens": 88},
            }
        }
        | more
    )


def ledger() -> dict[str, Any]:
    plan = {
        "sequences": 64,
        "seq_len": 4096,
        "tokens": 262_142,
        "padding": 2,
        "fill": 0.99999,
        "pieces": 483,
        "packer": "concat",
    }
    plan |= {
        "document_mask": False,
        "positions": "continue",
        "own_context_share": {"1024": 0.411, "4096": 0.0},
    }
    plan |= {
        "piece_lengths": {"1-256": 400, "257-4096": 83},
        "piece_tokens": {"1-256": 65_536, "257-4096": 196_608},
    }
    plan |= {"a_sequence": {"pieces": 7.5, "most_pieces": 31, "sources": 1.9}}
    plan["work"] = {
        "share_of_full": 0.27,
        "variation": 1.31,
        "most_over_mean": 3.7,
        "sequences": {"0-10%": 40, "90-100%": 24},
    }
    plan["idle"] = {"dp_size": 8, "batch": 64, "in_order": 0.389, "balanced": 0.071}
    other = source(
        kind="text", left_out={"duplicate": {"documents": 6, "tokens": 17}}, by_length={}
    )
    return {
        "schema": 1,
        "sources": {"books": source(), "<i>notes</i>": other},
        "plan": plan,
        "notes": ["books: refused empty 5", "<i>notes</i>: duplicates exact documents 6"],
        "warnings": ["data.seq_len is 4096; no token sees <far>; add longer documents"],
    }


def section(folder: Path, content: dict[str, Any]) -> str:
    (folder / "data").mkdir(exist_ok=True)
    (folder / "data" / "ledger.json").write_text(json.dumps(content))
    page = render(folder)
    return page[page.index('<section id="data">') : page.index('<section id="training">')]


def text_of(html: str) -> str:
    return re.sub(r"\s+", " ", re.sub(r"<[^>]*>", " ", html))


def test_every_number_of_the_ledger_is_in_the_section(tmp_path: Path) -> None:
    text = text_of(section(tmp_path, ledger()))
    row = source()
    keys = ("documents", "tokens", "plan_documents", "repeated", "tokens_in_plan")
    numbers = [row[key] for key in keys]
    buckets = row["by_length"].values()
    numbers += [bucket[key] for bucket in buckets for key in BUCKET if key != "plan_documents"]
    numbers += [n for counts in row["left_out"].values() for n in counts.values()]
    numbers += [6, 17, 64, 4096, 262_142, 483, 400, 83, 31, 40, 24]
    assert {f"{n:,}" for n in numbers} <= set(text.split())
    shares = ["41.1%", "62.3%", "25.0%", "75.0%", "27.0%", "38.9%", "7.1%"]
    shares += [" 1.31,", " 3.7 ", " 7.5 ", " 1.9 "]
    assert all(share in text for share in shares)


def test_warnings_come_first_and_text_is_escaped(tmp_path: Path) -> None:
    html = section(tmp_path, ledger())
    assert html.index("no token sees &lt;far&gt;") < html.index("The mixture")
    assert "<i>notes" not in html
    assert "&lt;i&gt;notes&lt;/i&gt;: duplicates exact documents 6" in html
    assert "Refused documents" not in html and "books: refused empty 5" in html


def test_a_reason_of_one_source_gets_its_column(tmp_path: Path) -> None:
    text = text_of(section(tmp_path, ledger()))
    columns = "held out documents not drawn documents duplicate documents"
    assert f"{columns} books 300,402 4 88 10 0 0" in text
    assert "0 0 0 0 17 6" in text


def cleaned() -> dict[str, Any]:
    """A ledger of a run with every cleaning step."""
    content = ledger()
    books, notes = content["sources"].values()
    copies = ("exact_documents", "exact_tokens", "near_documents", "near_tokens")
    books["duplicates"] = dict(zip(copies, (211, 90_301, 17, 4_407), strict=True))
    notes["duplicates"] = dict(zip(copies, (3, 512, None, None), strict=True))
    books["buckets"] = {
        "<4K": {"asked": 88_107, "taken": 131_071},
        ">=4K": {"asked": 42_964, "taken": 0},
    }
    worst = [{"source": "books", "document": "<b>.txt", "share": 0.437}]
    other = [{"source": "<i>notes</i>", "document": "7.md", "share": 0.291}]
    content["contamination"] = {
        "action": "report",
        "ngram": 33,
        "heldout": {"worst": worst},
        "training": {"worst": other},
    }
    content["plan"] |= {"overlong": "truncate", "begin": 1, "end": None, "marks": 1_483}
    return content


def test_cleaning_and_buckets_are_on_the_page(tmp_path: Path) -> None:
    html = section(tmp_path, cleaned())
    text = text_of(html)
    assert "books 211 90,301 17 4,407 &lt;i&gt;notes&lt;/i&gt; 3 512 – –" in text
    assert "share of its stretches of 33 tokens &lt;b&gt;.txt books held out 43.7%" in text
    assert "7.md &lt;i&gt;notes&lt;/i&gt; training 29.1%" in text
    assert "books &lt;4K 88,107 131,071 &gt;=4K 42,964 0" in text
    tokens = "begin, end (token ids) 1, none begin and end tokens 1,483"
    assert f"overlong documents truncate {tokens}" in text
    bare = text_of(section(tmp_path, ledger()))
    assert "copies of earlier" not in bare and "overlong documents" not in bare


def test_both_figures_are_drawn_once_and_only_from_existing_keys(tmp_path: Path) -> None:
    labels = {
        "Tokens by length of their document, in the store and in the plan",
        "Share of targets by the tokens of their own document before them",
    }
    html = section(tmp_path, ledger())
    assert html.count("<svg") == 2 and all(label in html for label in labels)
    bare = ledger()
    for row in bare["sources"].values():
        del row["by_length"], row["own_context_share"]
    del bare["plan"]["own_context_share"]
    assert section(tmp_path, bare).count("<svg") == 0


@pytest.mark.parametrize(
    "key", ["left_out", "by_length", "own_context_share", "plan_documents", "repeated"]
)
def test_a_source_may_lack_any_newer_key(tmp_path: Path, key: str) -> None:
    partial = ledger()
    for row in partial["sources"].values():
        del row[key]
    assert "None" not in text_of(section(tmp_path, partial))


@pytest.mark.parametrize("key", ["piece_tokens", "work", "idle", "a_sequence", "own_context_share"])
def test_the_plan_may_lack_any_newer_key(tmp_path: Path, key: str) -> None:
    partial = ledger()
    del partial["plan"][key]
    assert "None" not in text_of(section(tmp_path, partial))


def test_own_context_sentence() -> None:
    share = "41.1% of the plan's tokens have more than 1,024 tokens"
    assert data.own_reading(ledger()) == f"{share} of their own document before them."
    assert data.own_reading({}) is None


def test_lengths_sentence() -> None:
    by_length = {
        "1-256": {"tokens": 25, "plan_tokens": 1},
        "1025-4096": {"tokens": 75, "plan_tokens": 9},
    }
    sources = {"a": {"by_length": by_length}}
    assert data.lengths_reading({"sources": sources, "plan": {"seq_len": 2048}}) == (
        "Documents of more than 1,024 tokens hold 75.0% of the tokens in the stores and 90.0% of "
        "the tokens in the plan."
    )
    assert data.lengths_reading({"sources": sources, "plan": {"seq_len": 1024}}) is None
    assert data.lengths_reading({}) is None


def test_an_older_ledger_shows_the_three_reasons_that_it_counts() -> None:
    row = {"heldout_documents": 41, "heldout_tokens": 170_233, "dropped": 3, "cut": 17}
    assert data.left_out({"sources": {"a": row}}) == {
        "reasons": ["held_out", "overlong", "cut"],
        "rows": {
            "a": {
                "held_out": {"documents": 41, "tokens": 170_233},
                "overlong": {"documents": None, "tokens": 3},
                "cut": {"documents": None, "tokens": 17},
            }
        },
    }
