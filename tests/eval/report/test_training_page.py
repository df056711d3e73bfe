"""The training section: loss by position, resumed runs, sentences."""

from typing import Any

from report_run import Page, metrics, write_metrics

from ropewalk.eval.report.figures import training
from ropewalk.eval.report.page import render


def line(step: int, validated: bool = False) -> dict[str, Any]:
    loss = 3.0 - step / 10
    buckets = [
        {"from": 64 << k, "to": 128 << k if k < 7 else None, "nll": loss + k, "tokens": 5}
        for k in range(8)
    ]
    row: dict[str, Any] = {"step": step, "loss": 2.0, "loss_by_position": buckets}
    if validated:
        row["validation"] = {"nll": loss, "nll_by_position": buckets[:2]}
    return row


def test_the_farthest_six_ranges_and_held_out_loss_are_drawn() -> None:
    svg = training.by_position([line(step, step % 2 == 0) for step in range(1, 9)], 2)
    assert svg is not None
    for name in ("256 to 512", "512 to 1,024", "4,096 to 8,192", "from 8,192", "64 to 128"):
        assert name in svg
    assert "held-out loss (nats per token)" in svg
    assert svg.count("128 to 256") == 1  # held-out text has two ranges


def test_a_run_without_either_has_no_figure() -> None:
    assert training.by_position([{"step": 1, "loss": 2.0}], 1) is None
    assert training.reading([{"step": 1, "loss": 2.0}]) is None


def test_a_sentence_names_the_lowest_and_the_last() -> None:
    lines = [line(step, True) for step in (1, 2, 3)]
    lines[2]["validation"]["nll"] = 2.95
    sentence = "Held-out loss was lowest after step 2 (2.800) and 2.950 after step 3."
    assert training.reading(lines) == sentence


def test_a_sentence_names_the_values_that_were_found() -> None:
    lines: list[dict[str, Any]] = [{"step": 5}]
    for step, share in ((10, 0.25), (20, 0.5)):
        found = {"length": 2048, "haystacks": 16, "n": 64, "accuracy": share, "low": 0.28}
        lines.append({"step": step, "validation": {"json_kv": {**found, "high": 0.72}}})
    assert training.by_position(lines, 1) is None
    assert training.reading(lines) == (
        "Of 64 values of JSON objects of up to 2,048 tokens, asked for by their keys, 50% (95% 28% "
        "to 72%, over 16 objects) were found after step 20, 25% after step 10."
    )


def test_one_step_and_a_resumed_run(run_dir):
    first, second = metrics()[:2]
    write_metrics(run_dir, [first])
    text = Page(render(run_dir)).text["training"]
    assert "the loss of the first and the last step" in text.lower()
    write_metrics(run_dir, [first, second, {**second, "loss": 9.125}])
    text = Page(render(run_dir)).text["training"]
    assert "9.125" in text and "1 steps were repeated" in text
