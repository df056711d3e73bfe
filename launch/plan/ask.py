"""From configurations to children that trace them, and back."""

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from tempfile import TemporaryFile
from typing import Any

from ropewalk.conf import errors
from ropewalk.conf.check import to_yaml
from ropewalk.conf.errors import RopewalkError
from ropewalk.conf.schema import Config

ENVIRONMENT = {"CUDA_VISIBLE_DEVICES": "", "DS_ACCELERATOR": "cpu", "OMP_NUM_THREADS": "1"}
MARK = "answer: "
"""Before each answer of a child: libraries may print beside it."""
FORMULA = (
    "a lower bound by formula: 2 bytes of weights, 4 of gradients and 12 of states a parameter in "
    "bf16, each divided by the ranks from ZeRO 3, 2 and 1 on, and 2 bytes x layers x tokens of a "
    "rank x hidden size for the layers' inputs"
)


@dataclass(frozen=True)
class Asked:
    """One question, for a child."""

    config: Config
    hardware: str
    gpus: int
    is_try: bool = False
    """Of a search; see forecast.Question."""
    corrected: bool = True
    """By what `ropewalk check` measured on this machine."""

    @property
    def ranks(self) -> tuple[int, int]:
        """Of all, and of a sequence: a child's process groups are of one such pair."""
        return self.gpus, self.config.train.sp_size

    def values(self) -> dict[str, Any]:
        return {
            "config": to_yaml(self.config),
            "hardware": self.hardware,
            "gpus": self.gpus,
            "is_try": self.is_try,
            "corrected": self.corrected,
        }


class Child:
    """A process that answers one question after the other."""

    def __init__(self) -> None:
        self.errors = TemporaryFile("w+")  # noqa: SIM115  it is the process's
        self.process = subprocess.Popen(
            [sys.executable, "-m", "ropewalk.launch.plan"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self.errors,
            text=True,
            env=os.environ | ENVIRONMENT,
        )

    def answer(self, asked: Asked) -> dict[str, Any]:
        """A forecast, or an error. Raises: RopewalkError when the child ends without."""
        assert self.process.stdin is not None and self.process.stdout is not None
        try:
            self.process.stdin.write(json.dumps(asked.values()) + "\n")
            self.process.stdin.flush()
        except BrokenPipeError:
            pass  # it ended, and has said why
        for line in self.process.stdout:
            if line.startswith(MARK):
                answer: dict[str, Any] = json.loads(line.removeprefix(MARK))
                return answer
        self.errors.seek(0)
        reason = self.errors.read().strip().splitlines()[-1:] or ["it said nothing"]
        raise RopewalkError(f"the model could not be traced: {reason[0]}; {FORMULA}")

    def end(self) -> None:
        if self.process.stdin is not None:
            self.process.stdin.close()
        self.process.kill()
        self.process.wait()
        self.errors.close()


class Tracers:
    """Children, one for each pair of numbers of ranks; the first loads its libraries at once."""

    def __init__(self) -> None:
        self.spare: Child | None = Child()
        self.children: dict[tuple[int, int], Child] = {}

    def __enter__(self) -> "Tracers":
        return self

    def __exit__(self, *_: object) -> None:
        for child in filter(None, [self.spare, *self.children.values()]):
            child.end()

    def __call__(self, asked: Sequence[Asked]) -> list[dict[str, Any]]:
        """The answers in order: forecasts, or errors. Raises: RopewalkError."""
        return [self._child(one.ranks).answer(one) for one in asked]

    def _child(self, ranks: tuple[int, int]) -> Child:
        if ranks not in self.children:
            self.children[ranks] = self.spare or Child()
            self.spare = None
        return self.children[ranks]


def or_raise(answer: dict[str, Any]) -> dict[str, Any]:
    """Raises: the error that an answer holds."""
    if "error" not in answer:
        return answer
    kind = getattr(errors, answer["error"], RopewalkError)
    raise kind(answer["message"])
