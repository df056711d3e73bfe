"""What a kind of device reaches, from its file: conf/hardware/NAME.yaml, or a user's own.

Every figure says where it comes from, when that was, and whether somebody measured it. Training
(MFU) and `ropewalk plan` read the same files.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass, fields
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any

import yaml
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from ropewalk.conf import rules
from ropewalk.conf.errors import ConfigError
from ropewalk.conf.rules import setting

FOLDER = Path(__file__).parent / "hardware"
KINDS = ("data_sheet", "measured", "assumed")


@dataclass(kw_only=True)
class Figure:
    """A number with its origin."""

    value: float = setting(above=0)
    kind: str = setting(one_of=KINDS)
    """data_sheet (the vendor's), measured (by somebody, on such a device) or assumed."""
    source: str = setting(way_out="name the page or the paper")
    """The page, paper or data sheet; of an assumed figure, what it follows from."""
    date: str = setting(way_out="e.g. 2026-11")
    """Year and month of the source, or of its reading."""


@dataclass(kw_only=True)
class Link:
    """What one GPU sends over a link, one way, by the size of a message."""

    gb_s: Figure
    """GB/s of the data sheet."""
    payloads_mib: list[float] = setting(factory=list, above=0)
    """Sizes of messages in MiB, rising, of which the rate was measured."""
    rates_gb_s: list[float] = setting(factory=list, above=0)
    """GB/s that a GPU sends over the link at each of `payloads_mib`, one way; inside a node the
    bus bandwidth of an all-reduce."""
    kind: str = setting("assumed", one_of=KINDS)
    source: str = setting("no curve", way_out="name the page or the paper")
    date: str = setting("2026-11", way_out="e.g. 2026-11")

    def rate_gb_s(self, message_bytes: float) -> float:
        """The measured rate at a size, between two of them along a line in logarithms, and never
        above the data sheet; without a curve the data sheet's."""
        points = list(zip(self.payloads_mib, self.rates_gb_s, strict=True))
        if not points:
            return self.gb_s.value
        size = max(message_bytes / 2**20, 1e-6)
        if size <= points[0][0]:
            return min(points[0][1], self.gb_s.value)
        for (left, low), (right, high) in pairwise(points):
            if size <= right:
                share = math.log(size / left) / math.log(right / left)
                return min(low * (high / low) ** share, self.gb_s.value)
        return min(points[-1][1], self.gb_s.value)

    def problems(self, prefix: str) -> Iterator[str]:
        sizes = self.payloads_mib
        if len(sizes) != len(self.rates_gb_s) or sorted(set(sizes)) != sizes:
            yield (
                f"{prefix}payloads_mib is {sizes}; the sizes must rise, and each must have one of "
                f"{prefix}rates_gb_s {self.rates_gb_s}; give as many of both"
            )


@dataclass(kw_only=True)
class Hardware:
    """One GPU, and the node that it stands in."""

    device_names: list[str] = setting(factory=list)
    """Parts of the name that torch reports for the device."""
    gpus_per_node: int = setting(8, at_least=1)
    memory_mib: Figure
    """Memory of the GPU in MiB, as the driver reports it."""
    context_mib: Figure
    """What the driver, cuBLAS and NCCL take of it before the first tensor."""
    bf16_tflops: Figure
    """Dense bf16 of the data sheet: what MFU is a share of."""
    matmul_tflops: Figure
    """What the best large bf16 product reaches."""
    attention_forward_tflops: Figure
    """A causal pass of torch's own varlen kernel (flash-attn 2), head size 128, from 16K tokens."""
    attention_backward_tflops: Figure
    fast_attention_forward_tflops: Figure
    """The same of the fastest kernel that the device has: flash-attn 3 or 4; else as above."""
    fast_attention_backward_tflops: Figure
    memory_tb_s: Figure
    """Bandwidth of the GPU's memory, of the data sheet."""
    host_link_gb_s: Figure
    """Pinned copies between host and GPU, each way."""
    host_ram_gib: Figure
    """Memory of a node."""
    link: Link
    """To the GPUs of the same node."""
    network: Link
    """To other nodes, each GPU's share."""

    @property
    def memory_bytes(self) -> int:
        return int(self.memory_mib.value * 2**20)

    @property
    def usable_bytes(self) -> int:
        """What torch's allocator can reserve."""
        return int((self.memory_mib.value - self.context_mib.value) * 2**20)


def names() -> list[str]:
    """The devices that have a file here."""
    return sorted(path.stem for path in FOLDER.glob("*.yaml"))


def load(name: str) -> Hardware:
    """The hardware of a name here, or of a file of the user's own (`*.yaml`).

    Raises: ConfigError for an unknown name, with the fields that a file has; for a file that lacks
    one or breaks a rule, with every problem.
    """
    path = Path(name).expanduser() if name.endswith((".yaml", ".yml")) else FOLDER / f"{name}.yaml"
    if not path.is_file():
        raise ConfigError(unknown(name))
    return read(path)


def unknown(name: str) -> str:
    """The message for hardware that has no file: the file to write."""
    return (
        f"--hardware is {name}; it must be one of {', '.join(names())}, or a file; write one such "
        f"as my_gpu.yaml, with {', '.join(_keys(Hardware))}; start from {FOLDER / 'h100.yaml'}"
    )


def _keys(section: Any) -> Iterator[str]:
    """The fields of a file, a figure's in braces."""
    for item in fields(section):
        if item.type is Figure:
            yield f"{item.name}: {{{', '.join(f.name for f in fields(Figure))}}}"
        elif item.type is Link:
            yield f"{item.name}: {{{', '.join(f.name for f in fields(Link))}}}"
        else:
            yield item.name


@cache
def read(path: Path) -> Hardware:
    """Raises: ConfigError."""
    try:
        values = yaml.safe_load(path.read_text())
        hardware: Any = OmegaConf.to_object(
            OmegaConf.merge(OmegaConf.structured(Hardware), OmegaConf.create(values))
        )
    except (OmegaConfBaseException, yaml.YAMLError, OSError, ValueError) as error:
        reason = str(error).splitlines()[0]
        raise ConfigError(
            f"--hardware is {path.name}; it must have {', '.join(_keys(Hardware))}; {reason}"
        ) from error
    if lines := list(rules.problems(hardware, f"{path.name}: ")):
        raise ConfigError("\n".join(lines))
    return hardware  # type: ignore[no-any-return]


def name_of_device(device_name: str) -> str | None:
    """The file's name by the name that torch reports; the longest name that fits counts."""
    lower = device_name.lower()
    fitting = [
        (len(part), name)
        for name in names()
        for part in load(name).device_names
        if part.lower() in lower
    ]
    return max(fitting)[1] if fitting else None


def of_device(device_name: str) -> Hardware | None:
    """The hardware by the name that torch reports."""
    name = name_of_device(device_name)
    return None if name is None else load(name)
