"""What an evaluation costs: FLOPs as torch counts them, the lines told, and the time left."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import models
import numpy as np
import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from ropewalk.eval.measure import cost
from ropewalk.eval.measure.cost import ColumnCost
from ropewalk.eval.measure.progress import LINE_S, Progress
from ropewalk.eval.requests import Prompt, Prompts, Request, Text, digest
from ropewalk.train.cost.flops import model_cost

MODEL = models.tiny_model(attn_implementation="eager").eval()
FORWARD = model_cost(MODEL)


def counted(length: int) -> int:
    """By torch, which counts eager attention in full: the half above the diagonal is taken off."""
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        MODEL(torch.zeros(1, length, dtype=torch.long))
    unseen = length * length - length * (length + 1) // 2
    return counter.get_total_flops() - sum(
        2 * a.heads * (a.qk_dim + a.v_dim) * unseen for a in FORWARD.layers
    )


def test_the_flops_of_a_text_are_those_that_torch_counts() -> None:
    assert cost.flops(FORWARD, Text(np.zeros(40, int), 0), 64) == counted(40)


def test_a_shared_beginning_is_counted_once() -> None:
    """Three questions of 10 tokens about 64, in calls of 32: the head at the answers alone."""
    ids = np.arange(64)
    prompts = [Prompt(np.append(ids, [n] * 8), np.array([n, n]), 64) for n in range(3)]
    alone = [cost.flops(FORWARD, Prompts((prompt,)), 32) for prompt in prompts]
    together = cost.flops(FORWARD, Prompts(tuple(prompts)), 32)
    assert sum(alone) - together == 2 * (counted(64) - 2 * FORWARD.head * 64)


def column(label: str = "base", took: float | None = None, rate: float = 1e6) -> ColumnCost:
    requests: dict[str, Request] = {digest(r): r for r in (Text(np.arange(n)) for n in (20, 30))}
    made = ColumnCost(label, 3, requests, FORWARD, rate, False, 64, "key")
    made.took = took
    return made


def test_the_lines_before_say_what_is_there_and_what_is_to_be_computed() -> None:
    empty = ColumnCost("extended", 3, {}, FORWARD, 1.0, True, 64)
    first, second, *more = cost.estimate_lines([column(), empty])
    assert first.startswith("eval: base: 3 requests, 1 of them in the cache; 50 tokens to compute")
    assert second == "eval: extended: 3 requests, 3 of them in the cache" and not more
    assert cost.estimate_lines([column(), column("b")])[-1].endswith("s for all columns")


def test_a_rate_is_remembered_for_the_next_estimate(tmp_path: Path) -> None:
    (tmp_path / "eval").mkdir()
    cost.remember([column(took=0.2)], tmp_path)
    assert cost.known_rates(tmp_path) == {}
    slow = column(took=50.0)
    cost.remember([slow], tmp_path)
    assert cost.known_rates(tmp_path) == {"key": slow.flops / 50}
    (tmp_path / "eval" / cost.RATES).write_text("[")
    assert cost.known_rates(tmp_path) == {}


def test_the_time_left_is_that_of_all_columns(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two equal columns; one is done in 30 s, so 30 s are left, told in a plain line."""
    now = [100.0]
    costs = [column("base"), column("extended")]
    told: list[str] = []
    monkeypatch.setattr("ropewalk.eval.measure.progress.log.info", told.append)
    with Progress(costs, clock=lambda: now[0]) as progress:
        start = progress.begin("base")
        requests: Any = list(costs[0].pending.values())
        now[0] += LINE_S - 1
        progress.advance("base", requests[:1])
        now[0] += 31 - LINE_S
        progress.advance("base", requests[1:])
        progress.end("base", start)
    assert told == ["eval: base, 50% of all columns, 30 s left", "eval: base measured"]
    assert costs[0].took == 30
    assert capsys.readouterr().err == ""


def test_a_second_is_too_short_for_a_rate_and_nothing_has_none(tmp_path: Path) -> None:
    (tmp_path / "eval").mkdir()
    nothing = ColumnCost("extended", 3, {}, FORWARD, 1.0, True, 64, "other", 50.0)
    cost.remember([column(took=1.0), column(took=None), nothing], tmp_path)
    assert cost.known_rates(tmp_path) == {}
    cost.remember([column(took=1.25)], tmp_path)
    assert cost.known_rates(tmp_path) == {"key": column().flops / 1.25}


def test_the_first_rate_is_that_of_a_product_over_three(monkeypatch: pytest.MonkeyPatch) -> None:
    """(1024, 100) x (100, 400) in an eighth of a second: 2 x 1024 x 100 x 400 FLOPs. A layer has 12
    squares of the width, so two of them 240,000 elements."""
    times = iter([7.0, 7.0625, 7.125])
    monkeypatch.setattr(cost.time, "perf_counter", lambda: next(times))
    model: Any = SimpleNamespace(matrices=2 * 12 * 100 * 100, layers=[None, None])
    expected = 2 * 1024 * 100 * 400 / 0.125 / 3
    assert cost.first_rate(model, "fp32") == pytest.approx(expected)
    times = iter([7.0, 7.03125, 7.125, 7.25])  # twice, as 50 ms had not passed; at least 64 wide
    small: Any = SimpleNamespace(matrices=10, layers=[])
    assert cost.first_rate(small, "fp32") == pytest.approx(2 * 2 * 1024 * 64 * 256 / 0.25 / 3)


def test_a_known_rate_is_taken_and_cached_results_cost_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(cost, "forward_cost", lambda base: FORWARD)
    monkeypatch.setattr(cost, "first_rate", lambda *_: 5.0)
    requests: dict[str, Request] = {"a": Text(np.arange(20)), "b": Text(np.arange(30))}
    how: dict[str, str | int] = {"precision": "fp32"}
    base: Any = None

    def made(kept: list[str], rates: dict[str, float]) -> ColumnCost:
        return cost.column_cost("base", base, requests, kept, how, rates, 64)

    first = made(["a"], {})
    assert (first.rate, first.measured, [*first.pending], first.requests) == (5.0, False, ["b"], 2)
    assert len(first.rate_key) == 16 and first.seconds == first.flops / 5
    known = made([], {first.rate_key: 50.0})
    assert (known.rate, known.measured, known.tokens) == (50.0, True, 50)
    assert made(["a", "b"], {}).rate == 1.0
    total = known.seconds_of(list(requests.values()))
    labels = 2 * 2 * FORWARD.head  # a text's first token has no label
    assert total == known.seconds == (counted(20) + counted(30) - labels) / 50


def test_what_a_column_took_is_told_beside_its_estimate(monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[str] = []
    monkeypatch.setattr(cost.log, "info", told.append)
    slow = column(took=20.0)
    slow.rate = slow.flops / 40
    empty = ColumnCost("extended", 3, {}, FORWARD, 1.0, True, 64, took=3.0)
    cost.log_durations([slow, empty, column(took=None)])
    assert told == ["eval: base took 20.0 s (40 s estimated), 2 tokens/s"]


def test_a_bar_ends_at_its_total(monkeypatch: pytest.MonkeyPatch) -> None:
    """A column measured twice, as after an interruption, does not go past it."""
    monkeypatch.setattr("ropewalk.eval.measure.progress.sys.stderr.isatty", lambda: True)
    costs = [column("base"), column("extended")]
    requests: Any = list(costs[0].pending.values())
    with Progress(costs) as progress:
        assert progress.bar is not None
        for done in (0.5, 1.0, 1.0):
            progress.advance("base", requests)
            assert progress.bar.n == pytest.approx(progress.total * done)
