"""The ledger's rows by hand: shares in six digits, what is left out, context-only sources."""

from typing import Any

import numpy as np
import pytest

from ropewalk.conf.errors import ProofError
from ropewalk.data.ledger import balance, entries


def test_shares_have_six_digits() -> None:
    shares = {"4": np.array([1 / 3, 1.0]), "8": np.array([2 / 3, 0.0])}
    assert entries._column(shares, 0) == {"4": 0.333333, "8": 0.666667}
    assert entries._column(shares, -1) == {"4": 1.0, "8": 0.0}
    # lengths squared 1, 2, 4 of 9: mean 7/3, variance 7 - 49/9, most 4 / (7/3)
    row = balance.work_statistics(np.array([1.0, 2.0, 4.0]), 3)
    assert row["share_of_full"] == 0.259259
    assert (row["variation"], row["most_over_mean"]) == (0.534522, 1.714286)


def test_works_fall_into_tenths_of_a_full_sequence() -> None:
    works = np.array([0.0, 10.0, 10.1, 90.0, 90.1, 100.0])
    counts = balance.work_statistics(works, 10)["sequences"]
    assert [*counts] == [f"{10 * k}-{10 * k + 10}%" for k in range(10)]
    assert [*counts.values()] == [2, 1, 0, 0, 0, 0, 0, 0, 1, 2]


def test_groups_wait_for_the_slowest_of_a_round() -> None:
    """8B parameters: 16e9 FLOPs a token; attention 4 x 32 x 4096 / 2 a squared token."""
    one = np.array([0, 1, 0, 0, 7])  # the fifth begins no full batch
    assert balance.idle_share(one, 0, 2, 4, False) == 0.5  # of one round, half
    assert balance.idle_share(one, 1, 2, 4, False) == pytest.approx(
        262144 / 2 / (2 * 16e9 + 262144), rel=1e-9
    )
    assert balance.idle_share(np.zeros(4), 0, 2, 4, False) == 0
    first = np.array([8192.0**2] + [0.0] * 16)
    work = 262144 * 8192**2
    # two rounds of 16e9 x 8192 each; one of 8 groups has the work, the others wait for 7/8 of it
    expected = round(7 / 8 * work / (2 * 16e9 * 8192 + work), 6)
    row = balance.predicted_idle(first, 8192)
    assert (row["dp_size"], row["batch"], row["in_order"]) == (8, 16, expected)
    assert balance.predicted_idle(np.ones(200), 1)["batch"] == 64
    assert balance.predicted_idle(np.ones(8), 1)["batch"] == 8


ROW = {
    "documents": 20, "tokens": 1000, "plan_documents": 6, "distinct": 400, "in_part": 2,
    "not_reached": 50, "heldout_documents": 3, "heldout_tokens": 100, "dropped_documents": 1,
    "dropped": 90, "removed": {"near": {"documents": 2, "tokens": 60, "groups": 1}},
}  # fmt: skip


def test_what_is_not_in_the_plan_adds_up_to_the_store() -> None:
    """20 - 6 in the plan - 3 - 1 - 2 = 8 documents; 1000 - 400 - 50 - 100 - 90 - 60 = 300."""
    assert entries.left_out(ROW) == {
        "held_out": {"documents": 3, "tokens": 100},
        "overlong": {"documents": 1, "tokens": 90},
        "near": {"documents": 2, "tokens": 60},
        "cut": {"documents": 2, "tokens": 50},
        "not_drawn": {"documents": 8, "tokens": 300},
    }
    nothing = dict.fromkeys(ROW, 0) | {"removed": None}
    assert entries.left_out(nothing) == {}


def test_a_context_only_source_has_no_targets() -> None:
    rows: dict[str, Any] = {"a": {"targets": 70}, "b": {"targets": 30}}
    ledger = {"sources": rows, "plan": {"targets": 100, "x": 1}}
    assert entries.without_context_only(ledger, []) == ledger
    changed = entries.without_context_only(ledger, ["b"])
    assert changed["sources"] == {"a": {"targets": 70}, "b": {"targets": 0, "context_only": 30}}
    assert changed["plan"] == {"targets": 70, "x": 1} and rows["b"] == {"targets": 30}


@pytest.mark.parametrize("key", ["distinct", "repeated", "most_taken"])
def test_a_count_that_differs_from_the_mixture_stops_the_run(key: str) -> None:
    row = {"distinct": 5, "repeated": 2, "tokens_in_plan": 7, "most_taken": 2, "repeats": 2}
    entries.prove("web", row)
    with pytest.raises(ProofError, match="source web; it must hold the (7|2) "):
        entries.prove("web", row | {key: row[key] + 1})
