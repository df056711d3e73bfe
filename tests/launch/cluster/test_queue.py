"""What Slurm's commands print, as Slurm 22.05 printed it, and what is made of it."""

from pathlib import Path

import pytest

from ropewalk.conf.errors import ConfigError
from ropewalk.launch.cluster import queue
from ropewalk.launch.cluster.follow import Tail, exit_code, follow, state_line
from ropewalk.launch.cluster.pool import grouped
from ropewalk.launch.cluster.queue import JobState
from ropewalk.launch.sweep.jobs import Job

# of `scontrol --oneliner show job`, without fields that are not read
WAITING_ARRAY = (
    "JobId=1 ArrayJobId=1 ArrayTaskId=0-2,4%1 ArrayTaskThrottle=1 JobName=wrap Account=(null) "
    "JobState=PENDING Reason=Resources Dependency=(null) Requeue=1 Restarts=0 ExitCode=0:0 "
    "RunTime=00:00:00 ReqNodeList=(null) ExcNodeList=(null) NodeList= NumNodes=1 "
)
CANCELLED = (
    "JobId=4 JobName=wrap JobState=CANCELLED Reason=None Dependency=(null) Requeue=1 Restarts=0 "
    "ExitCode=0:15 RunTime=1-00:01:06 ReqNodeList=(null) NodeList=n[1-2] BatchHost=n1 "
)
TASK = (
    "JobId=18 ArrayJobId=17 ArrayTaskId=3 JobName=wrap JobState=FAILED Reason=NonZeroExitCode "
    "Restarts=2 ExitCode=3:0 RunTime=00:00:07 NodeList=n1 "
)


def parsed(line: str) -> list[JobState]:
    return [*queue.parsed(line)]


def test_the_waiting_tasks_of_an_array_are_jobs() -> None:
    states = parsed(WAITING_ARRAY)
    assert [state.id for state in states] == ["1_0", "1_1", "1_2", "1_4"]
    assert {(s.name, s.reason, s.nodes, s.has_ended) for s in states} == {
        ("PENDING", "Resources", "", False)
    }
    assert state_line(states[0]) == "1_0: pending (Resources)"


def test_a_job_that_ended_says_how() -> None:
    (cancelled,), (task,) = parsed(CANCELLED), parsed(TASK)
    assert (cancelled.id, cancelled.nodes, cancelled.seconds) == ("4", "n[1-2]", 86466)
    assert cancelled.has_ended and exit_code(cancelled) == 1
    assert (task.id, task.restarts, exit_code(task)) == ("17_3", 2, 3)
    assert state_line(task) == "17_3: failed on n1, attempt 3"
    assert parsed("slurm_load_jobs error: Invalid job id specified") == []


@pytest.mark.parametrize(
    ("stderr", "line"),
    [
        (
            "sbatch: error: invalid partition specified: nono\n"
            "allocation failure: Invalid partition name specified\n",
            "launch.slurm.partition is what Slurm refuses for run.sh; invalid partition specified: "
            "nono; Invalid partition name specified; correct it, or the words after --",
        ),
        (
            "allocation failure: Requested node configuration is not available\n",
            "launch.nodes and launch.slurm are what Slurm refuses for run.sh; Requested node "
            "configuration is not available; correct them, or the words after --",
        ),
        ("", "launch.nodes and launch.slurm are what Slurm refuses for run.sh; it gives no reason"),
    ],
)
def test_a_refusal_of_sbatch_names_the_setting(stderr: str, line: str) -> None:
    assert queue.refused(stderr, "run.sh").startswith(line)


def test_a_machine_without_slurm_says_where_to_type_the_command(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ConfigError, match="^launch is slurm; sbatch is not on this machine's PATH"):
        queue.refuse_impossible(tmp_path / "run.sh")


def test_a_job_is_followed_through_its_states_to_its_end(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """What it prints late, after the state that ends it, is shown too."""
    log, lines = tmp_path / "job-4.log", list[str]()
    answers = [
        WAITING_ARRAY.replace("ArrayJobId=1 ArrayTaskId=0-2,4%1", "").replace("Id=1", "Id=4"),
        CANCELLED.replace("CANCELLED", "RUNNING"),
        CANCELLED.replace("CANCELLED", "RUNNING"),
        CANCELLED,
    ]

    def states(_: object) -> list[JobState]:
        with log.open("a") as file:
            file.write(f"line {len(answers)}\n")
        return parsed(answers.pop(0))

    monkeypatch.setattr(queue, "states", states)
    state = follow("4", log, lines.append, poll_s=0)
    assert state is not None and state.name == "CANCELLED"
    assert "".join(lines).splitlines() == [
        *("line 4", "job 4: pending (Resources)", "line 3", "job 4: running on n[1-2]", "line 2"),
        *("line 1", "job 4: cancelled on n[1-2]"),
    ]


def test_a_log_is_read_from_where_it_was_read_to(tmp_path: Path) -> None:
    tail = Tail(tmp_path / "log")
    assert tail.new() == ""
    (tmp_path / "log").write_text("a\n")
    assert (tail.new(), tail.new()) == ("a\n", "")
    with (tmp_path / "log").open("a") as file:
        file.write("b\n")
    assert tail.new() == "b\n"


def test_jobs_that_need_the_same_others_are_one_array() -> None:
    data = [Job("d1", (), "data"), Job("d2", (), "data")]
    runs = [Job("a", (), after=("d1",)), Job("b", (), after=("d2",)), Job("c", (), after=("d1",))]
    arrays = grouped([*data, *runs])
    assert [[job.name for job in array] for array in arrays] == [["d1", "d2"], ["a", "c"], ["b"]]
