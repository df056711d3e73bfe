"""The folder of a sweep in the stead of its runs."""

from pathlib import Path

import pytest
from compared_runs import RunFolder, planted

from ropewalk.conf.errors import ConfigError
from ropewalk.launch.compare import facts, sweeps, tables
from ropewalk.launch.compare.comparison import compare
from ropewalk.launch.compare.reading import models_of
from ropewalk.launch.sweep.record import JobRecord, SweepRecord


def sweep_of(runs: Path) -> Path:
    """Two runs are done, one failed with the results of a former time, one was stopped."""
    for number, name in enumerate(("pi", "yarn", "ntk")):
        kept = {"base": planted(9), "extended": planted(number)}
        RunFolder(name, kept, settings={"rope": {"method": name}}).write(runs)
    states = {"pi": "finished", "yarn": "finished", "ntk": "failed", "abf": "stopped"}
    jobs = [
        JobRecord(name=name, run=name, verb="run", overrides=[], state=state, exit_code=1)
        for name, state in states.items()
    ]
    jobs[2].reason = "out of memory"
    jobs.append(JobRecord(name="data", run="data", verb="data", overrides=[], is_run=False))
    folder = runs / "sweeps" / "methods"
    folder.mkdir(parents=True)
    entry = SweepRecord(folder=folder, name="methods", verb="run", command="", jobs=jobs)
    entry.baseline = "yarn"
    entry.write()
    return folder


def test_its_measured_runs_are_compared_and_the_others_are_named(tmp_path: Path) -> None:
    asked = sweeps.expanded([str(sweep_of(tmp_path))], "")
    assert [Path(word).name for word in asked.words] == ["pi", "yarn"]
    assert asked.baseline == "yarn"
    assert [name for name, _ in asked.missing] == ["ntk", "abf"]
    models = models_of(asked.words)
    listed = facts.facts_of(models)
    text = tables.as_text(compare(models, asked.baseline, asked.missing), listed)
    first, second = text.splitlines()[:2]
    assert first.startswith("not compared: ntk: failed") and first.endswith("out of memory")
    assert second.startswith("not compared: abf: stopped")


def test_another_baseline_and_another_run_stand_beside_a_sweep(tmp_path: Path) -> None:
    asked = sweeps.expanded([str(sweep_of(tmp_path)), str(tmp_path / "ntk")], "ntk")
    assert asked.baseline == "ntk" and len(asked.words) == 3


def test_a_damaged_record_is_refused(tmp_path: Path) -> None:
    folder = sweep_of(tmp_path)
    (folder / "sweep.json").write_text("{}")
    with pytest.raises(ConfigError, match="sweep.json of a sweep must be as ropewalk wrote it"):
        sweeps.expanded([str(folder)], "")
