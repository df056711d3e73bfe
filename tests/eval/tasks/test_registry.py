"""A new task is one file and one registry line: its rows, its verdict and its figure follow."""

import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ropewalk.conf.eval import EvalConfig
from ropewalk.data.dataset import Window
from ropewalk.eval.measure import forward
from ropewalk.eval.measure import suite as suites
from ropewalk.eval.measure.statistics import Estimate
from ropewalk.eval.report.page import render
from ropewalk.eval.requests import Text, digest
from ropewalk.eval.tasks import TASKS
from ropewalk.eval.tasks.task import (
    ColumnFacts,
    Comparison,
    EvalSuite,
    Measured,
    ModelRows,
    Rows,
    Sample,
    Task,
    Verdict,
    window_samples,
)


class FirstTokenTable(Task):
    """The toy task: how often a window starts with token 0."""

    name = "first_token"
    title = "First <token>"

    def samples(self, suite: EvalSuite) -> Sequence[Sample]:
        return window_samples(suite)[:2]

    def rows(self, measured: Measured) -> Rows:
        hits = sum(int(sample.request.ids[0] == 0) for sample in measured.samples)
        n = len(measured.samples)
        return [{"n": n, "accuracy": hits / n, "unit": "<window>"}]


class FirstToken(FirstTokenTable):
    """The toy task with a rule and a figure."""

    def verdicts(self, comparison: Comparison) -> list[Verdict]:
        share = Estimate(comparison.judged_rows[0]["accuracy"], 0.45, 0.55, 20)
        return [Verdict("First token", share, 0.4, "above 40%", "x", "share", better="above")]

    def figure(self, rows: ModelRows, window: int | None) -> str | None:
        return f"<svg><title>{len(rows)} toy models</title></svg>" if rows else None

    def reading(self, rows: ModelRows, window: int | None) -> str | None:
        return f"The base's window has {window} tokens." if rows else None


@pytest.fixture
def registered(request: pytest.FixtureRequest) -> Iterator[None]:
    """The registry line of the toy task."""
    TASKS.append(getattr(request, "param", FirstToken)())
    yield
    TASKS.pop()


def losses(label: str, request: Text) -> np.ndarray:
    """Losses that grow by 0.01 nats a position, without a model."""
    positions = np.arange(request.first - 1, len(request.ids) - 1)
    return {"base": 2.0, "extended": 0.0}[label] + 0.01 * positions


COLUMNS = {"base": ColumnFacts(16), "extended": ColumnFacts(64)}


def small_suite() -> EvalSuite:
    windows = [Window(name, np.full(64, k, dtype=np.int64)) for k, name in enumerate("ab")]
    tasks = ["nll_by_position", "perplexity", "context_gain", "first_token"]
    tasks = [task.name for task in TASKS if task.name in tasks]
    empty = np.empty(0, np.int64)
    config = EvalConfig(tasks=tasks)
    return EvalSuite(config, 16, 64, windows, [empty], lambda text: empty, seed=0, columns=COLUMNS)


def results() -> dict[str, Any]:
    """The content of results.json as the stage puts it together, without a model."""
    suite = small_suite()
    samples = suites.build_samples(suite)
    requests = forward.unique(sample.request for part in samples.values() for sample in part)
    by_label = {
        label: {name: losses(label, request) for name, request in requests.items()}
        for label in ("base", "extended")
    }
    models = suites.rows(suite, samples, by_label)
    header = {"schema": 2, "base_window": 16, "length": 64, "documents": 2, "windows": 2}
    return {**header, "models": models, "gates": suites.gates(models, suite, "base", "extended")}


def page(folder: Path, content: dict[str, Any]) -> str:
    (folder / "eval").mkdir()
    (folder / "eval" / "results.json").write_text(json.dumps(content))
    return render(folder)


def test_a_registered_task_is_measured_judged_and_drawn(registered: None, tmp_path: Path) -> None:
    content = results()
    expected = [{"n": 2, "accuracy": 0.5, "unit": "<window>"}]
    assert [model["first_token"] for model in content["models"].values()] == [expected, expected]
    gate = next(gate for gate in content["gates"] if gate["name"] == "First token")
    shown = {key: gate[key] for key in ("question", "verdict", "value", "tolerance", "text")}
    assert shown == {
        "question": None,
        "verdict": "pass",
        "value": 0.5,
        "tolerance": 0.4,
        "text": "50% [45%, 55%]",
    }
    assert not gate["decides"] and gate["adjusted"] is None and gate["needed_n"] is None
    html = page(tmp_path, content)
    section = html[html.index('<section id="first_token">') :]
    section = section[: section.index("</section>")]
    assert "<h2>First &lt;token&gt;</h2>" in section
    assert "<svg><title>2 toy models</title></svg>" in section
    assert "The base&#39;s window has 16 tokens." in section
    assert section.count("<td>0.5</td>") == 2
    assert "unit &lt;window&gt;; intervals 95%, by &lt;window&gt;; n 2." in section
    assert '<li><a href="#first_token">' in html
    assert html.count("First token") == 1  # the tile of its gate


@pytest.mark.parametrize("registered", [FirstTokenTable], indirect=True)
def test_a_task_of_samples_and_rows_alone_is_a_table(registered: None, tmp_path: Path) -> None:
    content = results()
    assert "First token" not in [gate["name"] for gate in content["gates"]]
    html = page(tmp_path, content)
    section = html[html.index('<section id="first_token">') :]
    section = section[: section.index("</section>")]
    assert section.count("<td>0.5</td>") == 2 and "<svg>" not in section and "None" not in section


def test_a_task_without_rows_cannot_be_made() -> None:
    class Nameless(Task):
        def samples(self, suite: EvalSuite) -> Sequence[Sample]:
            return []

    with pytest.raises(TypeError, match="abstract method '?rows"):
        Nameless()  # type: ignore[abstract]


def test_a_registered_task_without_rows_is_reported_as_not_measured(
    registered: None, tmp_path: Path
) -> None:
    content = results()
    for model in content["models"].values():
        del model["first_token"]
    html = page(tmp_path, content)
    assert re.search("Not measured: .*First &lt;token&gt;", html)
    (tmp_path / "config.yaml").write_text("eval: {tasks: [first_token]}")
    assert "First &lt;token&gt; was not measured." in render(tmp_path)


def test_a_sample_is_asked_of_its_columns_only_and_paired_where_the_base_has_it() -> None:
    suite, text = small_suite(), Text(np.arange(4))
    samples = [Sample("all", "u", text), Sample("one", "u", Text(np.arange(5)), {}, ("extended",))]
    asked = {name: [*suites.requests_of({"toy": samples}, name)] for name in ("base", "extended")}
    assert [len(part) for part in asked.values()] == [1, 2]
    results = {digest(sample.request): np.ones(1) for sample in samples}
    base, extended = (suites.measured(suite, samples, results, name) for name in asked)
    assert [sample.id for sample in base.samples] == ["all"]
    assert suites.paired_results(extended, base) is None
    paired = suites.paired_results(replace(extended, samples=samples[:1]), base)
    assert paired is not None and len(paired) == 1
    assert suites.paired_results(base, base) is None


def test_every_task_has_its_own_key_in_the_results() -> None:
    names = [task.name for task in TASKS]
    assert {"nll_by_position", "perplexity", "context_gain", "passkey"} <= set(names)
    assert len(set(names)) == len({task.title for task in TASKS}) == len(TASKS)
