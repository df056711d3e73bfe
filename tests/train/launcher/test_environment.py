"""The ranks of other machines get the environment that those of this one have.

DeepSpeed's own runner is run; `ssh` and `pdsh` are stand-ins that start what they are given in an
empty environment, as a remote shell does.
"""

import json
import os
import stat
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from ropewalk.conf.errors import ConfigError, RopewalkError
from ropewalk.conf.schema import Config
from ropewalk.launch.config.compose import compose
from ropewalk.train.launcher import environment as env_module
from ropewalk.train.launcher import ranks
from ropewalk.train.launcher.command import command
from ropewalk.train.launcher.environment import sent_to_hosts, take_sent, threads_of_a_rank

SECRET = "k\"$HOME`x`\\n' of wandb"
SET = {
    "WANDB_API_KEY": SECRET,
    "HF_TOKEN": "hf_secret",
    "HF_HOME": "/data/hf home",
    "NCCL_SOCKET_IFNAME": "ib0",
    "TORCH_NCCL_AVOID_RECORD_STREAMS": "1",
    "PYTORCH_ALLOC_CONF": "max_split_size_mb:512",
    "LD_LIBRARY_PATH": "/opt/cuda/lib64:/opt/my libs",
    "OMP_NUM_THREADS": "7",
}
SSH = "#!/bin/sh\necho 127.0.0.1\n"
# pdsh -S -f N -w HOSTS COMMAND...: the command in a new environment on each host, %n its number
PDSH = """\
#!{python}
import json, os, subprocess, sys
rest = sys.argv[sys.argv.index("-w") + 1:]
hosts, line = rest[0].split(","), " ".join(rest[1:])
with open("{folder}/pdsh.json", "w") as file:
    json.dump([hosts, line], file)
started = [
    subprocess.Popen(["env", "-i", "HOME=/", "PATH=/usr/bin:/bin", "sh", "-c", {program}])
    for n in range(len(hosts))
]
sys.exit(max(process.wait() for process in started))
"""
# what the shell reads before the launcher, then a rank's first act
READ = """\
exports := line.partition("cd ")[0]) + "exec {python} -c '" + '''
import json, os, stat, sys
from ropewalk.train.launcher.environment import take_sent
before = dict(os.environ)
mode = stat.S_IMODE(os.stat(os.environ["ROPEWALK_RANK_ENVIRONMENT"]).st_mode)
take_sent()
with open("{folder}/host-" + sys.argv[1] + ".json", "w") as file:
    json.dump([mode, before, dict(os.environ)], file)
''' + f"' {{n}}\""""
WHOLE = 'line.replace("%n", str(n))'


