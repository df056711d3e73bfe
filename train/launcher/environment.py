"""The environment of the ranks, on this machine and on others.

DeepSpeed's runner starts the ranks of other machines through a remote shell, which has an
environment of its own. What Python itself reads goes into the shell's command, in the form of
DeepSpeed's `.deepspeed_env`; all else goes by a file that only the user can read, since a command
line is seen by every user of a machine, and these variables hold keys of services.
"""

import json
import os
import re
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from ropewalk.conf.errors import ConfigError, RopewalkError
from ropewalk.train.memory.pinned_memory import ALLOCATOR_SETTING

LAUNCHER_VARIABLE = re.compile(
    r"(OMPI_|OPAL_|PMI_|PMIX_|I_MPI_|MPI_|MPIEXEC_|HYDI_|HYDRA_|MV2_COMM_|SLURM_|SLURMD_|PALS_|ALPS_"
    r"|TORCHELASTIC_|PET_)"
    r"|(RANK|LOCAL_RANK|GROUP_RANK|ROLE_RANK|ROLE_NAME|CROSS_RANK|CROSS_SIZE|LOCAL_SIZE"
    r"|WORLD_SIZE|LOCAL_WORLD_SIZE|GROUP_WORLD_SIZE|ROLE_WORLD_SIZE|NODE_RANK)$"
)
"""What Open MPI, MPICH, Intel MPI, MVAPICH, Slurm, Cray and torchrun set for their processes."""

SHELL_VARIABLE = re.compile(r"(LD_LIBRARY_PATH|LD_PRELOAD|PYTHON[A-Z0-9_]*|LANG|LC_ALL)$")
"""Read before a rank could read a file."""

RANK_VARIABLE = re.compile(
    r"(CUBLAS|CUDA_|CUDNN_|NCCL_|GLOO_|UCX_|FI_|TORCH|PYTORCH_|TRITON_|OMP_|GOMP_|KMP_|MKL_"
    r"|TOKENIZERS_|HF_|HUGGING_?FACE_|TRANSFORMERS_|WANDB_|TENSORBOARD_|DS_|DEEPSPEED_|ROPEWALK_|SSL_CERT_"
    r"|REQUESTS_CA_BUNDLE$|XDG_CACHE_HOME$|(https?|no|all)_proxy$|(HTTPS?|NO|ALL)_PROXY$)"
)
OF_ONE_MACHINE = {"CUDA_VISIBLE_DEVICES", "DS_ENV_FILE", "DS_ACCELERATOR"}

FILE_VARIABLE = "ROPEWALK_RANK_ENVIRONMENT"
FILE = "environment.json"
UNQUOTABLE = re.compile(r'["$`\\\n\r]')
"""In the double quotes that DeepSpeed puts around a value."""


def environment() -> dict[str, str]:
    """The environment of the ranks on this machine, and of what starts them.

    A thread that spins beside a busy neighbour makes every step several times slower, measured.
    """
    import torch

    env = without_leftovers(os.environ)
    if not torch.cuda.is_available():
        env["DS_ACCELERATOR"] = "cpu"
    env.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    env.setdefault("GOMP_SPINCOUNT", "0")
    env["TOKENIZERS_PARALLELISM"] = "false"
    # `python -m` would import a profile.py or queue.py of the working folder
    env["PYTHONSAFEPATH"] = "1"
    if not {"PYTORCH_ALLOC_CONF", "PYTORCH_CUDA_ALLOC_CONF"} & env.keys():
        # blocks that grow: the parts of a step differ in size from batch to batch
        env["PYTORCH_ALLOC_CONF"] = f"expandable_segments:True,{ALLOCATOR_SETTING}"
    return env


def without_leftovers(env: Mapping[str, str]) -> dict[str, str]:
    """`env` without what another launcher tells its own processes, and without empty entries of
    PYTHONPATH, which mean the working folder.

    DeepSpeed and others read a rank's number from these variables, and would take the number of
    this command's process within a job of Slurm or MPI for that of a rank.
    """
    clean = {name: value for name, value in env.items() if not LAUNCHER_VARIABLE.match(name)}
    if "PYTHONPATH" in clean:
        entries = filter(None, clean["PYTHONPATH"].split(os.pathsep))
        clean["PYTHONPATH"] = os.pathsep.join(entries)
    return clean


@contextmanager
def sent_to_hosts(env: Mapping[str, str], folder: Path) -> Iterator[dict[str, str]]:
    """`env` for DeepSpeed's runner, so that it reaches the ranks of every host.

    `folder`: on a disk that all hosts share. It holds the file with the variables until all ranks
    have read it, at most while this is open. Raises: ConfigError for a value that no remote shell
    gets unchanged.
    """
    file = folder / FILE
    own = {n: v for n, v in env.items() if RANK_VARIABLE.match(n) and n not in OF_ONE_MACHINE}
    shell = {name: value for name, value in env.items() if SHELL_VARIABLE.match(name)}
    # DeepSpeed puts the working folder in front of it, unless it is said last
    shell = {"PYTHONPATH": "", **shell, FILE_VARIABLE: str(file.resolve())}
    lines = [*_users_lines(env), *(_shell_line(name, value) for name, value in shell.items())]
    write_private(file, json.dumps(own))
    with tempfile.NamedTemporaryFile("w", suffix=".deepspeed_env") as exports:
        exports.write("".join(f"{line}\n" for line in lines))
        exports.flush()
        try:
            yield {**env, "DS_ENV_FILE": exports.name}
        finally:
            file.unlink(missing_ok=True)


def write_private(path: Path, text: str) -> None:
    """A new file that only this user can read."""
    path.unlink(missing_ok=True)
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        file.write(text)


def _users_lines(env: Mapping[str, str]) -> Iterator[str]:
    """Of the user's own `.deepspeed_env`, which DeepSpeed would read in place of ours."""
    name = env.get("DS_ENV_FILE", ".deepspeed_env")
    for path in (Path.home() / name, Path(name)):
        if path.is_file():
            yield from filter(str.strip, path.read_text(encoding="utf-8").splitlines())


def _shell_line(name: str, value: str) -> str:
    if UNQUOTABLE.search(value):
        raise ConfigError(
            f"{name} is {value!r}; with train.launcher.hostfile it goes through a remote shell, "
            'where it must have no line break and none of " $ ` \\; change it'
        )
    return f"{name}={value}"


def take_sent() -> None:
    """In a rank, before torch: the variables that the command sent; and one rank's share of the
    cores, where the user says no number of threads.

    Raises: RopewalkError when the file is not there.
    """
    if (name := os.environ.get(FILE_VARIABLE)) is not None:
        try:
            os.environ |= json.loads(Path(name).read_text(encoding="utf-8"))
        except OSError as error:
            raise RopewalkError(
                f"{name} cannot be read ({error.strerror}); the run folder must be on a disk that "
                "all hosts of train.launcher.hostfile share"
            ) from error
    os.environ.setdefault("OMP_NUM_THREADS", str(threads_of_a_rank()))


def threads_of_a_rank() -> int:
    """This process's cores over the ranks of its machine."""
    cores = len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1
    return max(1, cores // int(os.environ.get("LOCAL_SIZE", "1")))


def remove_sent() -> None:
    """Once all ranks have read it."""
    if (name := os.environ.get(FILE_VARIABLE)) is not None:
        Path(name).unlink(missing_ok=True)
