"""Duplicates and held-out text through the whole stage."""

import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
from data_fixture import SYNTHETIC, DataFixture

from ropewalk.data.ledger.terminal import summary
from ropewalk.data.mixture import Mixture
from ropewalk.data.tokens import store
from ropewalk.data.tokens.store import BoundaryTokens


def is_heldout(path: Path) -> bool:
    return store.is_heldout(path.name, 0.2)


def training_names(prefix: str) -> list[str]:
    names = (f"{prefix}{i}.txt" for i in range(100))
    return [name for name in names if not store.is_heldout(name, 0.2)]


def plant_copies(data_fixture: DataFixture) -> None:
    """Add to notes an exact and a near copy from books, and a document with held-out text."""
    books = sorted((data_fixture.folder / "books").iterdir(), key=lambda p: -p.stat().st_size)
    heldout = next(path for path in books if is_heldout(path))
    text = next(path for path in books if not is_heldout(path)).read_text()
    texts = [
        text,
        " ".join([*text.split()[:-4], "new", "words"]),
        f"A preface. {heldout.read_text()}",
    ]
    for name, text in zip(training_names("x"), texts, strict=False):
        (data_fixture.folder / "notes" / name).write_text(text)


CLEAN = (
    "data.duplicates.exact=remove",
    "data.duplicates.near=remove",
    "data.contamination.action=remove",
)


def test_cleaning_removes_copies_and_held_out_text_and_counts_them(
    data_fixture: DataFixture,
) -> None:
    plant_copies(data_fixture)
    uncleaned, cleaned = data_fixture.run().ledger, data_fixture.run(*CLEAN, output="clean")
    before, after = uncleaned["sources"]["notes"], cleaned.ledger["sources"]["notes"]
    duplicates = before["duplicates"]
    assert (duplicates["exact_documents"], duplicates["near_documents"]) == (1, None)
    assert before["removed"] == {} and uncleaned["contamination"]["heldout"]["dirty"]
    assert {r: k["documents"] for r, k in after["removed"].items()} == {
        "exact duplicate": 1,
        "near duplicate": 1,
        "held-out text": 1,
    }
    removed_tokens = sum(counts["tokens"] for counts in after["removed"].values())
    assert after["tokens_in_plan"] == before["tokens_in_plan"] - removed_tokens
    removed = {
        cleaned.folders.store("notes").ids.index(f"x{i}.txt")
        for i in range(9)
        if (data_fixture.folder / "notes" / f"x{i}.txt").exists()
    }
    assert len(removed) == 3
    assert not removed & {document for document, _, _ in cleaned.by_source()["notes"]}
    assert cleaned.ledger["contamination"]["heldout"]["dirty"] == []


def test_only_removed_documents_change_the_plan(data_fixture: DataFixture) -> None:
    plan = data_fixture.run().folders.plan
    assert data_fixture.run(*CLEAN, output="nothing").folders.plan == plan
    plant_copies(data_fixture)
    plan = data_fixture.run(output="planted").folders.plan
    searched = [
        data_fixture.run(f"data.{override}", output="o").folders.plan
        for override in ("duplicates.near=report", "contamination.action=off")
    ]
    assert searched == [plan, plan]
    cleaned = [data_fixture.run(o, output="r").folders.plan for o in (CLEAN[0], CLEAN[2])]
    assert len({plan, *cleaned}) == 3


def test_a_plans_name_holds_the_removals_of_the_sources_that_it_reads(
    data_fixture: DataFixture,
) -> None:
    candidates = {name: SimpleNamespace(removed_digest=f"of {name}") for name in ("books", "notes")}
    budgets, boundary_tokens = {"books": 1, "notes": 0}, BoundaryTokens()
    mixture = Mixture(data_fixture.config(), {}, candidates, budgets, boundary_tokens)
    assert mixture.cache_key()["removed"] == {"books": "of books"}


def test_a_plans_name_holds_the_ranges_of_length_that_are_set(data_fixture: DataFixture) -> None:
    def cache_key(*overrides: str) -> dict[str, Any]:
        config = data_fixture.config(*overrides)
        return Mixture(config, {}, {}, {}, BoundaryTokens()).cache_key()

    assert "spans" not in cache_key()
    assert cache_key("data.sources.books.min_len=5")["spans"] == {"books": [5, None]}


def test_a_plans_name_holds_the_ranges_of_its_buckets(data_fixture: DataFixture) -> None:
    config = data_fixture.config('data.buckets={"<4K": 1, "4K-8K": 2, ">=8K": 3}')
    buckets = Mixture(config, {}, {}, {}, BoundaryTokens()).cache_key()["buckets"]
    assert [rule[:2] for rule in buckets] == [[1, 4096], [4096, 8192], [8192, None]]


