"""The runs of a sweep before any starts: combinations, shared data, searched tables."""

import itertools
from pathlib import Path

import pytest

from ropewalk.conf.artifacts.records import read_json
from ropewalk.conf.errors import ConfigError, RopewalkError
from ropewalk.launch.sweep import chosen, naming, record, runner, shared_data
from ropewalk.launch.sweep.jobs import Job, Outcome
from ropewalk.launch.sweep.runs import PlannedRun, planned_runs

METHODS = ["none", "pi", "ntk", "yarn", "llama3", "longrope", "calibrated"]


def runs_of(*words: str) -> list[PlannedRun]:
    return planned_runs(chosen.choose(words), "run")


@pytest.fixture(scope="module")
def methods() -> list[PlannedRun]:
    return runs_of("recipe=demo", "sweep=methods", "sweep.pool=2", "runs_dir=./out")


def test_the_runs_are_the_product_of_the_values() -> None:
    grid = {"rope": ["pi", "ntk"], "train.optimizer.lr": ["1e-3", "1e-4"], "seed": ["1", "2"]}
    runs = runs_of("recipe=demo", *(f"{key}={','.join(values)}" for key, values in grid.items()))
    expected = itertools.product(*grid.values())
    settings = [(r.config.rope.method, r.config.train.optimizer.lr, r.config.seed) for r in runs]
    assert settings == [(method, float(lr), int(seed)) for method, lr, seed in expected]
    assert len({run.name for run in runs}) == 8


def test_methods_are_compared_on_one_base_data_and_budget_with_seeds(
    methods: list[PlannedRun],
) -> None:
    names = [f"demo-{method}-{seed}" for method in METHODS for seed in range(3)]
    assert [run.name for run in methods] == names
    same = {(r.config.model.path, str(r.config.data), str(r.config.train)) for r in methods}
    assert len(same) == 1
    assert {run.config.eval.seed for run in methods} == {0}
    closed = [run.config.rope.method for run in methods if run.calibration is None]
    assert closed == [method for method in ["abf", *METHODS[1:5]] for _ in range(3)]
    assert {"rope=abf", "rope.rope_theta=10000.0"} <= set(methods[0].words)  # the base's own table


def test_the_demo_s_comparison_is_that_of_methods_in_smaller_numbers() -> None:
    demo = chosen.choose(["recipe=demo", "sweep=demo_methods"])
    full = chosen.choose(["recipe=demo", "sweep=methods"])
    for key in ("grid", "calibrated", "baseline"):
        assert getattr(demo.settings, key) == getattr(full.settings, key)
    (run,) = runs_of("recipe=demo", "sweep=demo_methods", "rope=yarn", "seed=1")
    assert (run.config.train.steps, run.config.eval.seed, run.config.rope.factor) == (48, 0, 8)


def test_a_searched_table_is_searched_once_for_all_seeds(methods: list[PlannedRun]) -> None:
    searched = [run for run in methods if run.calibration]
    assert [run.calibration.name for run in searched if run.calibration] == [
        f"demo-{method}-0-search" for method in METHODS[5:] for _ in range(3)
    ]
    words = {run.name: run.words for run in searched}
    path = "rope.path=./out/demo-longrope-0-search/calibration/rope.json"
    assert {"rope=table", path, "seed=2"} <= set(words["demo-longrope-2"])
    searchers = {run.calibration.config.calibrate.searcher for run in searched if run.calibration}
    assert searchers == {"longrope", "ramp"}


def test_the_command_line_replaces_the_values_of_the_sweep() -> None:
    runs = runs_of("recipe=demo", "sweep=methods", "rope=pi,yarn", "seed=7", "eval.seed=3")
    assert [(r.config.rope.method, r.config.seed, r.config.eval.seed) for r in runs] == [
        ("pi", 7, 3),
        ("yarn", 7, 3),
    ]


def test_the_problems_of_all_combinations_are_told_at_once() -> None:
    with pytest.raises(ConfigError) as error:
        runs_of("recipe=demo", "train.steps=-1,-2", "train.optimizer.lr=1e-3,-1")
    assert [line.split(";")[0] for line in str(error.value).splitlines()] == [
        "train.steps is -1",
        "train.optimizer.lr is -1.0",
        "train.steps is -2",
    ]


def test_settings_of_the_sweep_are_checked_and_are_not_those_of_its_runs() -> None:
    choice = chosen.choose(["recipe=demo", "sweep.pool=3", "rope=pi,ntk"])
    assert choice.settings.pool == 3 and choice.words == ["recipe=demo", "rope=pi,ntk"]
    with pytest.raises(ConfigError, match=r"sweep\.pool is 0; it must be at least 1"):
        chosen.choose(["recipe=demo", "sweep.pool=0"])
    with pytest.raises(ConfigError, match="sweep=method: there is no sweep of that name.*methods"):
        chosen.choose(["recipe=demo", "sweep=method"])


