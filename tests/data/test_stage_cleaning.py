"""Copies and held-out text through the whole stage."""

import re
from typing import Any

import numpy as np
from data_fixture import SYNTHETIC, DataFixture

from ropewalk.data.ledger.terminal import summary
from ropewalk.data.tokens import store


def planted(data_fixture: DataFixture) -> None:
    """A copy and a near copy of a training document, and a training document that holds a held-out one."""
    held, *train = sorted(
        (p for p in (data_fixture.folder / "books").iterdir()),
        key=lambda p: (not store.is_heldout(p.name, 0.2), -p.stat().st_size),
    )
    train = [p for p in train if not store.is_heldout(p.name, 0.2)]
    text = train[0].read_text().split()
    names = [name for name in (f"x{i}.txt" for i in range(100)) if not store.is_heldout(name, 0.2)]
    texts = [
        " ".join(text),
        " ".join([*text[:-4], "new", "words"]),
        f"A preface. {held.read_text()}",
    ]
    for name, written in zip(names, texts, strict=False):
        (data_fixture.folder / "notes" / name).write_text(written)


CLEAN = (
    "data.duplicates.exact=remove",
    "data.duplicates.near=remove",
    "data.contamination.action=remove",
)


def test_copies_and_held_out_text_leave_the_plan_on_request_and_are_counted(
    data_fixture: DataFixture,
) -> None:
    planted(data_fixture)
    found, told = data_fixture.run().ledger, data_fixture.run(*CLEAN, output="clean")
    before, after = found["sources"]["notes"], told.ledger["sources"]["notes"]
    assert (before["duplicates"]["exact_documents"], before["duplicates"]["near_documents"]) == (
        1,
        None,
    )
    assert before["removed"] == {} and found["contamination"]["heldout"]["dirty"]
    assert {r: k["documents"] for r, k in after["removed"].items()} == {
        "exact duplicate": 1,
        "near duplicate": 1,
        "held-out text": 1,
    }
    left = sum(k["tokens"] for k in after["removed"].values())
    assert after["tokens_in_plan"] == before["tokens_in_plan"] - left
    gone = {
        told.folders.store("notes").ids.index(f"x{i}.txt")
        for i in range(9)
        if (data_fixture.folder / "notes" / f"x{i}.txt").exists()
    }
    assert len(gone) == 3 and not gone & {d for d, _, _ in told.by_source()["notes"]}
    assert told.ledger["contamination"]["heldout"]["dirty"] == []


def test_a_plan_is_renamed_by_what_is_removed_and_by_nothing_else(
    data_fixture: DataFixture,
) -> None:
    plain = data_fixture.run().folders.plan
    assert data_fixture.run(*CLEAN, output="nothing").folders.plan == plain
    planted(data_fixture)
    plain = data_fixture.run(output="planted").folders.plan
    looked = [
        data_fixture.run(f"data.{words}", output="o").folders.plan
        for words in ("duplicates.near=report", "contamination.action=off")
    ]
    assert looked == [plain, plain]
    removed = [data_fixture.run(word, output="r").folders.plan for word in (CLEAN[0], CLEAN[2])]
    assert len({plain, *removed}) == 3


def test_what_is_looked_for_renews_the_ledger_and_redoes_nothing(data_fixture: DataFixture) -> None:
    before = data_fixture.run()
    after = data_fixture.run("data.contamination.action=off", "data.duplicates.near=report")
    assert after.message.endswith("skipped")
    assert before.ledger["contamination"]["action"] == "report"
    assert after.ledger["contamination"] == {"action": "off"}
    assert after.ledger["sources"]["books"]["duplicates"]["near_documents"] is not None