def test_search_settings_renew_the_ledger_and_redo_nothing(data_fixture: DataFixture) -> None:
    before = data_fixture.run()
    after = data_fixture.run("data.contamination.action=off", "data.duplicates.near=report")
    assert after.message.endswith("skipped")
    assert before.ledger["contamination"]["action"] == "report"
    assert after.ledger["contamination"] == {"action": "off"}
    assert after.ledger["sources"]["books"]["duplicates"]["near_documents"] is not None


def test_synthetic_text_is_free_of_removed_documents(data_fixture: DataFixture) -> None:
    books = data_fixture.folder / "books"
    name = training_names("y")[0]
    next(path for path in books.iterdir() if is_heldout(path)).write_text("Q " * 300)
    (books / name).write_text("Q " * 300)
    overrides = (*SYNTHETIC, "data.total_tokens=20000")
    dirty = data_fixture.run(*overrides, sources=("books",))
    clean = data_fixture.run(*overrides, CLEAN[2], sources=("books",), output="clean")
    documents = clean.folders.store("books")
    training = np.flatnonzero(~documents.heldout).tolist()
    others = [documents.document(i) for i in training if documents.ids[i] != name]
    copied = set(documents.document(documents.ids.index(name)).tolist())
    only_copied = copied - set(np.concatenate(others).tolist())
    assert only_copied
    assert only_copied & tokens_of(dirty.folders.store("again"))
    assert not only_copied & tokens_of(clean.folders.store("again"))


def tokens_of(documents: store.Store) -> set[int]:
    return {t for i in range(len(documents.ids)) for t in documents.document(i).tolist()}


def test_the_summary_reports_copies_and_searches_that_are_off(data_fixture: DataFixture) -> None:
    plant_copies(data_fixture)
    text = " ".join(summary(data_fixture.run().ledger).split())
    duplicates = r"duplicates of earlier documents 1 exact \(\d+ tokens\); near ones not searched"
    assert re.search(f"notes: {duplicates}", text)
    shared = r"1 of \d+ held-out documents share more than 20% of their stretches of 32 tokens"
    assert re.search(f"held-out text in training text: {shared}", text)
    clean = data_fixture.run(*CLEAN, output="clean").ledger
    assert "not searched" not in summary(clean)
    left_out = clean["sources"]["notes"]["left_out"]
    for reason in ("exact duplicate", "near duplicate", "held-out text"):
        assert left_out[reason]["documents"] == 1
        assert f"{left_out[reason]['tokens']:,}" in summary(clean)
    off = summary(data_fixture.run("data.contamination.action=off", output="off").ledger)
    assert "held-out text in training text: not searched" in off


def test_one_folder_as_two_sources_counts_each_document_once(data_fixture: DataFixture) -> None:
    """Two sources with disjoint lengths of one store give the counts of a single source."""
    folder = data_fixture.folder / "books"
    paths = sorted(folder.iterdir())
    train = next(path for path in paths if not is_heldout(path)).read_text()
    heldout = next(path for path in paths if is_heldout(path)).read_text()
    for name, text in zip(training_names("x"), (train, f"A preface. {heldout}"), strict=False):
        (folder / name).write_text(text)
    near = "data.duplicates.near=report"
    alone = data_fixture.run(near, sources=("books",), output="alone").ledger
    overrides = [
        f"data.sources.{name}.{override}"
        for name, limit in (("long", "min_len=60"), ("short", "max_len=59"))
        for override in (f"path={folder}", "weight=1", limit)
    ]
    result = data_fixture.run(*overrides, near, sources=())
    assert result.folders.stores["long"] == result.folders.stores["short"]
    rows = [row["duplicates"] for row in result.ledger["sources"].values()]
    expected = alone["sources"]["books"]["duplicates"]
    assert {key: sum(row[key] for row in rows) for key in expected} == expected
    assert expected["exact_documents"] == 1
    expected_section = without_sources(alone["contamination"]["heldout"])
    assert without_sources(result.ledger["contamination"]["heldout"]) == expected_section
    assert expected_section["dirty"]
    assert alone["plan"]["heldout_long"] == result.ledger["plan"]["heldout_long"] > 0


def without_sources(section: dict[str, Any]) -> dict[str, Any]:
    """A section of the ledger without the sources of its documents."""
    return {
        key: [(row["document"], row["share"]) for row in value]
        if isinstance(value, list)
        else value
        for key, value in section.items()
    }
