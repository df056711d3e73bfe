"""Warnings: each line just past its limit and none just before it."""

from typing import Any

import pytest

from ropewalk.data.ledger.findings import RULES, notes, warnings, with_findings


def ledger() -> dict[str, Any]:
    """Nothing to warn of."""
    row = {
        "kind": "jsonl", "documents": 1000, "tokens": 900_000, "dropped": 0, "cut": 0, "tokens_in_plan": 500_000, "epochs": 1.0,
        "share_in_plan": 0.5, "refused": {}, "largest": {"document": "a.jsonl:7", "tokens": 30_000}, "half_from": 40, "most_taken": 1,
    }  # fmt: skip
    plan = {
        "sequences": 8, "seq_len": 131072, "tokens": 1_000_000, "fill": 0.99, "packer": "window_fill", "overlong": "split",
        "own_context_share": {"16384": 0.6, "32768": 0.4, "65536": 0.2}, "longest_own_context": 131071, "heldout_long": 4,
    }  # fmt: skip
    return {"schema": 1, "sources": {"books": row, "notes": dict(row)}, "plan": plan}


def changed(
    source: dict[str, Any] | None = None, plan: dict[str, Any] | None = None
) -> dict[str, Any]:
    found = ledger()
    found["sources"]["books"] = found["sources"]["books"] | (source or {})
    found["plan"] = found["plan"] | (plan or {})
    return found


def test_a_sound_ledger_has_no_warning() -> None:
    assert warnings(ledger()) == []


def shares(far: float) -> dict[str, Any]:
    return {"own_context_share": {"16384": 0.6, "32768": far}}


CASES = [
    ({}, shares(0.009), shares(0.01), "data.seq_len is 131072; 0.90% of the plan's tokens have more than 32,768 tokens"),
    ({}, shares(0.0), shares(0.01), "data.seq_len is 131072; no token of the plan has more than 32,768 tokens"),
    ({"epochs": 4.1}, {"epochs": 4.0}, {}, "data.sources.books is read 4.1 times over; past 4 repeats"),
    ({"largest": {"document": "a.jsonl:7", "tokens": 101_000}}, {"largest": {"document": "a.jsonl:7", "tokens": 100_000}}, {},
     "document a.jsonl:7 of source books gives 10% of the plan's tokens; above 10%"),
    ({"half_from": 4}, {"half_from": 5}, {}, "data.sources.books gives 50% of the plan, half of that from 4 documents"),
    ({}, {"heldout_long": 3}, {"heldout_long": 4}, "data.heldout_share leaves 3 documents of 131,072 tokens or more for eval"),
    ({"refused": {"not UTF-8": 20, "empty": 900}}, {"refused": {"not UTF-8": 10, "empty": 900}}, {},
     "data.sources.books has 20 documents of 1,020 that cannot be read"),
    ({}, {"fill": 0.94}, {"fill": 0.95}, "data.packer is window_fill; the plan is 94.0% full"),
]  # fmt: skip


@pytest.mark.parametrize(("one", "two", "three", "said"), CASES)
def test_each_warning_has_its_limit(
    one: dict[str, Any], two: dict[str, Any], three: dict[str, Any], said: str
) -> None:
    """A case of a source: past and before; of the plan (`one` empty): the second is past and the third before."""
    past, before = (changed(one), changed(two)) if one else (changed(plan=two), changed(plan=three))
    (line,) = warnings(past)
    assert line.startswith(said) and line.count("; ") >= 2
    assert warnings(before) == []


@pytest.mark.parametrize(
    ("packer", "way_out"),
    [
        ("window_fill", "lower data.seq_len"),
        ("none", "set data.packer=window_fill, or lower data.seq_len"),
    ],
)
def test_padding_names_no_way_out_that_is_taken(packer: str, way_out: str) -> None:
    (line,) = warnings(changed(plan={"fill": 0.5, "packer": packer}))
    assert line.endswith(f"; {way_out}")


@pytest.mark.parametrize(("policy", "warned"), [("split", 0), ("truncate", 1), ("drop", 1)])
def test_loss_is_told_where_a_policy_loses(policy: str, warned: int) -> None:
    """Under split, what is cut is the rest of the last document that a budget took."""
    lines = warnings(changed({"dropped": 4000, "cut": 5000}, {"overlong": policy}))
    assert len(lines) == warned
    if warned:
        assert lines[0].startswith(
            f"data.overlong is {policy}; of source books 1.8% of the tokens are lost (4,000 dropped, 5,000 cut)"
        )
    assert warnings(changed({"cut": 5000}, {"overlong": policy})) == []


def test_small_sources_and_trees_are_let_be() -> None:
    assert warnings(changed({"half_from": 2, "share_in_plan": 0.05})) == []
    assert warnings(changed({"kind": "tree", "refused": {"not UTF-8": 900}})) == []


def test_every_limit_has_its_reason() -> None:
    assert all(len(rule.reason) > 30 for rule in RULES)


CONTAMINATION = {
    "action": "report", "ngram": 32, "share": 0.2, "training": {"contaminated": 3, "contaminated_tokens": 4_000},
    "heldout": {"documents": 12, "dirty": [{}, {}], "worst": [{"source": "books", "document": "b.txt", "share": 0.83}]},
}  # fmt: skip


def test_notes_tell_what_is_there_and_nothing_of_what_is_not() -> None:
    found = changed(
        {
            "refused": {"empty": 5, "not UTF-8": 1234},
            "most_taken": 3,
            "duplicates": {
                "exact_documents": 2,
                "exact_tokens": 1900,
                "near_documents": None,
                "near_tokens": None,
            },
            "buckets": {"<4K": {"asked": 10, "taken": 25}, ">=4K": {"asked": 1500, "taken": 0}},
        }
    )
    assert notes(found | {"contamination": CONTAMINATION}) == [
        "books: refused 5 empty, 1,234 not UTF-8",
        "books: a document was taken 3 times",
        "books: duplicates of earlier documents 2 exact (1,900 tokens); near ones not looked for",
        "books: tokens of lengths that it has no document of were taken from <4K: 1,500 of >=4K",
        "held-out text in training text: 2 of 12 held-out documents have more than 20% of their stretches of 32 tokens there, the "
        "worst b.txt of books 83%; 3 training documents (4,000 tokens) have more than that of theirs in held-out text",
    ]


def test_facts_that_are_no_news_say_nothing() -> None:
    none = {"exact_documents": 0, "exact_tokens": 0, "near_documents": 0, "near_tokens": 0}
    assert (
        notes(ledger())
        == []
        == notes(changed({"duplicates": none, "buckets": {"<4K": {"asked": 10, "taken": 10}}}))
    )
    assert notes(ledger() | {"contamination": {"action": "off"}}) == [
        "held-out text in training text: not looked for"
    ]


def test_told_is_made_anew_each_time() -> None:
    once = with_findings(ledger())
    again = with_findings(once | {"sources": changed({"most_taken": 2, "epochs": 9.0})["sources"]})
    assert (once["notes"], once["warnings"]) == ([], [])
    assert again["notes"] == ["books: a document was taken 2 times"] and len(again["warnings"]) == 1


def test_a_file_of_rows_that_is_lost_is_told_however_few_it_is() -> None:
    (line,) = warnings(changed({"refused": {"file: damaged gzip": 1, "empty": 5}}))
    assert line.startswith(
        "data.sources.books has files that are lost, whole or from the damage on (refused 1 file: damaged gzip);"
    )
    assert len(warnings(changed({"refused": {"file: damaged gzip": 1, "not UTF-8": 20}}))) == 2