def test_synthetic_text_is_free_of_removed_documents(data_fixture: DataFixture) -> None:
    held = next(
        p for p in (data_fixture.folder / "books").iterdir() if store.is_heldout(p.name, 0.2)
    )
    name = next(f"y{i}.txt" for i in range(100) if not store.is_heldout(f"y{i}.txt", 0.2))
    held.write_text("Q " * 300)
    (data_fixture.folder / "books" / name).write_text("Q " * 300)
    dirty = data_fixture.run(*SYNTHETIC, "data.total_tokens=20000", sources=("books",))
    clean = data_fixture.run(
        *SYNTHETIC, "data.total_tokens=20000", CLEAN[2], sources=("books",), output="clean"
    )
    copied = set(
        clean.folders.store("books").document(clean.folders.store("books").ids.index(name)).tolist()
    )
    rest = clean.folders.store("books")
    others = {
        t
        for i in np.flatnonzero(~rest.heldout)
        if rest.ids[i] != name
        for t in rest.document(int(i)).tolist()
    }
    assert copied - others
    made = {
        result.folders.plan: {t for i in range(len(again.ids)) for t in again.document(i).tolist()}
        for result in (dirty, clean)
        for again in [result.folders.store("again")]
    }
    assert (copied - others) & made[dirty.folders.plan]
    assert not (copied - others) & made[clean.folders.plan]


def test_summary_tells_what_was_found_and_what_was_not_looked_for(
    data_fixture: DataFixture,
) -> None:
    planted(data_fixture)
    told = summary(data_fixture.run().ledger)
    told = " ".join(told.split())
    assert re.search(
        r"notes: duplicates of earlier documents 1 exact \(\d+ tokens\); near ones not looked for",
        told,
    )
    assert re.search(
        r"held-out text in training text: 1 of \d+ held-out documents have more than 20% of their stretches of 32 tokens",
        told,
    )
    clean = data_fixture.run(*CLEAN, output="clean").ledger
    assert "not looked for" not in summary(clean)
    left = clean["sources"]["notes"]["left_out"]
    for reason in ("exact duplicate", "near duplicate", "held-out text"):
        assert left[reason]["documents"] == 1 and f"{left[reason]['tokens']:,}" in summary(clean)
    off = summary(data_fixture.run("data.contamination.action=off", output="off").ledger)
    assert "held-out text in training text: not looked for" in off


def test_one_folder_as_two_sources_repeats_nothing_and_is_held_out_once(
    data_fixture: DataFixture,
) -> None:
    """ProLong's 512K and 64K pieces, in small: disjoint lengths of one store say the same as the one source does."""
    copy, held = (
        next(
            p
            for p in sorted((data_fixture.folder / "books").iterdir())
            if store.is_heldout(p.name, 0.2) == wanted
        )
        for wanted in (False, True)
    )
    names = [name for name in (f"x{i}.txt" for i in range(100)) if not store.is_heldout(name, 0.2)]
    for name, text in zip(
        names, (copy.read_text(), f"A preface. {held.read_text()}"), strict=False
    ):
        (data_fixture.folder / "books" / name).write_text(text)
    near = "data.duplicates.near=report"
    alone = data_fixture.run(near, sources=("books",), output="alone").ledger
    words = [
        f"data.sources.{n}.{w}"
        for n in ("long", "short")
        for w in (f"path={data_fixture.folder / 'books'}", "weight=1")
    ]
    result = data_fixture.run(
        *words, near, "data.sources.long.min_len=60", "data.sources.short.max_len=59", sources=()
    )
    assert result.folders.stores["long"] == result.folders.stores["short"]
    found = [row["duplicates"] for row in result.ledger["sources"].values()]
    wanted = alone["sources"]["books"]["duplicates"]
    assert {key: sum(row[key] for row in found) for key in wanted} == wanted
    assert wanted["exact_documents"] == 1
    one, two = (nameless(ledger["contamination"]["heldout"]) for ledger in (alone, result.ledger))
    assert one == two and one["dirty"]
    assert alone["plan"]["heldout_long"] == result.ledger["plan"]["heldout_long"] > 0


def nameless(found: dict[str, Any]) -> dict[str, Any]:
    """Without the sources of the documents."""
    return {
        k: [(d["document"], d["share"]) for d in v] if isinstance(v, list) else v
        for k, v in found.items()
    }
