"""Batch scripts beside those that submitit itself submits, and as bash reads them."""

import os
import re
import shlex
import stat
import subprocess
import warnings
from pathlib import Path

import pytest

from ropewalk.conf.errors import ConfigError
from ropewalk.conf.launchers import LaunchConfig
from ropewalk.launch.cluster.script import Task, batch_script
from ropewalk.launch.cluster.submission import scripts_of, submit_script, write
from ropewalk.launch.config.compose import compose

OURS = {"chdir", "signal", "requeue", "output", "error", "wckey"}
"""Words of sbatch that differ from submitit's own on purpose."""
SITE = [
    *("launch.slurm.partition=gpu", "launch.slurm.account=lab", "launch.slurm.gpus_per_node=8"),
    *("launch.slurm.cpus_per_task=96", "launch.slurm.memory=200G", "launch.slurm.qos=high"),
    *("launch.slurm.time_limit=120", "launch.nodes=2"),
]


def launch(*words: str) -> LaunchConfig:
    return compose(["recipe=demo", "launch=slurm", *words]).launch


def words(text: str) -> dict[str, str]:
    """What sbatch reads: option and value."""
    lines = re.findall(r"^#SBATCH --([\w-]+)(?:=(.*))?$", text, re.M)
    return {key: " ".join(shlex.split(value)) for key, value in lines}


