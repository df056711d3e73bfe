"""What `ropewalk plan` expects of the real step, found by a child while the ranks are at work.

`python -m ropewalk.launch.check.planned_step FOLDER RANKS GPU` prints it as a line of JSON. `GPU`:
the name that the driver reports, empty on a CPU.
"""

import json
import os
import subprocess
import sys
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any

from ropewalk.conf import check, hardware_file
from ropewalk.conf.errors import RopewalkError
from ropewalk.conf.model import ModelConfig
from ropewalk.conf.schema import Config
from ropewalk.launch.check.settings import real_step_settings
from ropewalk.launch.plan.ask import ENVIRONMENT, MARK
from ropewalk.train.launcher.process import die_with_parent

MODULE = "ropewalk.launch.check.planned_step"


@dataclass(frozen=True)
class Forecast:
    """Of the step of one rank."""

    peak_bytes: int = 0
    """Of tensors."""
    seconds: float = 0.0
    """0 without a hardware file."""
    hardware: str = ""
    """The name of that file."""
    problem: str = ""
    """Why nothing is known."""


class Child:
    """The child at work, while open."""

    def __init__(self, folder: Path, world_size: int, gpu: str) -> None:
        self.errors = TemporaryFile("w+")  # noqa: SIM115  it is the process's
        words = [sys.executable, "-m", MODULE, str(folder), str(world_size), gpu]
        environment = os.environ | ENVIRONMENT
        self.process: Any = subprocess.Popen(
            words, stdout=subprocess.PIPE, stderr=self.errors, text=True, env=environment
        )

    def __enter__(self) -> "Child":
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.wait()
        self.process.stdout.close()
        self.errors.close()

    def forecast(self) -> Forecast:
        """Wait for the answer."""
        for line in self.process.stdout:
            if line.startswith(MARK):
                return Forecast(**json.loads(line.removeprefix(MARK)))
        self.errors.seek(0)
        reason = self.errors.read().strip().splitlines()[-1:] or ["it said nothing"]
        return Forecast(problem=f"the step could not be traced: {reason[0]}")


def forecast(config: Config, folder: Path, world_size: int, gpu: str) -> Forecast:
    """By the plan's own functions. `folder`: with the config of two layers.

    For a process of its own. Raises: RopewalkError.
    """
    from ropewalk.launch.plan import forecast as plan
    from ropewalk.train.base import base_config, locate
    from ropewalk.train.trace.plan import StepPlan
    from ropewalk.train.trace.step import trace_step

    settings = real_step_settings(config, world_size)
    settings = replace(settings, model=ModelConfig(path=str(folder)))
    if hardware := hardware_file.name_of_device(gpu):
        question = plan.Question(settings, hardware_file.load(hardware), world_size)
        answer = plan.forecast(question)
        return Forecast(answer["peak_bytes"]["allocated"], answer["step_s"]["likely"], hardware)
    documents = (settings.data.seq_len,) * settings.train.micro_batch_size
    base = base_config(locate(settings.model, Path(settings.cache_dir).expanduser()))
    step = StepPlan(base.to_dict(), documents, asdict(settings.train), world_size)
    return Forecast(trace_step(step).peak_bytes)


if __name__ == "__main__":
    die_with_parent()
    here, count, name = Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
    try:
        answer = forecast(check.load(here.parent / "config.yaml"), here, count, name)
    except RopewalkError as error:
        answer = Forecast(problem=str(error))
    print(f"{MARK}{json.dumps(asdict(answer))}", flush=True)
