"""Notes, and warnings: each rule warns just beyond its limit and not at the limit."""

from typing import Any

import pytest

from ropewalk.data.ledger.findings import RULES, notes, warnings, with_findings

Entries = dict[str, Any]
LARGEST = {"document": "a.jsonl:7", "tokens": 100_000}


def ledger() -> Entries:
    """A ledger without warnings."""
    row = {
        "kind": "jsonl", "documents": 1000, "tokens": 900_000, "dropped": 0, "cut": 0,
        "tokens_in_plan": 500_000, "epochs": 1.0, "share_in_plan": 0.5, "refused": {},
        "largest": LARGEST, "half_from": 40, "most_taken": 1,
    }  # fmt: skip
    plan = {
        "sequences": 8, "seq_len": 131072, "tokens": 1_000_000, "fill": 0.99,
        "packer": "window_fill", "overlong": "split", "longest_own_context": 131071,
        "own_context_share": {"16384": 0.6, "32768": 0.4, "65536": 0.2}, "heldout_long": 4,
    }  # fmt: skip
    return {"schema": 1, "sources": {"books": row, "notes": dict(row)}, "plan": plan}


def changed(source: Entries | None = None, plan: Entries | None = None) -> Entries:
    entries = ledger()
    entries["sources"]["books"] |= source or {}
    entries["plan"] |= plan or {}
    return entries


def test_a_sound_ledger_has_no_warning() -> None:
    assert warnings(ledger()) == []


def context_shares(at_a_quarter: float) -> Entries:
    return {"own_context_share": {"16384": 0.6, "32768": at_a_quarter}}


SOURCE_CASES = [  # entries beyond the limit, entries at the limit, the warning
    ({"epochs": 4.1}, {"epochs": 4.0}, "data.sources.books is read 4.1 times over; past 4 repeats"),
    (
        {"largest": LARGEST | {"tokens": 101_000}},
        {"largest": LARGEST},
        "document a.jsonl:7 of source books gives 10% of the plan's tokens; above 10%",
    ),
    (
        {"half_from": 4},
        {"half_from": 5},
        "data.sources.books gives 50% of the plan, half of that from 4 documents",
    ),
    (
        {"refused": {"not UTF-8": 20, "empty": 900}},
        {"refused": {"not UTF-8": 10, "empty": 900}},
        "data.sources.books has 20 documents of 1,020 that cannot be read",
    ),
]
PLAN_CASES = [
    (
        context_shares(0.009),
        context_shares(0.01),
        "data.seq_len is 131072; 0.90% of the plan's tokens have more than 32,768 tokens",
    ),
    (
        context_shares(0.0),
        context_shares(0.01),
        "data.seq_len is 131072; no token of the plan has more than 32,768 tokens",
    ),
    (
        {"heldout_long": 3},
        {"heldout_long": 4},
        "data.heldout_share leaves 3 documents of 131,072 tokens or more for eval",
    ),
    ({"fill": 0.94}, {"fill": 0.95}, "data.packer is window_fill; the plan is 94.0% full"),
]


@pytest.mark.parametrize(
    ("beyond", "at_limit", "message"),
    [
        *((changed(first), changed(second), message) for first, second, message in SOURCE_CASES),
        *(
            (changed(plan=first), changed(plan=second), message)
            for first, second, message in PLAN_CASES
        ),
    ],
    ids=[case[2] for case in SOURCE_CASES + PLAN_CASES],
)
def test_each_rule_warns_beyond_its_limit(beyond: Entries, at_limit: Entries, message: str) -> None:
    (line,) = warnings(beyond)
    assert line.startswith(message) and line.count("; ") >= 2
    assert warnings(at_limit) == []


@pytest.mark.parametrize(
    ("packer", "way_out"),
    [
        ("window_fill", "lower data.seq_len"),
        ("none", "set data.packer=window_fill, or lower data.seq_len"),
    ],
)
def test_a_padded_plan_names_only_a_packer_that_is_not_set(packer: str, way_out: str) -> None:
    (line,) = warnings(changed(plan={"fill": 0.5, "packer": packer}))
    assert line.endswith(f"; {way_out}")


@pytest.mark.parametrize(("policy", "warned"), [("split", 0), ("truncate", 1), ("drop", 1)])
def test_lost_tokens_are_warned_of_unless_the_policy_is_split(policy: str, warned: int) -> None:
    """Under split, only a budget cuts: the rest of its last document."""
    lines = warnings(changed({"dropped": 4000, "cut": 5000}, {"overlong": policy}))
    assert len(lines) == warned
    if warned:
        message = "of source books 1.8% of the tokens are lost (4,000 dropped, 5,000 cut)"
        assert lines[0].startswith(f"data.overlong is {policy}; {message}")
    assert warnings(changed({"cut": 5000}, {"overlong": policy})) == []