@pytest.fixture
def cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Config]:
    """Two hosts, and a user with variables and an own `.deepspeed_env`."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.delenv("PYTHONPATH", raising=False)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    for name, value in SET.items():
        monkeypatch.setenv(name, value)
    (tmp_path / ".deepspeed_env").write_text("OWN_OF_USER=as said\n\n")
    (tmp_path / "hostfile").write_text("worker-1 slots=1\nworker-2 slots=1\n")
    (tmp_path / "train.tmp").mkdir()
    yield compose(
        [
            "recipe=demo",
            f"train.launcher.hostfile={tmp_path}/hostfile",
            "train.launcher.ranks_per_node=1",
        ]
    )


def write_programs(folder: Path, program: str) -> None:
    pdsh = PDSH.format(python=sys.executable, folder=folder, program=program)
    for name, text in {"ssh": SSH, "pdsh": pdsh}.items():
        (folder / name).write_text(text)
        (folder / name).chmod(0o755)


def test_every_host_gets_the_environment_and_no_command_line_or_file_shows_a_secret(
    tmp_path: Path, cluster: Config
) -> None:
    reading = READ.format(python=sys.executable, folder=tmp_path)
    write_programs(tmp_path, f"({reading}")
    ranks.launch(cluster, tmp_path, tmp_path / "train.tmp")
    hosts, line = json.loads((tmp_path / "pdsh.json").read_text())
    assert hosts == ["worker-1", "worker-2"]
    assert SECRET not in line and "hf_secret" not in line
    for n in range(2):
        mode, before, after = json.loads((tmp_path / f"host-{n}.json").read_text())
        assert mode == 0o600
        assert before["LD_LIBRARY_PATH"] == SET["LD_LIBRARY_PATH"]
        assert (before["PYTHONSAFEPATH"], before["PYTHONPATH"]) == ("1", "")
        assert before["OWN_OF_USER"] == "as said"
        assert SET.items() <= after.items()
        assert after["TOKENIZERS_PARALLELISM"] == "false" and after["OMP_WAIT_POLICY"] == "PASSIVE"
        assert not {"CUDA_VISIBLE_DEVICES", "DS_ACCELERATOR"} & after.keys()
    left = [path.name for path in (tmp_path / "train.tmp").iterdir()]
    assert "environment.json" not in left


@pytest.mark.slow
def test_ranks_of_two_hosts_meet(
    tmp_path: Path, cluster: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Through DeepSpeed's runner and its launcher on each host, to ranks that join and sum."""
    (tmp_path / "stand_in.py").write_text(
        "import os, sys\n"
        "from ropewalk.train.launcher.environment import take_sent\n"
        "take_sent()\n"
        "import torch, torch.distributed as dist\n"
        "from ropewalk.train.zero.mesh import end_distributed, start_distributed\n"
        "start_distributed(60)\n"
        "value = torch.ones(1)\n"
        "dist.all_reduce(value)\n"
        'line = f\'{value.item()} {os.environ["HF_TOKEN"]} {os.environ["CROSS_RANK"]}\'\n'
        "open(f'{sys.argv[1]}/rank-' + os.environ['RANK'], 'w').write(line)\n"
        "end_distributed()\n"
    )
    write_programs(tmp_path, WHOLE)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))

    def stand_in_command(config: Config, run_dir: Path) -> list[str]:
        arguments = command(config, run_dir)
        arguments[arguments.index("ropewalk.train")] = "stand_in"
        return arguments

    monkeypatch.setattr(ranks, "command", stand_in_command)
    ranks.launch(cluster, tmp_path, tmp_path / "train.tmp")
    read = [(tmp_path / f"rank-{n}").read_text() for n in range(2)]
    assert read == ["2.0 hf_secret 0", "2.0 hf_secret 1"]


def test_a_value_that_a_remote_shell_would_change_is_refused(tmp_path: Path) -> None:
    with (
        pytest.raises(ConfigError, match="LD_LIBRARY_PATH is '/a:.HOME/b'; with train.launcher"),
        sent_to_hosts({"LD_LIBRARY_PATH": "/a:$HOME/b"}, tmp_path),
    ):
        pass
    assert not list(tmp_path.iterdir())


def test_the_file_is_the_users_alone_whatever_lay_there(tmp_path: Path) -> None:
    (tmp_path / env_module.FILE).write_text("an older one")
    (tmp_path / env_module.FILE).chmod(0o644)
    old_mask = os.umask(0)
    try:
        with sent_to_hosts({"HF_TOKEN": "x"}, tmp_path) as env:
            for path in (tmp_path / env_module.FILE, Path(env["DS_ENV_FILE"])):
                assert stat.S_IMODE(path.stat().st_mode) == 0o600
    finally:
        os.umask(old_mask)


def test_a_host_without_the_run_folder_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(env_module.FILE_VARIABLE, "/nowhere/environment.json")
    with pytest.raises(RopewalkError, match="the run folder must be on a disk that all hosts"):
        take_sent()


def test_ranks_share_the_cores_with_a_gpu_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """As many threads on each host as it has cores for a rank; the user's own number stays."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(96)))
    monkeypatch.setenv("LOCAL_SIZE", "8")
    assert threads_of_a_rank() == 12
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    take_sent()
    assert os.environ.pop("OMP_NUM_THREADS") == "12"
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    take_sent()
    assert os.environ["OMP_NUM_THREADS"] == "3"


def test_the_allocator_grows_its_blocks_unless_the_user_says_how(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("PYTORCH_ALLOC_CONF", raising=False)
    settings = env_module.environment()["PYTORCH_ALLOC_CONF"]
    assert settings == "expandable_segments:True,pinned_max_round_threshold_mb:1"
    monkeypatch.setenv("PYTORCH_CUDA_ALLOC_CONF", "backend:native")
    assert "PYTORCH_ALLOC_CONF" not in env_module.environment()
    # torch's own parser takes it, and refuses a word that it does not know
    torch._C._accelerator_setAllocatorSettings(settings)
    with pytest.raises(ValueError, match="Unrecognized key"):
        torch._C._accelerator_setAllocatorSettings("expandable_segment:True")
