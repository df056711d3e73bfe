"""What the page shows of loss by position while training."""

from typing import Any

from ropewalk.eval.report.figures import training


def line(step: int, validated: bool = False) -> dict[str, Any]:
    buckets = [
        {
            "from": 64 << k,
            "to": 128 << k if k < 7 else None,
            "nll": 3.0 - step / 10 + k,
            "tokens": 5,
        }
        for k in range(8)
    ]
    row: dict[str, Any] = {"step": step, "loss": 2.0, "loss_by_position": buckets}
    return row | (
        {"validation": {"nll": 3.0 - step / 10, "nll_by_position": buckets[:2]}}
        if validated
        else {}
    )


def test_the_farthest_six_ranges_and_held_out_loss_are_drawn() -> None:
    svg = training.by_position([line(step, step % 2 == 0) for step in range(1, 9)], 2)
    assert svg is not None
    for name in (
        "256 to 512",
        "4,096 to 8,192",
        "from 8,192",
        "held-out loss (nats per token)",
        "64 to 128",
    ):
        assert name in svg
    assert (
        "512 to 1,024" in svg and svg.count("128 to 256") == 1
    )  # of held-out text only: it has two ranges


def test_a_run_without_either_has_no_figure() -> None:
    assert training.by_position([{"step": 1, "loss": 2.0}], 1) is None
    assert training.reading([{"step": 1, "loss": 2.0}]) is None


def test_a_sentence_names_the_lowest_and_the_last() -> None:
    lines = [line(step, True) for step in (1, 2, 3)]
    lines[2]["validation"]["nll"] = 2.95
    assert (
        training.reading(lines)
        == "Held-out loss was lowest after step 2 (2.800) and 2.950 after step 3."
    )
