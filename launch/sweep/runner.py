"""A sweep from its words to its comparison: checked, made once what is shared, run, told."""

import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ropewalk.conf.artifacts.folders import SWEEPS
from ropewalk.conf.artifacts.locks import lock_or_refuse
from ropewalk.conf.errors import (
    DONE,
    NOT_PROVEN,
    REFUSED,
    ConfigError,
    ProofError,
    RopewalkError,
    Stopped,
)
from ropewalk.conf.schema import Config
from ropewalk.launch.runs.following import without_folders
from ropewalk.launch.sweep import before, naming, record, shared_data
from ropewalk.launch.sweep.chosen import Chosen
from ropewalk.launch.sweep.jobs import Job, Outcome
from ropewalk.launch.sweep.pools import pool_of
from ropewalk.launch.sweep.record import FAILED, FINISHED, SweepRecord
from ropewalk.launch.sweep.runs import PlannedRun, calibrations, planned_runs
from ropewalk.launch.sweep.watch import Watch, why_failed

COMPARISON = "comparison"
"""The folder of the page, in the sweep's."""
AGAIN = "run the same command again: it starts only what is not done"


@dataclass(frozen=True)
class Sweep:
    """A sweep that is planned: its runs, and the jobs that make what they share."""

    chosen: Chosen
    verb: str
    runs: list[PlannedRun]
    folder: Path

    @property
    def runs_dir(self) -> Path:
        return self.folder.parent.parent

    def jobs(self) -> list[tuple[Job, str]]:
        """Every job with the folder of its run: shared data, searched tables, the runs."""
        shared, data_of = shared_data.data_jobs(self.runs) if self.verb != "data" else ([], {})
        jobs = [(job, job.name.removesuffix(shared_data.SUFFIX)) for job in shared]
        for search in calibrations(self.runs):
            first = next(run for run in self.runs if run.calibration is search)
            after = tuple(filter(None, [data_of.get(first.name)]))
            jobs.append((Job(search.name, search.words, "calibrate", after), search.name))
        for run in self.runs:
            searched = None if run.calibration is None else run.calibration.name
            needed = [data_of.get(run.name), searched]
            after = tuple(filter(None, needed))
            jobs.append((Job(run.name, run.words_in(self.folder.name), self.verb, after), run.name))
        return jobs


def plan(chosen: Chosen, verb: str) -> Sweep:
    """The runs of a grid, checked. Raises: ConfigError."""
    runs = planned_runs(chosen, verb)
    if len(folders := {run.config.runs_dir for run in runs}) > 1:
        raise ConfigError(
            f"runs_dir is {', '.join(sorted(folders))}; the runs of a sweep must lie in one "
            "folder; give one"
        )
    name = chosen.settings.name or naming.sweep_name(chosen)
    return Sweep(chosen, verb, runs, sweep_folder(runs[0].config, name))


def sweep_folder(config: Config, name: str) -> Path:
    return Path(config.runs_dir).expanduser() / SWEEPS / name


def run(chosen: Chosen, verb: str, words: Sequence[str]) -> None:
    """Run a grid. `words`: as typed.

    Raises: ConfigError before the first run starts; else, when all have ended, RopewalkError where
        one failed, Stopped where one is to be started again, ProofError where a gate said no.
    """
    sweep = plan(chosen, verb)
    done = {
        run.name: code for run in sweep.runs if (code := before.finished(run, verb)) is not None
    }
    before.preflight([run for run in sweep.runs if run.name not in done], verb)
    sweep.folder.mkdir(parents=True, exist_ok=True)
    with lock_or_refuse(sweep.folder):
        entry = begin(sweep, words, done)
        run_jobs(sweep, entry, {*done})
        compare(sweep, entry)
    end(entry)


def show(chosen: Chosen, verb: str) -> None:
    """Check a grid, and print and write the scripts of its arrays. Raises: ConfigError."""
    from ropewalk.launch.cluster.pool import SlurmPool

    sweep = plan(chosen, verb)
    before.preflight(sweep.runs, verb)
    pool = pool_of(sweep.runs[0].config, chosen.settings.pool, sweep.folder)
    assert isinstance(pool, SlurmPool), pool
    pool.show([job for job, _ in sweep.jobs()])


