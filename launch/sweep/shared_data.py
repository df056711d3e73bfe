"""What is made once for several runs, before the first of them trains: tokens and plans."""

from collections.abc import Sequence

from ropewalk.conf.artifacts.manifest import fingerprint
from ropewalk.conf.rules import content
from ropewalk.conf.schema import Config
from ropewalk.launch.sweep.jobs import Job
from ropewalk.launch.sweep.runs import PlannedRun

SUFFIX = "-data"
"""Of the job's name: it works in the folder of the first run that has its data."""


def data_jobs(runs: Sequence[PlannedRun]) -> tuple[list[Job], dict[str, str]]:
    """A job for each distinct data that is shared, and the name of the job by that of each run.

    Data that share their tokens are made one after the other: the first writes the tokens. On one
    machine a lock would see to that; over the nodes of a cluster not every disk has one.
    """
    by_data: dict[str, list[PlannedRun]] = {}
    for run in runs:
        by_data.setdefault(plan_key(run.config), []).append(run)
    of_tokens: dict[str, list[list[PlannedRun]]] = {}
    for group in by_data.values():
        of_tokens.setdefault(token_key(group[0].config), []).append(group)
    jobs, job_of = list[Job](), dict[str, str]()
    for groups in of_tokens.values():
        if len(groups) == len(groups[0]) == 1:  # nothing is shared
            continue
        first = ""
        for group in groups:
            name = group[0].name + SUFFIX
            jobs.append(Job(name, group[0].words, "data", (first,) if first else ()))
            job_of |= {run.name: name for run in group}
            first = first or name
    return jobs, job_of


def plan_key(config: Config) -> str:
    """Runs with an equal key read the same sequences. Settings that do not decide them may keep
    two runs apart that could share, and then the second finds everything made."""
    values = (config.model, config.data, config.seed, config.phases, config.cache_dir)
    return fingerprint([content(value) for value in values])


def token_key(config: Config) -> str:
    """Runs with an equal key read the same tokens, in whatever mixture."""
    sources = {name: [source.kind, source.path] for name, source in config.data.sources.items()}
    return fingerprint([content(config.model), sources, config.cache_dir])
