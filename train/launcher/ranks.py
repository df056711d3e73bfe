""""""

import base64
import json
import os
import signal
import socket
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

from ropewalk.conf.errors import STOPPED, ConfigError, RopewalkError, Stopped
from ropewalk.conf.schema import Config
from ropewalk.train.launcher import failure
from ropewalk.train.launcher.stop import STOP


def _how_to_resume(config: Config) -> str:
    return requeue() if config.train.launcher.requeue else "run the same command again to resume"


def launch(config: Config, run_dir: Path, temporary: Path) -> None:
    """Run the ranks to their end. SIGINT, SIGTERM, SIGHUP and Slurm's SIGUSR1 ask them to save and stop."""
    (temporary / failure.NOTE).unlink(missing_ok=True)
    # Slurm sends it to every process of a step: DeepSpeed's launcher, which inherits this, must live on
    usr1 = signal.signal(signal.SIGUSR1, signal.SIG_IGN)
    process = subprocess.Popen(
        command(config, run_dir), env=environment(config), start_new_session=True
    )

    def ask(*_: Any) -> None:
        if (temporary / STOP).exists():  # asked twice: now
            os.killpg(process.pid, signal.SIGKILL)
        (temporary / STOP).touch()
        with suppress(OSError):  # the terminal may be what has gone
            print(
                "stopping after this step with a checkpoint (once more: at once)",
                file=sys.stderr,
                flush=True,
            )

    asking = [signal.SIGINT, signal.SIGTERM, signal.SIGUSR1]
    if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:  # as nohup leaves it
        asking.append(signal.SIGHUP)
    before = {number: signal.signal(number, ask) for number in asking}
    before[signal.SIGUSR1] = usr1
    try:
        code = process.wait()
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    if code:
        raise _error_of(config, temporary, code)


def _error_of(config: Config, temporary: Path, code: int) -> RopewalkError:
    """What the ranks' end means. A rank that left a note counts by that: it may have been torn down with another code on its way out."""
    note = failure.read(temporary)
    code = int(note["exit_code"]) if note else code
    # by the signal itself, before a rank was there to notice it
    early = code in (-signal.SIGTERM, 256 - signal.SIGTERM) and (temporary / STOP).exists()
    if code == STOPPED or early:
        return Stopped(
            f"train stopped in good order{' before its first step' if early else ''}; {_how_to_resume(config)}"
        )
    first = f"; {failure.named(note)} was the first" if note else ""
    error = RopewalkError(
        f"train: the ranks ended with exit code {code}{first}; what they said is above"
    )
    error.exit_code = code if code in (2, 3) else 1
    return error


def requeue() -> str:
    """Put this Slurm job into its queue again; what was done, or why not."""
    job = os.environ.get("SLURM_JOB_ID")
    if job is None:
        return "train.launcher.requeue is True, but this is no Slurm job; run the same command again to resume"
    try:
        said = subprocess.run(["scontrol", "requeue", job], capture_output=True, text=True)
    except OSError as error:
        return f"scontrol did not start ({error}); submit the job again to resume"
    why = said.stderr.strip() or f"exit code {said.returncode}"
    return (
        f"job {job} is queued again"
        if not said.returncode
        else f"scontrol requeue {job}: {why}; submit it again to resume"
    )


def ranks_per_node(config: Config) -> int:
    """Ranks on this machine: one a GPU, or one."""
    import torch

    return config.train.launcher.ranks_per_node or max(1, torch.cuda.device_count())


def world_size(config: Config) -> int:
    """Ranks on all machines. Raises: ConfigError when the hostfile is not there: DeepSpeed would train on this machine alone."""
    if config.train.launcher.hostfile is None:
        return ranks_per_node(config)
    file = Path(config.train.launcher.hostfile).expanduser()
    if not file.is_file():
        raise ConfigError(
            f"train.launcher.hostfile is {config.train.launcher.hostfile}; no such file; correct the path, or unset it"
        )
    hosts = [
        line
        for line in file.read_text().splitlines()
        if line.strip() and not line.lstrip().startswith("#")
    ]
    return len(hosts) * ranks_per_node(config)


def command(config: Config, run_dir: Path) -> list[str]:
    """DeepSpeed's launcher, also for one process. Ranks come by the environment, not by a flag.

    Its `runner` reads a hostfile and starts `launch` on each machine; on one machine it would only cost its imports, and `node` is
    `launch` with our answer to signals.
    """
    hostfile, count = config.train.launcher.hostfile, ranks_per_node(config)
    if hostfile:
        where = [
            "deepspeed.launcher.runner",
            "--hostfile",
            str(Path(hostfile).expanduser()),
            "--num_gpus",
            str(count),
        ]
    else:
        where = [
            "ropewalk.train.launcher.node",
            "--world_info",
            world_info(count),
            "--master_addr",
            "127.0.0.1",
        ]
    return [
        *(sys.executable, "-m", *where, "--master_port", str(_free_port())),
        *(
            "--log_level",
            "error",
            "--no_local_rank",
            "--module",
            "ropewalk.train",
            str(run_dir.resolve()),
        ),
    ]


def world_info(count: int) -> str:
    """This machine's devices as `launch` takes them: a rank each, of those that CUDA_VISIBLE_DEVICES leaves if it is set."""
    visible = [name for name in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if name]
    devices = visible[:count] if len(visible) >= count else list(range(count))
    return base64.urlsafe_b64encode(json.dumps({"localhost": devices}).encode()).decode()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def environment(config: Config) -> dict[str, str]:
    """Threads shared fairly between ranks; more than cores, busy waiting makes a CPU run ten times slower."""
    import torch

    env = dict(os.environ)
    if not torch.cuda.is_available():
        env["DS_ACCELERATOR"] = "cpu"
        env.setdefault(
            "OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // ranks_per_node(config)))
        )
    # a spinning thread beside a busy neighbour makes every step wait: several times slower, measured
    env.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    env.setdefault("GOMP_SPINCOUNT", "0")
    env["TOKENIZERS_PARALLELISM"] = "false"
    return env
