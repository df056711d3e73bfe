"""The trials of a search: in its record, and as they are printed at its end."""

import shlex

from ropewalk.conf.errors import RopewalkError, Stopped
from ropewalk.launch.runs.following import without_folders
from ropewalk.launch.sweep import record, runner
from ropewalk.launch.sweep.record import SweepRecord
from ropewalk.launch.sweep.search_plan import Search
from ropewalk.launch.sweep.study import Study


def note_trials(study: Study, entry: SweepRecord, search: Search) -> None:
    """The trials in the record, as Optuna has them."""
    best = study.best()
    entry.search = {
        "objective": study.settings.objective,
        "direction": study.settings.direction,
        "spent_s": study.spent_s(),
        "best": None if best is None else search.name_of(best),
        "trials": [
            {
                "number": trial.number,
                "run": search.name_of(trial),
                "state": trial.state.name.lower(),
                "value": trial.value,
                "settings": study.values(trial),
                "reason": trial.user_attrs.get("reason", ""),
            }
            for trial in study.trials
        ],
    }
    entry.write()


def end(search: Search, study: Study, entry: SweepRecord) -> None:
    """The trials, the best run and where it is written. Raises: Stopped, RopewalkError."""
    note_trials(study, entry, search)
    assert entry.search is not None
    for trial in entry.search["trials"]:
        settings = ", ".join(f"{key}={text}" for key, text in trial["settings"].items())
        value = "" if trial["value"] is None else f" {trial['value']:.6g}"
        reason = f": {trial['reason']}" if trial["reason"] else ""
        print(f"  {trial['run']}  {trial['state']}{value}  {settings}{reason}")
    best = study.best()
    if best is not None:
        name = search.name_of(best)
        values = [f"{key}={value}" for key, value in study.values(best).items()]
        words = [*without_folders([*search.words, *values]), f"name={name}"]
        print(f"the best run is {name} ({best.value:.6g}) in {search.runs_dir / name}")
        print(f"  {shlex.join(['ropewalk', search.verb, *words])}")
    print(f"wrote {entry.folder / record.FILE}")
    if study.unfinished():
        raise Stopped(f"the search was stopped; {runner.AGAIN}")
    if best is None and study.trials:
        raise RopewalkError("no trial ended with a value; their reasons are above")
