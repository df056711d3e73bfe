"""How NCCL moves payloads inside a host and between hosts, against what the hosts have."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from ropewalk.conf.hardware_file import Hardware
from ropewalk.launch.check.line import Line
from ropewalk.launch.check.nccl_log import NcclLog

NAME = "transport"
WAY_OUT = (
    "in a host: unset NCCL_P2P_DISABLE, turn ACS off in the BIOS, give the container all GPUs of "
    "the job; between hosts: unset NCCL_IB_DISABLE, mount /dev/infiniband and the provider's "
    "library into the container, or name the devices by NCCL_IB_HCA"
)


@dataclass(frozen=True)
class Chosen:
    """Of one rank."""

    host: str
    rank: int
    log: NcclLog
    rdma: list[str]
    """Devices of its host with an active port."""


def transport_line(ranks: Sequence[Chosen], hardware: Hardware | None) -> Line:
    """`hardware`: of the ranks' device; None where it has no file."""
    if len(ranks) == 1:
        return Line.skipped(NAME, "a single rank exchanges nothing")
    if not any(rank.log.ways for rank in ranks):
        return Line.skipped(NAME, "NCCL wrote no log that names a channel")
    several = len({rank.host for rank in ranks}) > 1
    problems = [*_inside(ranks, hardware), *(_between(ranks) if several else ())]
    return Line.judged(
        NAME,
        not problems,
        "; ".join(problems[:4]) or _summary(ranks, several),
        "direct between GPUs that a link joins, RDMA between hosts that have it",
        WAY_OUT,
    )


def _inside(ranks: Sequence[Chosen], hardware: Hardware | None) -> Iterator[str]:
    """Where the link between GPUs is faster than that to the host, the detour is a fault. A rank
    that reaches some directly may be bridged to one other GPU alone, as of PCIe cards."""
    if hardware is None or hardware.link.gb_s.value <= 2 * hardware.host_link_gb_s.value:
        return
    for rank in ranks:
        count = _channels(rank.log, "SHM")
        if count and not _channels(rank.log, "P2P"):
            yield (
                f"rank {rank.rank} on {rank.host} sends {count} channels through the host's memory "
                "(SHM), though a link joins its GPUs"
            )


def _between(ranks: Sequence[Chosen]) -> Iterator[str]:
    for rank in ranks:
        is_socket = rank.log.network == "Socket" or _channels(rank.log, "NET/Socket")
        if rank.rdma and is_socket:
            yield (
                f"rank {rank.rank} on {rank.host} sends through sockets "
                f"({', '.join(rank.log.devices) or rank.log.interface}), though its host has "
                f"{', '.join(rank.rdma)}"
            )


def _channels(log: NcclLog, way: str) -> int:
    return sum(count for name, count in log.ways.items() if name.startswith(way))


def _summary(ranks: Sequence[Chosen], several: bool) -> str:
    """Every way that some rank uses, and what leads out of the host."""
    ways = sorted({way for rank in ranks for way in rank.log.ways})
    text = ", ".join(ways)
    first = ranks[0].log
    if several:
        devices = ", ".join(first.devices)
        text += f"; network {first.network}" + (f" ({devices})" if devices else "")
        if any(way.startswith("NET/IB") and "GDR" not in way for way in ways):
            text += ", not all of it from the GPU's memory (no GPUDirect)"
    return f"{text}; met by {first.interface}" if first.interface else text
