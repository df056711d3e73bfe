"""`sweep=search`: trials in rounds, each a run; stopped or killed, it goes on where it was.

The trials of a round are proposed before the first of them ends, as many as run at once: what is
proposed then depends on the rounds before it and not on which run was faster.
"""

import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ropewalk.conf.artifacts.locks import lock_or_refuse
from ropewalk.conf.errors import ConfigError, RopewalkError
from ropewalk.launch.runs.following import without_folders
from ropewalk.launch.sweep import before, objective, record, search_plan, shared_data
from ropewalk.launch.sweep.chosen import Chosen
from ropewalk.launch.sweep.jobs import Job, Outcome
from ropewalk.launch.sweep.pools import gpus_of_a_run, pool_of
from ropewalk.launch.sweep.pruning import pruning
from ropewalk.launch.sweep.record import SweepRecord
from ropewalk.launch.sweep.runs import PlannedRun
from ropewalk.launch.sweep.search_end import end, note_trials
from ropewalk.launch.sweep.search_plan import Search
from ropewalk.launch.sweep.study import Study
from ropewalk.launch.sweep.watch import Watch, why_failed


def run(chosen: Chosen, verb: str, words: Sequence[str]) -> None:
    """Search until the budget is spent. Raises: ConfigError, DataError; Stopped."""
    search = search_plan.plan(chosen, verb)
    before.preflight([PlannedRun(tuple(search.words), search.config)], verb)
    search.folder.mkdir(parents=True, exist_ok=True)
    with lock_or_refuse(search.folder):
        settings = chosen.settings.search
        fixed = without_folders(search.words)
        study = Study(search.folder, settings, search.dimensions, fixed, search.config.seed)
        entry = begin(search, words, study)
        made: set[str] = set()
        while batch := next_round(search, study):
            if not run_round(search, study, entry, batch, made):
                break
        end(search, study, entry)


def begin(search: Search, words: Sequence[str], study: Study) -> SweepRecord:
    """The record, with the trials that ended before."""
    command = shlex.join(["ropewalk", search.verb, *without_folders(words)])
    former = record.read(search.folder)
    jobs = former.jobs if former else []
    entry = SweepRecord(
        folder=search.folder, name=search.folder.name, verb=search.verb, command=command, jobs=jobs
    )
    note_trials(study, entry, search)
    return entry


def next_round(search: Search, study: Study) -> list[Any]:
    """Trials that a former command left unfinished, else new ones, within the budget."""
    if unfinished := study.unfinished():
        return unfinished
    gpus = gpus_of_a_run(search.config, search.chosen.settings.pool)
    batch: list[Any] = []
    while len(batch) < search.chosen.settings.pool and study.has_budget(gpus):
        batch.append(study.propose())
    return batch


def run_round(
    search: Search, study: Study, entry: SweepRecord, batch: list[Any], made: set[str]
) -> bool:
    """Run trials to their ends. Returns False when the search was asked to stop."""
    trial_of, runs = dict[str, Any](), list[PlannedRun]()
    for trial in batch:
        try:
            runs.append(run := search.run_of(trial, study))
            trial_of[run.name] = trial
        except ConfigError as error:  # of values that do not go together
            study.tell_failed(trial, " ".join(str(error).split()))
    jobs = round_jobs(runs, search.verb, made, search.folder.name)
    add_jobs(entry, jobs, trial_of)
    size, stopped, pruned = search.chosen.settings.pool, False, set[int]()
    folders = {search.runs_dir / name: trial for name, trial in trial_of.items()}
    steps = search.config.train.steps
    watch = Watch(entry, search.runs_dir, size)
    pool = pool_of(search.config, size, search.folder)
    with watch.shown(), pruning(study, folders, steps, pruned):
        for outcome in pool.run([job for job, _ in jobs]):
            entry.take(outcome)
            if (ended := trial_of.get(outcome.job.name)) is not None:
                stopped |= not take(search, study, ended, outcome, watch, pruned)
            elif outcome.exit_code:
                watch.tell(f"{outcome.job.name}: {why_failed(search.runs_dir, outcome.log)}")
    note_trials(study, entry, search)
    return not stopped


def round_jobs(
    runs: Sequence[PlannedRun], verb: str, made: set[str], sweep: str
) -> list[tuple[Job, str]]:
    """The jobs of a round. `made`: keys of data that earlier rounds made; `sweep`: its name."""
    new = [run for run in runs if shared_data.plan_key(run.config) not in made]
    shared, data_of = shared_data.data_jobs(new)
    made |= {shared_data.plan_key(run.config) for run in runs}
    jobs = [(job, job.name.removesuffix(shared_data.SUFFIX)) for job in shared]
    for run in runs:
        after = (data_of[run.name],) if run.name in data_of else ()
        jobs.append((Job(run.name, run.words_in(sweep), verb, after), run.name))
    return jobs


def add_jobs(entry: SweepRecord, jobs: list[tuple[Job, str]], trial_of: dict[str, Any]) -> None:
    """Note the jobs of a round; those that are started again keep their attempts."""
    fresh = record.entries(jobs, {*trial_of}, entry.jobs)
    names = {job.name for job in fresh}
    entry.jobs = [*(job for job in entry.jobs if job.name not in names), *fresh]
    entry.write()


def take(
    search: Search, study: Study, trial: Any, outcome: Outcome, watch: Watch, pruned: set[int]
) -> bool:
    """Tell the study how a trial ended. Returns False for one that is to be started again."""
    run = search.runs_dir / outcome.job.name
    study.spend(trial, outcome.seconds)
    if trial.number in pruned and not outcome.is_done:
        study.tell_pruned(trial)
        watch.tell(f"{run.name}: pruned after {outcome.seconds:.0f} s")
    elif outcome.is_done:
        _tell_value(search, study, trial, run, watch)
    elif outcome.exit_code is None or outcome.is_stopped:
        watch.tell(f"{run.name}: stopped, to be started again")
        return False
    else:
        reason = why_failed(run, outcome.log)
        study.tell_failed(trial, reason)
        watch.tell(f"{run.name}: failed: {reason}")
    return True


def _tell_value(search: Search, study: Study, trial: Any, run: Path, watch: Watch) -> None:
    try:
        value = objective.value(search.chosen.settings.search.objective, run)
    except RopewalkError as error:
        study.tell_failed(trial, str(error))
        watch.tell(f"{run.name}: failed: {error}")
        return
    study.tell(trial, value)
    best = study.best()
    settings = ", ".join(f"{key}={text}" for key, text in study.values(trial).items())
    watch.tell(
        f"{run.name}: {value:.6g} ({settings}); best {best.value:.6g} in trial {best.number}; "
        f"{len(study.trials)} of {study.settings.trials} trials"
    )
