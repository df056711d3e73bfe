"""Slurm's commands: what is asked of the queue, and how it answers."""

import re
import subprocess
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from ropewalk.conf.errors import ConfigError, RopewalkError

ANSWER_S = 60
"""Seconds within which a controller that works answers."""
ENDED = {
    *("COMPLETED", "FAILED", "CANCELLED", "TIMEOUT", "NODE_FAIL", "OUT_OF_MEMORY", "DEADLINE"),
    *("BOOT_FAIL", "PREEMPTED", "REVOKED", "LAUNCH_FAILED"),
}
"""States in which a job stays."""
KEYS = (
    ("account", "account"),
    ("partition", "partition"),
    ("qos", "qos"),
    ("time limit", "time_limit"),
    ("memory", "memory"),
    ("generic resource", "gpus_per_node"),
)
"""A word of sbatch's refusals, and the setting of `launch.slurm` that it is about."""
_FIELD = re.compile(r"(\w+)=(\S*)")
_TASKS = re.compile(r"(\d+)(?:-(\d+))?")


@dataclass(frozen=True)
class JobState:
    """A job as the controller has it."""

    id: str
    """`17`, of an array's task `17_3`."""
    name: str
    """RUNNING, PENDING, COMPLETED, ..."""
    reason: str
    exit_code: int
    signal: int
    restarts: int
    nodes: str
    seconds: int = 0
    """That its last attempt ran."""

    @property
    def has_ended(self) -> bool:
        return self.name in ENDED


def ask(*words: str) -> "subprocess.CompletedProcess[str]":
    """Run a command of Slurm's. Raises: RopewalkError when it does not start or answer."""
    try:
        return subprocess.run(words, capture_output=True, text=True, timeout=ANSWER_S)
    except FileNotFoundError as error:
        raise ConfigError(
            f"launch is slurm; {words[0]} is not on this machine's PATH; type the command on a "
            "login node of the cluster, or add --dry-run and submit what it writes there"
        ) from error
    except (OSError, subprocess.TimeoutExpired) as error:
        raise RopewalkError(f"{words[0]}: {error}") from error


def refuse_impossible(script: Path) -> None:
    """Let Slurm judge a batch script without queueing it.

    Raises: ConfigError with Slurm's reason and the setting that it is about.
    """
    answer = ask("sbatch", "--test-only", str(script))
    if answer.returncode:
        raise ConfigError(refused(answer.stderr, script.name))


def refused(stderr: str, script: str) -> str:
    """The line for what sbatch says when it takes no job."""
    lines = [line.strip() for line in stderr.splitlines() if line.strip()]
    reasons = [re.sub(r"^(sbatch: error: |allocation failure: )+", "", line) for line in lines]
    reason = "; ".join(dict.fromkeys(reasons)) or "it gives no reason"
    key = next((key for word, key in KEYS if word in reason.lower()), None)
    subject = f"launch.slurm.{key}" if key else "launch.nodes and launch.slurm"
    verb = "is" if key else "are"
    return (
        f"{subject} {verb} what Slurm refuses for {script}; {reason}; correct "
        f"{'it' if key else 'them'}, or the words after --"
    )


def submit(script: Path, after: Sequence[str] = ()) -> str:
    """Queue a batch script; its job's id. `after`: ids of jobs that must end well before it.

    Raises: ConfigError.
    """
    words = ["sbatch", "--parsable", *dependency(after), str(script)]
    answer = ask(*words)
    if answer.returncode:
        raise ConfigError(refused(answer.stderr, script.name))
    return answer.stdout.strip().partition(";")[0]


def dependency(after: Sequence[str]) -> list[str]:
    """The words of sbatch; a job whose dependency failed leaves the queue."""
    if not after:
        return []
    return [f"--dependency=afterok:{':'.join(after)}", "--kill-on-invalid-dep=yes"]


def cancel(jobs: Collection[str]) -> None:
    """End jobs; those at work save first, within the site's KillWait. Raises: RopewalkError."""
    if jobs:
        ask("scancel", *jobs)


def requeue(job: str) -> str:
    """Queue this running job again; the result as a message."""
    try:
        answer = ask("scontrol", "requeue", job)
    except RopewalkError as error:
        return f"scontrol did not start ({error}); submit it again to resume"
    if answer.returncode == 0:
        return "it is queued again, and resumes by itself"
    reason = answer.stderr.strip() or f"exit code {answer.returncode}"
    return f"scontrol requeue {job}: {reason}; submit it again to resume"


def own_state(job: str) -> str:
    """The state of the job that asks; UNKNOWN when the controller does not say."""
    try:
        shown = states([job])
    except RopewalkError:
        return "UNKNOWN"
    return shown[0].name if shown else "UNKNOWN"


def states(jobs: Collection[str]) -> list[JobState]:
    """What the controller knows of jobs, with every task of an array.

    It forgets a job some minutes after its end (MinJobAge). Raises: RopewalkError when it does
    not answer.
    """
    shown: list[JobState] = []
    for job in jobs:
        answer = ask("scontrol", "--oneliner", "show", "job", job)
        if answer.returncode and "Invalid job id" not in answer.stderr:
            raise RopewalkError(f"scontrol show job {job}: {answer.stderr.strip()}")
        if not answer.returncode:
            shown += [state for line in answer.stdout.splitlines() for state in parsed(line)]
    return shown


def parsed(line: str) -> Iterator[JobState]:
    """A line of `scontrol --oneliner show job`: one job, or the waiting tasks of an array."""
    fields = dict(_FIELD.findall(line))
    if "JobId" not in fields:
        return
    code, _, number = fields.get("ExitCode", "0:0").partition(":")
    for job in _ids(fields):
        yield JobState(
            job,
            fields.get("JobState", "UNKNOWN"),
            fields.get("Reason", ""),
            int(code),
            int(number or 0),
            int(fields.get("Restarts", "0")),
            fields.get("NodeList", "").replace("(null)", ""),
            _seconds(fields.get("RunTime", "")),
        )


def _seconds(text: str) -> int:
    """Of `[DAYS-]HOURS:MINUTES:SECONDS`."""
    days, _, clock = text.rpartition("-")
    parts = [int(part) for part in clock.split(":") if part.isdecimal()]
    seconds = sum(part * 60**power for power, part in enumerate(reversed(parts)))
    return seconds + 86400 * int(days or 0)


def _ids(fields: dict[str, str]) -> list[str]:
    array, tasks = fields.get("ArrayJobId"), fields.get("ArrayTaskId", "")
    if array is None:
        return [fields["JobId"]]
    numbers: list[int] = []
    for first, last in _TASKS.findall(tasks.partition("%")[0]):
        numbers += range(int(first), int(last or first) + 1)
    return [f"{array}_{number}" for number in numbers]
