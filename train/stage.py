"""The train stage as launch sees it: starts the ranks through DeepSpeed's launcher, waits, publishes what they made."""

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

from transformers import PreTrainedConfig

from ropewalk.conf.errors import STOPPED, ConfigError, RopewalkError, Stopped
from ropewalk.conf.manifest import Manifest, read_json, run_stage, stands, temporary_of
from ropewalk.conf.schema import Config, content
from ropewalk.train import failure, ulysses
from ropewalk.train.checkpoint import folder as checkpoints
from ropewalk.train.loop import STOP
from ropewalk.train.mesh import refuse_unfit


def run(config: Config, inputs: dict[str, Any], output: Path) -> tuple[Manifest, str]:
    """`inputs`: the fingerprints of the base, rope plan and data that this training starts from.

    Raises: Stopped (run again to resume), RopewalkError with the ranks' exit code, ProofError.
    """
    decides = {
        "inputs": inputs,
        "seed": config.seed,
        "train": content(config.train),
        "seq_len": config.data.seq_len,
    }

    if not stands("train", decides, output):
        _refuse_other_checkpoints(output, decides)

    def work(temporary: Path) -> dict[str, Any]:
        (temporary / STOP).unlink(missing_ok=True)
        if not (temporary / "done.json").is_file():
            launch(config, temporary.parent, temporary)
        _finish(temporary)
        _reload(config, temporary)
        return read_json(temporary / "done.json")  # type: ignore[no-any-return]

    done = run_stage("train", decides, output, work, resumable=True)
    if (output / STOP).exists():  # asked when no step was left to stop after
        (output / STOP).unlink()
        raise Stopped(f"train is done, and stopped before what comes after it; {_again(config)}")
    return done


def _again(config: Config) -> str:
    return requeue() if config.train.requeue else "run the same command again to resume"


def _refuse_other_checkpoints(output: Path, decides: dict[str, Any]) -> None:
    """An unfinished training of other settings is not thrown away unasked. Raises: ConfigError with the first difference."""
    for name, facts in checkpoints.found(temporary_of(output) / "checkpoints")[:1]:
        checkpoints.refuse_other(name, facts["content"], json.loads(json.dumps(decides)))


def _finish(temporary: Path) -> None:
    """The tokenizer goes with the model, so that the exported folder is whole."""
    for file in (temporary.parent / "data" / "tokenizer").iterdir():
        (temporary / "model" / file.name).write_bytes(file.read_bytes())


def _reload(config: Config, temporary: Path) -> None:
    """What was exported, as a reader loads it. Raises: ProofError, before anything is published."""
    from ropewalk.train.model import load_trained
    from ropewalk.train.rope.plan import RopePlan

    plan = RopePlan.read(temporary.parent / "rope.json")
    load_trained(temporary / "model", plan, dtype="auto", attention_kernel=config.train.attention)


def launch(config: Config, run_dir: Path, temporary: Path) -> None:
    """Run the ranks to their end. SIGINT, SIGTERM, SIGHUP and Slurm's SIGUSR1 ask them to save and stop."""
    (temporary / failure.NOTE).unlink(missing_ok=True)
    # Slurm sends it to every process of a step: DeepSpeed's launcher, which inherits this, must live on
    usr1 = signal.signal(signal.SIGUSR1, signal.SIG_IGN)
    process = subprocess.Popen(command(config, run_dir), env=environment(config), start_new_session=True)

    def ask(*_: Any) -> None:
        if (temporary / STOP).exists():  # asked twice: now
            os.killpg(process.pid, signal.SIGKILL)
        (temporary / STOP).touch()
        with suppress(OSError):  # the terminal may be what has gone
            print("stopping after this step with a checkpoint (once more: at once)", file=sys.stderr, flush=True)

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
        raise _ended(config, temporary, code)