def test_small_sources_and_trees_are_not_warned_of() -> None:
    assert warnings(changed({"half_from": 2, "share_in_plan": 0.05})) == []
    assert warnings(changed({"kind": "tree", "refused": {"not UTF-8": 900}})) == []


def test_every_limit_has_its_reason() -> None:
    assert all(len(rule.reason) > 30 for rule in RULES)


CONTAMINATION = {
    "action": "report", "ngram": 32, "share": 0.2,
    "training": {"contaminated": 3, "contaminated_tokens": 4_000},
    "heldout": {
        "documents": 12, "dirty": [{}, {}],
        "worst": [{"source": "books", "document": "b.txt", "share": 0.83}],
    },
}  # fmt: skip


def test_notes_report_the_entries_of_the_ledger() -> None:
    entries = changed(
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
    assert notes(entries | {"contamination": CONTAMINATION}) == [
        "books: refused 5 empty, 1,234 not UTF-8",
        "books: a document was taken 3 times",
        "books: duplicates of earlier documents 2 exact (1,900 tokens); near ones not searched",
        "books: tokens of lengths without documents were taken from <4K: 1,500 of >=4K",
        "held-out text in training text: 2 of 12 held-out documents share more than 20% of their "
        "stretches of 32 tokens, the worst b.txt of books 83%; 3 training documents (4,000 tokens) "
        "share as much with held-out text",
    ]


def test_ordinary_entries_give_no_note() -> None:
    zero = {"exact_documents": 0, "exact_tokens": 0, "near_documents": 0, "near_tokens": 0}
    entries = {"duplicates": zero, "buckets": {"<4K": {"asked": 10, "taken": 10}}}
    assert notes(ledger()) == notes(changed(entries)) == []


def test_a_search_that_is_off_is_noted() -> None:
    (line,) = notes(ledger() | {"contamination": {"action": "off"}})
    assert line == "held-out text in training text: not searched"


def test_findings_are_computed_again_each_time() -> None:
    once = with_findings(ledger())
    again = with_findings(once | {"sources": changed({"most_taken": 2, "epochs": 9.0})["sources"]})
    assert (once["notes"], once["warnings"]) == ([], [])
    assert again["notes"] == ["books: a document was taken 2 times"] and len(again["warnings"]) == 1


def test_a_single_lost_file_of_rows_is_warned_of() -> None:
    (line,) = warnings(changed({"refused": {"file: damaged gzip": 1, "empty": 5}}))
    assert line.startswith(
        "data.sources.books has files that are lost, whole or from the damage on "
        "(refused 1 file: damaged gzip);"
    )
    assert len(warnings(changed({"refused": {"file: damaged gzip": 1, "not UTF-8": 20}}))) == 2


@pytest.mark.parametrize(("documents", "count"), [(1, 0), (2, 1), (4, 1), (5, 0)])
def test_a_source_gives_half_from_two_to_four_documents(documents: int, count: int) -> None:
    """One document has a warning of its own; five are enough."""
    assert len(warnings(changed({"half_from": documents}))) == count


def test_a_plan_of_one_token_is_one_documents() -> None:
    """Shares are of the whole: 1 of 1 token; and of none there is no share."""
    small = {"largest": LARGEST | {"tokens": 1}}
    lines = warnings(changed(small, {"tokens": 1}))
    assert sum("gives 100% of the plan's tokens" in line for line in lines) == 1
    (line,) = warnings(changed({"documents": 0, "refused": {"not UTF-8": 1}}))
    assert "has 1 documents of 1 that cannot be read" in line
    assert warnings(changed({"documents": 0, "refused": {"empty": 9}})) == []
    assert warnings(changed(plan={"sequences": 0, "fill": 0.0})) == []


@pytest.mark.parametrize(("share", "count"), [(0.1, 1), (0.099, 0)])
def test_half_of_a_tenth_of_the_plan_from_few_documents_is_warned_of(
    share: float, count: int
) -> None:
    assert len(warnings(changed({"half_from": 2, "share_in_plan": share}))) == count


def test_one_long_document_is_one_document() -> None:
    (line,) = warnings(changed(plan={"heldout_long": 1}))
    assert line.startswith("data.heldout_share leaves 1 document of 131,072 tokens")
    assert line.count(" need 4;") == 1
