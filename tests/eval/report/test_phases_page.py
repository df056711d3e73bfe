"""A run of phases on its page: one curve over all steps, a line a phase."""

from typing import Any

from ropewalk.eval.report.figures import training


def rows(*losses: float) -> list[dict[str, Any]]:
    steps = enumerate(losses, 1)
    return [{"step": n, "loss": loss, "lr": 0.1 / n, "tokens": 100} for n, loss in steps]


def test_steps_are_counted_through() -> None:
    joined = training.join_metrics([rows(3.0, 2.0), [], rows(2.5)])
    assert [(row["step"], row["loss"]) for row in joined] == [(1, 3.0), (2, 2.0), (3, 2.5)]
    assert training.join_metrics([rows(3.0)]) == rows(3.0)


def test_each_phase_has_a_row_even_without_artifacts() -> None:
    plan = {"seq_len": 512, "sequences": 9, "tokens": 4000, "fill": 0.9, "padding": 3}
    short = {
        "name": "1-short",
        "rope": {"max_position_embeddings": 1024},
        "ledger": {"plan": plan},
        "metrics": rows(3.0, float("nan"), 2.0),
    }
    empty = {"name": "run", "rope": {}, "ledger": {}, "metrics": []}
    first, last = map(training.phase_row, (short, empty))
    assert first == {
        "name": "1-short",
        "window": 1024,
        "seq_len": 512,
        "sequences": 9,
        "tokens": 4000,
        "fill": 0.9,
        "steps": 3,
        "trained": 300,
        "lr": 0.1,
        "first": 3.0,
        "last": 2.0,
    }
    expected = {"name": "run", "steps": 0, "trained": 0, "lr": None, "window": None}
    assert {key: last[key] for key in expected} == expected