def test_data_are_made_once_for_each_seed_and_tokens_once_for_all(
    methods: list[PlannedRun],
) -> None:
    jobs, job_of = shared_data.data_jobs(methods)
    assert [(job.name, job.verb, job.after) for job in jobs] == [
        ("demo-none-0-data", "data", ()),
        ("demo-none-1-data", "data", ("demo-none-0-data",)),
        ("demo-none-2-data", "data", ("demo-none-0-data",)),
    ]
    assert all(job == f"demo-none-{name[-1]}-data" for name, job in job_of.items())
    assert len(job_of) == 21


def test_data_of_one_run_alone_are_made_by_the_run() -> None:
    assert shared_data.data_jobs(runs_of("recipe=demo")) == ([], {})
    sources = "data.sources.stdlib.path=./one,./two"
    assert shared_data.data_jobs(runs_of("recipe=demo", sources, "name=a,b"))[0] != []


def test_a_sweep_is_named_by_what_is_swept_or_by_its_group() -> None:
    def name(*words: str) -> str:
        return naming.sweep_name(chosen.choose(words))

    assert name("recipe=demo", "rope=pi,ntk", "train.optimizer.lr=1e-3,1e-4") == "demo-rope-lr"
    assert name("recipe=demo", "sweep=methods") == "demo-methods"


@pytest.mark.parametrize(
    ("baseline", "run"),
    [(None, "demo-none-0"), ("yarn", "demo-yarn-0"), ("calibrated", "demo-calibrated-0")],
)
def test_the_baseline_is_the_first_run_with_that_value(
    methods: list[PlannedRun], baseline: str | None, run: str
) -> None:
    assert naming.baseline_run(baseline, methods) == run


def sweep(tmp_path: Path) -> runner.Sweep:
    choice = chosen.choose(["recipe=demo", "sweep=methods", "seed=0", "rope=pi,calibrated"])
    runs = planned_runs(choice, "run")
    return runner.Sweep(choice, "run", runs, tmp_path / "sweeps" / "s")


def test_what_only_finished_runs_need_is_not_made_again(tmp_path: Path) -> None:
    planned = sweep(tmp_path)
    planned.folder.mkdir(parents=True)
    entry = runner.begin(planned, ["recipe=demo"], {})
    assert [job.state for job in entry.jobs] == ["waiting"] * 4
    entry = runner.begin(planned, ["recipe=demo"], {"demo-calibrated": 0})
    states = {job.name: job.state for job in entry.jobs}
    assert states == {
        "demo-pi-data": "waiting",
        "demo-calibrated-search": "finished",
        "demo-pi": "waiting",
        "demo-calibrated": "finished",
    }


def test_the_record_keeps_how_each_job_ended_and_no_folder_of_the_user(tmp_path: Path) -> None:
    planned = sweep(tmp_path)
    planned.folder.mkdir(parents=True)
    entry = runner.begin(planned, ["recipe=demo", "cache_dir=/home/me"], {})
    log = planned.folder / "logs" / "demo-pi.log"
    entry.take(Outcome(Job("demo-pi", ()), 75, 3.0, log))
    entry.take(Outcome(Job("demo-calibrated", ()), None, reason="x before it did not end well"))
    again = record.read(planned.folder)
    assert again == entry
    assert again is not None and again.job("demo-pi").state == "stopped"
    assert again.job("demo-calibrated").state == "not started"
    assert again.command == "ropewalk run -m recipe=demo cache_dir=PATH"
    content = read_json(planned.folder / "sweep.json")
    assert content["schema"] == 1 and content["jobs"][2]["log"] == "logs/demo-pi.log"
    later = runner.begin(planned, ["recipe=demo"], {})
    assert (later.job("demo-pi").attempts, later.job("demo-pi").state) == (1, "waiting")


@pytest.mark.parametrize(
    ("codes", "expected"),
    [
        ([0, 0], 0),
        ([0, 3], 3),
        ([1, 0], 1),
        ([-9, 75], 1),
        ([2, 2], 2),
        ([2, 1], 1),
        ([75, 0], 75),
        ([75, None], 75),
        ([3, 75], 75),
    ],
)
def test_the_exit_code_tells_how_the_runs_ended(
    tmp_path: Path,
    codes: list[int | None],
    expected: int,
    capsys: pytest.CaptureFixture[str],
) -> None:
    jobs = [Job(name, (), "train") for name in "ab"]
    folder = tmp_path / "sweeps" / "s"
    folder.mkdir(parents=True)
    entry = record.new(folder, "train", "", [(job, job.name) for job in jobs], "ab")
    for job, code in zip(jobs, codes, strict=True):
        entry.take(Outcome(job, code))
    try:
        runner.end(entry)
        code = 0
    except RopewalkError as error:
        code = error.exit_code
    assert code == expected
    listed = {line.split()[0] for line in capsys.readouterr().out.splitlines() if "  " in line}
    assert listed == {j.name for j, c in zip(jobs, codes, strict=True) if c not in (0, 3)}