def _ended(config: Config, temporary: Path, code: int) -> RopewalkError:
    """What the ranks' end means. A rank that left a note counts by that: it may have been torn down with another code on its way out."""
    note = failure.read(temporary)
    code = int(note["exit_code"]) if note else code
    # by the signal itself, before a rank was there to notice it
    early = code in (-signal.SIGTERM, 256 - signal.SIGTERM) and (temporary / STOP).exists()
    if code == STOPPED or early:
        return Stopped(f"train stopped in good order{' before its first step' if early else ''}; {_again(config)}")
    first = f"; {failure.named(note)} was the first" if note else ""
    error = RopewalkError(f"train: the ranks ended with exit code {code}{first}; what they said is above")
    error.exit_code = code if code in (2, 3) else 1
    return error


def requeue() -> str:
    """Put this Slurm job into its queue again; what was done, or why not."""
    job = os.environ.get("SLURM_JOB_ID")
    if job is None:
        return "train.requeue is True, but this is no Slurm job; run the same command again to resume"
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


def processes(config: Config) -> int:
    """Ranks on this machine: one a GPU, or one."""
    import torch

    return config.train.processes or max(1, torch.cuda.device_count())


def world_size(config: Config) -> int:
    """Ranks on all machines. Raises: ConfigError when the hostfile is not there: DeepSpeed would train on this machine alone."""
    if config.train.hostfile is None:
        return processes(config)
    file = Path(config.train.hostfile).expanduser()
    if not file.is_file():
        raise ConfigError(f"train.hostfile is {config.train.hostfile}; no such file; correct the path, or unset it")
    hosts = [line for line in file.read_text().splitlines() if line.strip() and not line.lstrip().startswith("#")]
    return len(hosts) * processes(config)


def refuse_unfit_ranks(config: Config, base: PreTrainedConfig) -> str | None:
    """What is known of the ranks before there are any. Returns a line of warning, None without cause. Raises: ConfigError."""
    train, world = config.train, world_size(config)
    refuse_missing_devices(config)
    refuse_unfit(world, train.sp_size, train.zero_hpz_size)
    ulysses.refuse_unfit_heads(base, train.sp_size, world)
    if train.sp_size <= processes(config):
        return None
    return (
        f"train.sp_size is {train.sp_size}, more than the {processes(config)} ranks of a machine: every layer's exchange of heads goes "
        "through the network"
    )


def refuse_missing_devices(config: Config) -> None:
    """More ranks than devices would take those that a scheduler keeps from this job. Raises: ConfigError."""
    import torch

    there = torch.cuda.device_count()
    if config.train.hostfile is None and 0 < there < processes(config):
        raise ConfigError(
            f"train.processes is {processes(config)}; each rank needs a device of its own, and {there} are visible "
            f"(CUDA_VISIBLE_DEVICES); set train.processes={there}, or unset it"
        )


def command(config: Config, run_dir: Path) -> list[str]:
    """DeepSpeed's launcher, also for one process. Ranks come by the environment, not by a flag.

    Its `runner` reads a hostfile and starts `launch` on each machine; on one machine it would only cost its imports, and `node` is
    `launch` with our answer to signals.
    """
    hostfile, count = config.train.hostfile, processes(config)
    if hostfile:
        where = ["deepspeed.launcher.runner", "--hostfile", str(Path(hostfile).expanduser()), "--num_gpus", str(count)]
    else:
        where = ["ropewalk.train.node", "--world_info", world_info(count), "--master_addr", "127.0.0.1"]
    return [
        *(sys.executable, "-m", *where, "--master_port", str(_free_port())),
        *("--log_level", "error", "--no_local_rank", "--module", "ropewalk.train", str(run_dir.resolve())),
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
        env.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // processes(config))))
    # a spinning thread beside a busy neighbour makes every step wait: several times slower, measured
    env.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    env.setdefault("GOMP_SPINCOUNT", "0")
    env["TOKENIZERS_PARALLELISM"] = "false"
    return env