def begin(sweep: Sweep, words: Sequence[str], done: dict[str, int]) -> SweepRecord:
    """The record, with what is done before; written."""
    command = shlex.join(["ropewalk", sweep.verb, "-m", *without_folders(words)])
    names = [run.name for run in sweep.runs]
    entry = record.new(sweep.folder, sweep.verb, command, sweep.jobs(), names)
    entry.baseline = naming.baseline_run(sweep.chosen.settings.baseline, sweep.runs)
    for name, code in done.items():
        entry.skip(name, code)
    for job in entry.jobs:
        if not job.is_run and not any(needs(entry, other.name, job.name) for other in entry.runs):
            entry.skip(job.name, DONE)
    entry.write()
    return entry


def needs(entry: SweepRecord, name: str, other: str) -> bool:
    """Whether a job that is not done comes after another, at once or through a third."""
    job = entry.job(name)
    if job.state == FINISHED:
        return False
    return other in job.after or any(needs(entry, before, other) for before in job.after)


def run_jobs(sweep: Sweep, entry: SweepRecord, done: set[str]) -> None:
    """Run what is not done; a line for each job that ends."""
    jobs = [job for job, _ in sweep.jobs() if entry.job(job.name).state != FINISHED]
    size = sweep.chosen.settings.pool
    watch = Watch(entry, sweep.runs_dir, size)
    if done:
        watch.tell(f"{len(done)} of {len(sweep.runs)} runs are done before; skipped")
    if not jobs:
        return
    text = f"sweep {entry.name}: {len(jobs)} jobs, {size} at once; each prints to {entry.folder}"
    watch.tell(f"{text}/logs/NAME.log")
    pool = pool_of(sweep.runs[0].config, size, entry.folder)
    waiting = {job.name for job in jobs}
    after = [Job(j.name, j.overrides, j.verb, tuple(waiting & {*j.after})) for j in jobs]
    with watch.shown():
        for outcome in pool.run(after):
            told(entry, outcome, watch)


def told(entry: SweepRecord, outcome: Outcome, watch: Watch) -> None:
    """Note an outcome, and print its line."""
    job = entry.take(outcome)
    if job.is_run and outcome.is_done:
        watch.ended.append(outcome.seconds)
    line = f"{job.name}: {record.in_words(job)}"
    if outcome.exit_code is not None:
        line += f" in {outcome.seconds:.0f} s"
    if job.state == FAILED:
        job.reason = why_failed(watch.runs_dir / job.run, outcome.log)
        entry.write()
        line += f": {job.reason}"
    watch.tell(f"{line} [{watch.line()}]")


def compare(sweep: Sweep, entry: SweepRecord) -> None:
    """Write the page over all runs that are measured, where there are two; it names the others."""
    from ropewalk.launch.compare.command import compare_runs

    done = [sweep.runs_dir / job.run for job in entry.runs if job.state == FINISHED]
    measured = [run for run in done if (run / "eval" / "results.json").is_file()]
    if sweep.verb not in ("run", "eval") or len(measured) < 2:
        return
    try:
        page = compare_runs([entry.folder], None, entry.folder / COMPARISON)
    except ConfigError as error:  # the runs stand all the same
        print(f"the runs cannot be compared:\n{error}")
        return
    entry.comparison = str(page.relative_to(entry.folder))
    entry.write()


def end(entry: SweepRecord) -> None:
    """What is done and what is not, and where it is written. Raises: as `run`."""
    done = [job for job in entry.runs if job.state == FINISHED]
    rest = [job for job in entry.jobs if job.state != FINISHED]
    print(f"sweep {entry.name}: {len(done)} of {len(entry.runs)} runs done")
    for job in rest:
        log = f" ({entry.folder / job.log})" if job.log else ""
        reason = f": {job.reason}" if job.reason and job.state == FAILED else ""
        print(f"  {job.name}  {record.in_words(job)}{reason}{log}")
    if entry.comparison:
        print(f"wrote {entry.folder / entry.comparison}")
    print(f"wrote {entry.folder / record.FILE}")
    failed = [job for job in rest if job.state == FAILED]
    if failed:
        names = ", ".join(job.name for job in failed)
        error = RopewalkError(f"{len(failed)} of {len(entry.jobs)} jobs failed: {names}; {AGAIN}")
        error.exit_code = REFUSED if all(job.exit_code == REFUSED for job in failed) else 1
        raise error
    if rest:
        raise Stopped(f"{len(rest)} of {len(entry.jobs)} jobs are to be started again; {AGAIN}")
    if refused := [job.name for job in done if job.exit_code == NOT_PROVEN]:
        raise ProofError(f"a gate said no in {', '.join(refused)}; the log of each has its lines")
