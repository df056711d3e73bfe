"""vLLM in another process: started, asked, ended."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ropewalk.conf.errors import ConfigError, RopewalkError

SERVER = Path(__file__).with_name("server.py")
OF_A_RANK = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
"""What a rank's environment says of its process group, which is not vLLM's."""
END_TIMEOUT_S = 60.0


class Vllm:
    """A running vLLM."""

    def __init__(self, process: "subprocess.Popen[str]") -> None:
        self.process = process

    def generate(self, prompts: Sequence[list[int]], max_tokens: Sequence[int]) -> list[list[int]]:
        """The new tokens of each prompt. Raises: RopewalkError when the process has ended."""
        line = self._ask({"prompts": list(prompts), "max_tokens": list(max_tokens)})
        if not line:
            code = self.process.wait(END_TIMEOUT_S)
            raise RopewalkError(
                f"eval.backend is vllm; its process ended with exit code {code}; its messages are "
                "above; set eval.backend=transformers to do without it"
            )
        answer: list[list[int]] = json.loads(line)
        return answer

    def _ask(self, message: Mapping[str, Any]) -> str:
        """The answer; empty where there is none."""
        stdin, stdout = self.process.stdin, self.process.stdout
        assert stdin is not None and stdout is not None
        try:
            stdin.write(json.dumps(message) + "\n")
            stdin.flush()
        except BrokenPipeError:
            return ""
        return stdout.readline()


@contextmanager
def started(python: str | None, job: Mapping[str, Any], device: int | None) -> Iterator[Vllm]:
    """vLLM for `job` (see server.py). `device`: the GPU of this rank; None: all that are visible.

    Its memory is free again at the end. Raises: ConfigError without its interpreter.
    """
    interpreter = str(Path(python).expanduser()) if python else sys.executable
    env = {name: value for name, value in os.environ.items() if name not in OF_A_RANK}
    if device is not None:
        env["CUDA_VISIBLE_DEVICES"] = visible(device, env.get("CUDA_VISIBLE_DEVICES"))
    pipe = subprocess.PIPE
    command = [interpreter, "-P", str(SERVER)]  # without the script's folder on the path
    try:
        process = subprocess.Popen(command, env=env, stdin=pipe, stdout=pipe, text=True)
    except OSError as error:
        raise ConfigError(
            f"eval.vllm.python is {python}; it must be the interpreter of an environment with "
            f"vLLM ({error.strerror}); set its path"
        ) from error
    try:
        assert process.stdin is not None
        process.stdin.write(json.dumps(job) + "\n")
        yield Vllm(process)
    finally:
        _end(process)


def _end(process: "subprocess.Popen[str]") -> None:
    """At the end of its input the process ends by itself, and vLLM's own with it."""
    try:
        process.communicate(timeout=END_TIMEOUT_S)
    except (subprocess.TimeoutExpired, BrokenPipeError):
        process.kill()
        process.wait()


def visible(device: int, before: str | None) -> str:
    """CUDA_VISIBLE_DEVICES of one device, numbered among those visible `before`."""
    return before.split(",")[device] if before else str(device)