@pytest.fixture
def submitted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A PATH on which sbatch keeps a copy of each script in this folder."""
    programs, kept = tmp_path / "bin", tmp_path / "kept"
    programs.mkdir(), kept.mkdir()
    sbatch = f'#!/bin/sh\nfor f; do :; done\nn=$(ls {kept} | wc -l)\ncp "$f" {kept}/$n.sh\n'
    for name, text in {"sbatch": sbatch + "echo Submitted batch job 1$n\n", "srun": ""}.items():
        (programs / name).write_text(text or "#!/bin/sh\n")
        (programs / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{programs}:{os.environ['PATH']}")
    return kept


def test_a_script_asks_for_what_submitit_asks_for(submitted: Path, tmp_path: Path) -> None:
    import submitit

    executor = submitit.AutoExecutor(folder=tmp_path / "theirs", cluster="slurm")
    executor.update_parameters(
        name="mine",
        nodes=2,
        tasks_per_node=1,
        timeout_min=120,
        cpus_per_task=96,
        gpus_per_node=8,
        slurm_mem="200G",
        slurm_partition="gpu",
        slurm_account="lab",
        slurm_qos="high",
    )
    with warnings.catch_warnings(action="ignore"):
        executor.submit(print)
    theirs = words((submitted / "0.sh").read_text())
    ours = words(batch_script(launch(*SITE), Task("mine", ("true",)), str(tmp_path / "theirs")))
    assert {k: v for k, v in ours.items() if k not in OURS} == {
        k: v for k, v in theirs.items() if k not in OURS
    }
    assert len(theirs) > 12 and ours["signal"] == "USR1@300" and "requeue" in ours


def test_an_array_is_submitits(submitted: Path, tmp_path: Path) -> None:
    import submitit

    executor = submitit.AutoExecutor(folder=tmp_path, cluster="slurm")
    executor.update_parameters(slurm_array_parallelism=2)
    with warnings.catch_warnings(action="ignore"):
        executor.map_array(print, range(5))
    theirs = words((submitted / "0.sh").read_text())
    one = launch("launch.slurm.array_parallelism=2")
    ours = words(batch_script(one, Task("a", ("one", "two", "three", "four", "five")), "logs"))
    assert ours["array"] == theirs["array"] == "0-4%2"
    assert re.fullmatch(r"logs/job-%A_%a\.log", ours["output"])


def run_script(text: str, tmp_path: Path, **env: str) -> list[str]:
    """The words that bash gives to srun."""
    (tmp_path / "bin").mkdir(exist_ok=True)
    srun = tmp_path / "bin" / "srun"
    srun.write_text(f'#!/bin/sh\nprintf "%s\\n" "$@" > {tmp_path}/given\n')
    srun.chmod(0o755)
    path = f"{tmp_path / 'bin'}:{os.environ['PATH']}"
    subprocess.run(["bash", "-c", text], env={**os.environ, **env, "PATH": path}, check=True)
    return (tmp_path / "given").read_text().splitlines()


def test_bash_reads_the_words_as_they_were_typed(tmp_path: Path) -> None:
    typed = ["data.sources.a.path=/x/my docs", "name=it's", "phases=[{name: a, train.steps: 4}]"]
    (script,) = scripts_of(launch(), "it's", "run", typed, str(tmp_path))
    given = run_script(script.text, tmp_path)
    assert given[-5:-2] == typed and given[-2] == "launch=external"


def test_each_task_of_an_array_runs_its_own_command(tmp_path: Path) -> None:
    text = batch_script(launch(), Task("a", ("echo 'a b'", "echo c")), "logs")
    assert run_script(text, tmp_path, SLURM_ARRAY_TASK_ID="0")[-2:] == ["echo", "a b"]
    assert run_script(text, tmp_path, SLURM_ARRAY_TASK_ID="1")[-2:] == ["echo", "c"]


def test_shards_are_the_tasks_of_an_array_before_the_merge_and_the_run(tmp_path: Path) -> None:
    site = launch(
        *("launch.slurm.data.tasks=3", "launch.slurm.data.partition=cpu", *SITE),
    )
    shards, data, run = scripts_of(site, "r", "run", ["recipe=demo", "launch.nodes=2"], "logs")
    assert (data.after, run.after) == ((shards.name,), (data.name,))
    assert words(shards.text)["array"] == "0-2%3" and words(shards.text)["partition"] == "cpu"
    assert "gpus-per-node" not in words(data.text) and words(data.text)["nodes"] == "1"
    given = run_script(shards.text, tmp_path, SLURM_ARRAY_TASK_ID="2")
    assert given[-2:] == ["--shard", "2/3"] and "launch.nodes=1" in given
    assert "launch.nodes=2" not in given and "launch.nodes=2" in run_script(run.text, tmp_path)
    assert run_script(data.text, tmp_path)[-1] == "--merge"


def test_words_for_sbatch_are_not_those_of_the_command(tmp_path: Path) -> None:
    """Which starts no launcher, and would refuse them."""
    arguments = "launch.arguments=[--exclude=n3]"
    (script,) = scripts_of(launch(arguments), "r", "run", ["recipe=demo", arguments], "logs")
    assert "#SBATCH --exclude=n3" in script.text
    given = run_script(script.text, tmp_path)
    assert "launch.arguments=[]" in given and arguments not in given


@pytest.mark.parametrize(
    ("tasks", "names"), [(0, ["data"]), (1, ["data"]), (3, ["data-shards", "data"])]
)
def test_the_data_alone_need_no_gpus(tasks: int, names: list[str]) -> None:
    site = launch(f"launch.slurm.data.tasks={tasks}", *SITE)
    scripts = scripts_of(site, "r", "data", ["recipe=demo"], "logs")
    assert [script.name for script in scripts] == names
    assert all("gpus-per-node" not in words(script.text) for script in scripts)


def test_the_script_that_submits_by_hand_keeps_the_order(tmp_path: Path) -> None:
    scripts = scripts_of(launch("launch.slurm.data.tasks=2"), "r", "run", [], "logs")
    write(scripts, tmp_path / "slurm")
    (tmp_path / "bin").mkdir()
    sbatch = tmp_path / "bin" / "sbatch"
    sbatch.write_text(f'#!/bin/sh\necho "$@" >> {tmp_path}/calls\nwc -l < {tmp_path}/calls\n')
    sbatch.chmod(0o755)
    path = f"{tmp_path / 'bin'}:{os.environ['PATH']}"
    subprocess.run([tmp_path / "slurm" / "submit.sh"], env={"PATH": path}, check=True)
    assert (tmp_path / "calls").read_text().splitlines() == [
        "--parsable data-shards.sh",
        "--parsable --dependency=afterok:1 --kill-on-invalid-dep=yes data.sh",
        "--parsable --dependency=afterok:2 --kill-on-invalid-dep=yes run.sh",
    ]
    assert (tmp_path / "slurm" / "submit.sh").stat().st_mode & stat.S_IXUSR
    assert submit_script(scripts).count("sbatch --parsable") == 3


def test_variables_of_a_job_are_shown_and_the_users_come_last(tmp_path: Path) -> None:
    one = launch("launch.scratch=/local/$USER", "launch.env={TRITON_CACHE_DIR: $x, A: b c}")
    text = batch_script(one, Task("a", ("true",)), "logs").replace("srun", "env; srun")
    done = subprocess.run(
        ["bash", "-c", text], env={"PATH": os.environ["PATH"], "USER": "ann"}, capture_output=True
    )
    shown = done.stdout.decode().splitlines()
    assert {"TRITON_CACHE_DIR=$x", "A=b c", "TORCH_EXTENSIONS_DIR=/local/ann/extensions"} <= {
        *shown
    }


def test_words_after_the_dashes_overrule_ours() -> None:
    arguments = "launch.arguments=[--exclude=n3, --partition, other one]"
    lines = batch_script(launch(*SITE, arguments), Task("a", ("true",)), "logs").splitlines()
    own = lines.index("#SBATCH --partition=gpu")
    assert lines.index("#SBATCH --exclude=n3") > own
    assert lines.index("#SBATCH --partition 'other one'") > own


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (["launch.slurm.must_be_set=[account]"], "launch.slurm.account is unset; this site takes"),
        (["launch.slurm.time_limit=1d"], "launch.slurm.time_limit is 1d; it must be a time of"),
        (["launch.slurm.memory=lots"], "launch.slurm.memory is lots; it must be a whole number"),
        (["launch.slurm.must_be_set=[accuont]"], "must_be_set.0. is accuont; .*did you mean acc"),
    ],
)
def test_a_request_that_no_site_takes_is_refused(given: list[str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        launch(*given)


def test_what_a_site_wants_is_asked_for_only_where_a_job_is_submitted() -> None:
    assert compose(["recipe=demo", "launch.slurm.must_be_set=[account]"])
