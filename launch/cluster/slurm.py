"""`launch=slurm`: check, write the batch scripts, submit, follow."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from ropewalk.conf.artifacts.records import read_signed, signed, write_json
from ropewalk.conf.errors import RopewalkError, Stopped
from ropewalk.conf.schema import Config
from ropewalk.launch.cluster import attempts, follow, queue, submission
from ropewalk.launch.cluster.submission import Script


def folder_of(config: Config) -> Path:
    """Of the scripts of a run, the logs of its jobs and the records of their attempts."""
    return Path(config.runs_dir).expanduser() / config.name / attempts.FOLDER


def as_in_the_job(config: Config) -> Config:
    """The settings with what the job's machines have, for checks on the machine that submits."""
    gpus = _gpus_per_node(config)
    launcher = config.train.launcher
    if launcher.ranks_per_node is not None or not gpus:
        return config
    launcher = replace(launcher, ranks_per_node=gpus)
    return replace(config, train=replace(config.train, launcher=launcher))


def _gpus_per_node(config: Config) -> int | None:
    launch = config.launch
    if launch.kind == "kubernetes":
        return launch.kubernetes.gpus_per_node
    if launch.kind == "skypilot":
        count = (launch.skypilot.accelerators or "").partition(":")[2]
        return int(count) if count.isdecimal() else 1
    return launch.slurm.gpus_per_node


def scripts_of(config: Config, verb: str, typed: Sequence[str]) -> list[Script]:
    """The scripts of a command. Raises: ConfigError."""
    folder = folder_of(config).absolute()
    return submission.scripts_of(config.launch, config.name, verb, typed, str(folder))


def show(config: Config, verb: str, typed: Sequence[str]) -> None:
    """`--dry-run`: print and write what would be submitted."""
    scripts = scripts_of(config, verb, typed)
    for path in submission.write(scripts, folder_of(config)):
        print(f"--- {path}\n{path.read_text()}", end="")
    print(f"wrote {folder_of(config)}; submit it with {folder_of(config) / submission.SUBMIT}")


def run(config: Config, verb: str, typed: Sequence[str]) -> None:
    """Submit the jobs of a command, unless they are in the queue, and follow the last of them
    where `launch.follow` is set.

    Raises: ConfigError before anything is queued; Stopped or RopewalkError as the job ended.
    """
    folder = folder_of(config)
    job = _in_the_queue(folder)
    if job is not None:
        print(f"job {job} of this run is in the queue; none is submitted")
    else:
        job = _submit(scripts_of(config, verb, typed), folder)
    log = folder / f"job-{job}.log"
    if config.launch.follow:
        _follow(config, job, log)
    else:
        print(f"its log: {log}; follow it: the same command with launch.follow=true")


def _submit(scripts: Sequence[Script], folder: Path) -> str:
    """The id of the last job."""
    submission.write(scripts, folder)
    for script in scripts:
        queue.refuse_impossible(folder / script.file)
    jobs: dict[str, str] = {}
    for script in scripts:
        after = [jobs[name] for name in script.after]
        jobs[script.name] = queue.submit(folder / script.file, after)
        print(f"submitted {script.name}: job {jobs[script.name]} ({folder / script.file})")
        write_json(folder / attempts.SUBMITTED, signed({"schema": 1, "jobs": jobs}))
    return jobs[scripts[-1].name]


def _in_the_queue(folder: Path) -> str | None:
    """The last job that was submitted for this run, while it waits or runs."""
    record = read_signed(folder / attempts.SUBMITTED)
    if record is None:
        return None
    *_, job = record["jobs"].values()
    return None if all(state.has_ended for state in queue.states([job])) else str(job)


def _follow(config: Config, job: str, log: Path) -> None:
    """Raises: Stopped, RopewalkError."""
    try:
        state = follow.follow(job, log)
    except KeyboardInterrupt:
        raise Stopped(
            f"job {job} is not followed any more, and goes on; the same command follows it again, "
            f"scancel {job} ends it"
        ) from None
    records = attempts.read(log.parents[1], job)
    print(attempts.as_text(records))
    if state is None:
        raise RopewalkError(f"job {job}: Slurm knows it no more; its log: {log}")
    code = follow.exit_code(state)
    if code:
        error = RopewalkError(
            f"job {job} ended as {state.name.lower()} ({state.reason}), exit code {code}; its log: "
            f"{log}"
        )
        error.exit_code = code if code in (2, 3, 75) else 1
        raise error
