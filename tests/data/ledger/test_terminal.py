"""The ledger as tables for a terminal."""

from typing import Any

from ropewalk.data.ledger.terminal import summary


def row(**more: Any) -> dict[str, Any]:
    """A source of an older ledger."""
    entries = {
        "kind": "jsonl", "documents": 1_234, "tokens": 5_000_000, "heldout_tokens": 250_000,
        "refused": {}, "dropped": 0, "dropped_documents": 0, "cut": 0, "epochs": 0.5,
        "share_in_plan": 0.25, "tokens_in_plan": 1_000_000,
    }  # fmt: skip
    return entries | more


def plan(**more: Any) -> dict[str, Any]:
    entries = {
        "sequences": 31, "seq_len": 131072, "tokens": 4_000_000, "padding": 63_232,
        "fill": 0.98444, "pieces": 900, "packer": "best_fit", "document_mask": False,
        "positions": "continue", "own_context_share": {"1024": 0.5, "65536": 0.0625},
    }  # fmt: skip
    return entries | more


LENGTHS = {
    "1-256": {"tokens": 1_000_000, "plan_tokens": 0},
    "32769-65536": {"tokens": 3_000_000, "plan_tokens": 500_000},
    ">1048576": {"tokens": 1_000_000, "plan_tokens": 500_000},
}
NEW = {
    "plan_documents": 600,
    "repeated": 12_000,
    "by_length": LENGTHS,
    "own_context_share": {"1024": 0.75, "65536": 0.125},
    "left_out": {
        "held_out": {"documents": 60, "tokens": 250_000},
        "not_drawn": {"documents": 574, "tokens": 3_762_000},
    },
}
PLAN = {
    "marks": 1_800,
    "a_sequence": {"pieces": 29.032, "most_pieces": 310.0, "sources": 1.9},
    "work": {"share_of_full": 0.31, "variation": 1.34, "most_over_mean": 3.2},
    "idle": {"dp_size": 8, "batch": 64, "in_order": 0.405, "balanced": 0.072},
}


def full_ledger() -> dict[str, Any]:
    short = row(
        kind="text",
        left_out={"overlong": {"documents": 3, "tokens": 77}},
        by_length={"1-256": LENGTHS["1-256"]},
    )
    return {
        "sources": {"books": row(**NEW), "a-source-of-long-name": short},
        "plan": plan(**PLAN),
        "notes": ["books: refused empty 5"],
        "warnings": [
            "data.seq_len is 131072; " + "no token sees far; " * 10 + "add longer documents"
        ],
    }


def test_tables_are_aligned_and_fit() -> None:
    text = summary(full_ledger())
    blocks = [block.splitlines() for block in text.split("\n\n")]
    assert [block[0].split("  ")[0] for block in blocks] == [
        "source",
        "tokens not in the plan",
        "% by length: store>plan",
        "plan: 31 sequences of 131,072 tokens, 98.44% full: 4,000,000 tokens, 63,232 padding",
        "own context above",
        blocks[5][0],
    ]
    assert max(map(len, text.splitlines())) <= 110
    for block in (blocks[0][:3], blocks[1], blocks[4]):
        assert len({len(line) for line in block}) == 1


def test_the_tables_hold_the_numbers() -> None:
    lines = [" ".join(line.split()) for line in summary(full_ledger()).splitlines()]
    assert "books jsonl 1,234 5,000,000 600 12,000 1,000,000 25.0% 0.50" in lines
    assert "tokens not in the plan held out not drawn overlong" in lines
    assert "books 250,000 3,762,000 0" in lines and "a-source-of-long-name 0 0 77" in lines
    assert "% by length: store>plan to 256 to 64K over 1M" in lines
    assert "books 20>0 60>50 20>50" in lines and "a-source-of-long-name 100>0" in lines
    assert "own context above 1K 64K" in lines and "plan 50.0% 6.2%" in lines


def test_the_plan_is_described() -> None:
    text = summary(full_ledger())
    assert "packed by best_fit, document mask off, positions continue\n  900 pieces" in text
    assert "\n  900 pieces, 29.0 a sequence (at most 310) of 1.9 sources\n" in text
    assert "and 1,800 begin and end tokens of documents" in text
    assert "mean 31.0% of one document's, variation 1.34, most 3.2 times the mean" in text
    waiting = "would wait 40.5% of their time in plan order, 7.2% balanced"
    assert f"8 data-parallel groups of an 8B Llama {waiting}" in text
    assert "\nbooks: refused empty 5\n" in text
    assert "\nWARNING data.seq_len is 131072; no token" in text


def test_an_older_ledger_is_shown_without_its_missing_keys() -> None:
    text = summary({"schema": 1, "sources": {"books": row()}, "plan": plan()})
    books = text.splitlines()[1].split()
    assert " ".join(books) == "books jsonl 1,234 5,000,000 - - 1,000,000 25.0% 0.50"
    assert len(text.split("\n\n")) == 3 and "WARNING" not in text
