"""Gain, cost and hours of a longer window, and which configurations are dominated."""

import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from compared_runs import TARGETS, WINDOW, RunFolder, planted
from scipy import stats

from ropewalk.launch.compare import pareto
from ropewalk.launch.compare.comparison import Comparison, compare
from ropewalk.launch.compare.reading import models_of


def compared(runs: Path, **methods: Any) -> Comparison:
    """Three seeds of each method; `methods`: the settings of its losses, and its seconds."""
    words = []
    for number, (method, effects) in enumerate(methods.items()):
        step_s = effects.pop("step_s", 9.0)
        for seed in range(3):
            kept = {"base": planted(50), "extended": planted(10 * number + seed, **effects)}
            settings = {"rope": {"method": method}, "runs_dir": f"elsewhere {seed}"}
            run = RunFolder(f"demo-{method}-seed={seed}", kept, seed, settings, step_s=step_s)
            words.append(str(run.write(runs)))
    return compare(models_of(words))


def test_dominated_rows_are_those_of_a_brute_force() -> None:
    rng = np.random.default_rng(0)
    for _ in range(50):
        rows = [tuple(row) for row in rng.integers(0, 4, (8, 3)).tolist()]
        expected = []
        for row in rows:
            better = [
                other
                for other in rows
                if all(x <= y for x, y in zip(other, row, strict=True)) and other != row
            ]
            expected.append(bool(better))
        assert pareto.dominated(rows) == expected
    assert pareto.dominated([(1, None, 1), (0, 0, 0)]) == [False, False]


def test_a_model_that_loses_on_every_count_is_dominated(tmp_path: Path) -> None:
    good, worse = {"far": 0.9, "step_s": 5.0}, {"past": 0.4, "short": 0.3, "step_s": 9.0}
    quick = {"past": 0.5, "step_s": 1.0}
    points = compared(tmp_path, good=good, worse=worse, quick=quick).points
    dominated = {point.model for point in points if point.is_dominated}
    assert dominated == {f"demo-worse-seed={seed}" for seed in range(3)}


def test_gain_and_cost_are_beside_the_reference_of_the_runs_own_evaluation(tmp_path: Path) -> None:
    base, own = planted(50), planted(3, past=-0.1, short=0.2)
    run = RunFolder("run", {"base": base, "extended": own}, step_s=7.0, ranks=4).write(tmp_path)
    point, reference = compare(models_of([str(run), f"{run}:base"])).points
    gain = (base.targets - own.windows[:, -TARGETS:]).mean(axis=1)
    cost = (own.short - base.short).mean(axis=1)
    assert point.gain is not None and point.cost is not None and reference.cost is not None
    for measured, expected in ((point.gain, gain), (point.cost, cost)):
        low, high = stats.ttest_1samp(expected, 0).confidence_interval()
        np.testing.assert_allclose(measured[:3], (expected.mean(), low, high), atol=0.02)
    assert (reference.cost.value, reference.hours) == (0, None)
    assert point.hours == pytest.approx(3 * 7.0 * 4 / 3600)


def test_runs_without_gpus_have_no_gpu_hours(tmp_path: Path) -> None:
    kept = {"base": planted(50), "extended": planted(1)}
    words = [
        str(RunFolder(name, kept, gpus=gpus).write(tmp_path))
        for name, gpus in (("gpu", ["NVIDIA H100"]), ("cpu", []))
    ]
    gpu, cpu = models_of(words)
    labels = [pareto.hours_label(part) for part in ([gpu], [cpu], [gpu, cpu])]
    assert labels == ["GPU-hours", "CPU rank-hours", "device-hours"]


def test_seeds_of_a_configuration_are_compared_with_the_baselines_run_of_their_seed(
    tmp_path: Path,
) -> None:
    comparison = compared(tmp_path, none={"past": 0.4}, yarn={})
    assert [group.name for group in comparison.groups] == ["demo-none", "demo-yarn"]
    assert [group.label for group in comparison.groups] == ["none", "yarn"]
    cells = comparison.of("past_window")
    assert cells["demo-none-seed=0"].baseline == ""
    assert cells["demo-none-seed=2"].baseline == "demo-none-seed=0"
    partners = {seed: cells[f"demo-yarn-seed={seed}"].baseline for seed in range(3)}
    assert partners == {seed: f"demo-none-seed={seed}" for seed in range(3)}


def test_the_spread_over_seeds_is_students(tmp_path: Path) -> None:
    comparison = compared(tmp_path, none={"past": 0.4}, yarn={})
    (spread,) = (part for part in comparison.spreads if part.measure.name == "past_window")
    changes = np.array(
        [
            (planted(10 + seed).windows - planted(seed, past=0.4).windows)[:, WINDOW - 1 :]
            for seed in range(3)
        ]
    )
    by_seed = changes.mean(axis=(1, 2))
    np.testing.assert_allclose([*spread.by_seed.values()], by_seed, atol=1e-6)
    low, high = stats.ttest_1samp(by_seed, 0).confidence_interval()
    np.testing.assert_allclose(spread.over_seeds[:3], (by_seed.mean(), low, high), atol=1e-5)
    by_document = changes.mean(axis=(0, 2))
    low, high = stats.ttest_1samp(by_document, 0).confidence_interval()
    assert spread.over_documents is not None
    np.testing.assert_allclose(
        spread.over_documents[:3], (by_document.mean(), low, high), atol=0.01
    )


def test_a_setting_that_changes_no_number_does_not_part_seeds_and_another_does(
    tmp_path: Path,
) -> None:
    parts = [{"train": {"prefetch": 1}}, {"train": {"prefetch": 3}}, {"train": {"steps": 9}}]
    words = [
        str(
            RunFolder(
                f"run-{number}", {"base": planted(9), "extended": planted(number)}, number, settings
            ).write(tmp_path)
        )
        for number, settings in enumerate(parts)
    ]
    groups = compare(models_of(words)).groups
    assert [[model.name for model in group.models] for group in groups] == [
        ["run-0", "run-1"],
        ["run-2"],
    ]


def test_names_of_configurations_stay_different(tmp_path: Path) -> None:
    """Two configurations whose runs have one common beginning."""
    words = []
    for number, (name, lr) in enumerate(itertools.product("ab", (1, 2))):
        kept = {"base": planted(9), "extended": planted(number)}
        settings = {"train": {"lr": lr}}
        folder = RunFolder(f"run-{number}-{name}", kept, ord(name), settings)
        words.append(str(folder.write(tmp_path)))
    names = [group.name for group in compare(models_of(words)).groups]
    assert len(set(names)) == 2
