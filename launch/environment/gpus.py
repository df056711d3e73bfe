"""The GPUs that the driver lists: by nvidia-ml-py where it is installed, else by nvidia-smi."""

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib.util import find_spec

from ropewalk.conf.artifacts.free_space import gib
from ropewalk.launch.environment.answers import NoAnswerError, child_json, output_of

NVML = "ropewalk.launch.environment.nvml"
QUERY = ("name", "memory.total", "driver_version", "compute_cap", "uuid")


@dataclass(frozen=True)
class Gpu:
    """One GPU."""

    name: str
    memory_bytes: int
    capability: tuple[int, int] | None
    uuid: str = ""
    """For CUDA_VISIBLE_DEVICES; not shown."""

    def __str__(self) -> str:
        major, minor = self.capability or (0, 0)
        known = f"{major}.{minor}" if self.capability else "unknown"
        return f"{self.name}, {gib(self.memory_bytes)}, compute capability {known}"


@dataclass(frozen=True)
class Gpus:
    """What the driver says."""

    gpus: Sequence[Gpu] = field(default_factory=tuple)
    driver: str = ""
    source: str = ""
    problem: str = ""
    """Why there are none, or why none can be seen."""


def listed() -> Gpus:
    """All GPUs of the machine."""
    problems = []
    if find_spec("pynvml") is not None:
        try:
            return of_nvml(child_json(NVML))
        except NoAnswerError as error:
            problems.append(str(error))
    if shutil.which("nvidia-smi"):
        try:
            arguments = [f"--query-gpu={','.join(QUERY)}", "--format=csv,noheader,nounits"]
            return of_nvidia_smi(output_of(["nvidia-smi", *arguments]))
        except (NoAnswerError, ValueError) as error:
            problems.append(str(error))
    none = "no NVIDIA driver: neither nvidia-ml-py nor nvidia-smi is here"
    return Gpus(problem="; ".join(problems) or none)


def of_nvml(answer: Mapping[str, object]) -> Gpus:
    """The answer of nvml.py."""
    if problem := answer.get("problem"):
        return Gpus(source="nvidia-ml-py", problem=str(problem))
    rows: list[tuple[str, int, Sequence[int], str]] = answer["gpus"]  # type: ignore[assignment]
    gpus = [Gpu(name, memory, (c[0], c[1]), uuid) for name, memory, c, uuid in rows]
    return Gpus(gpus, str(answer["driver"]), "nvidia-ml-py")


def of_nvidia_smi(text: str) -> Gpus:
    """Lines of `nvidia-smi --query-gpu`. Raises: ValueError for other lines."""
    rows = [[cell.strip() for cell in line.split(",")] for line in text.splitlines() if line]
    gpus = []
    for row in rows:
        if len(row) != len(QUERY):
            raise ValueError(f"nvidia-smi printed {','.join(row)[:100]}")
        name, mib, _, capability, uuid = row
        major, _, minor = capability.partition(".")
        known = (int(major), int(minor)) if (major + minor).isdecimal() else None
        size = int(mib) << 20 if mib.isdecimal() else 0
        gpus.append(Gpu(name, size, known, uuid))
    return Gpus(gpus, rows[0][2] if rows else "", "nvidia-smi")


def visible(gpus: Sequence[Gpu], devices: str | None) -> list[Gpu]:
    """Those that CUDA_VISIBLE_DEVICES leaves; CUDA ends at the first word that names none."""
    if devices is None:
        return list(gpus)
    result = []
    for word in map(str.strip, devices.split(",")):
        by_uuid = [gpu for gpu in gpus if word.startswith("GPU-") and gpu.uuid.startswith(word)]
        if word.isdecimal() and int(word) < len(gpus):
            result.append(gpus[int(word)])
        elif by_uuid:
            result.append(by_uuid[0])
        else:
            break
    return result
