"""Whether the ranks run the same software on the same devices, and agree on the time."""

from collections.abc import Sequence

from ropewalk.launch.check.facts import HostFacts
from ropewalk.launch.check.line import Line

MOST_SKEW_S = 5.0
"""Beyond it, times in logs mislead and a shared disk's times lie in the future."""


def equal_lines(facts: Sequence[HostFacts]) -> list[Line]:
    """`facts`: of every rank, taken at the same moment."""
    return [_versions(facts), _devices(facts), _clocks(facts)]


def _versions(facts: Sequence[HostFacts]) -> Line:
    names = dict.fromkeys(name for x in facts for name in x.versions)
    values = {name: [x.versions.get(name, "not installed") for x in facts] for name in names}
    differ = {name: per_rank for name, per_rank in values.items() if len(set(per_rank)) > 1}
    apart = "; ".join(f"{name} is {_by_rank(x, facts)}" for name, x in differ.items())
    return Line.judged(
        "versions",
        not differ,
        apart or f"{len(names)} equal on {len(facts)} ranks, torch {facts[0].versions['torch']}",
        "equal on all ranks",
        "install the same environment on every host, or start all ranks from one that is shared",
    )


def _devices(facts: Sequence[HostFacts]) -> Line:
    kinds = [_device(x) for x in facts]
    return Line.judged(
        "devices",
        len(set(kinds)) == 1,
        kinds[0] if len(set(kinds)) == 1 else _by_rank(kinds, facts),
        "the same model, memory and driver on all ranks",
        "ask for one kind of node; the slowest device sets the pace of all",
    )


def _device(facts: HostFacts) -> str:
    gpu = facts.gpu
    if not gpu:
        return "CPU"
    driver = f", driver {gpu['driver']}" if "driver" in gpu else ""
    return f"{gpu['name']} of {gpu['bytes'] / 2**30:.0f} GiB{driver}"


def _clocks(facts: Sequence[HostFacts]) -> Line:
    """Facts were taken right after a barrier, so what differs beyond its duration is skew."""
    latest, earliest = max(facts, key=lambda x: x.clock), min(facts, key=lambda x: x.clock)
    skew = latest.clock - earliest.clock
    return Line.judged(
        "clocks",
        skew <= MOST_SKEW_S,
        f"{skew:.2f} s apart at most"
        + (f" ({latest.host} is ahead of {earliest.host})" if skew > MOST_SKEW_S else ""),
        f"within {MOST_SKEW_S:g} s",
        "let chrony or systemd-timesyncd set the clocks of all hosts",
    )


def _by_rank(values: Sequence[str], facts: Sequence[HostFacts]) -> str:
    """`2.14.1 on ranks 0, 1, 2; 2.13.0 on rank 3 (node-b)`"""
    parts = []
    for value in dict.fromkeys(values):
        ranks = [x for x, other in zip(facts, values, strict=True) if other == value]
        numbers = ", ".join(str(x.rank) for x in ranks[:8]) + (", ..." if len(ranks) > 8 else "")
        hosts = ", ".join(sorted({x.host for x in ranks})[:4])
        parts.append(f"{value} on rank{'s' if len(ranks) > 1 else ''} {numbers} ({hosts})")
    return " and ".join(parts)
