"""What `ropewalk plan` prints: plain values in, lines out."""

from collections.abc import Sequence
from typing import Any

from ropewalk.launch.plan.verdict import MARGIN, WORDS

GIB = 2**30


def page(phases: Sequence[dict[str, Any]]) -> str:
    """Each phase, and the sum of several."""
    parts = [phase_text(phase) for phase in phases]
    if len(phases) > 1:
        parts.append(_sum(phases))
    left_out = dict.fromkeys(note for phase in phases for note in phase["left_out"])
    parts.append("\n".join(["left out:", *(f"  {note}" for note in left_out)]))
    return "\n\n".join(parts)


def phase_text(phase: dict[str, Any]) -> str:
    usable, peak = phase["usable_bytes"], phase["peak_bytes"]
    gpu, host = phase["verdicts"]["gpu"], phase["verdicts"]["host"]
    lines = [
        f"{phase['phase']}: {phase['seq_len']:,} tokens on {phase['gpus']} x {phase['hardware']}: "
        f"{WORDS[phase['verdict']]}",
        f"  GPU: {_gib(peak['allocated'])} of tensors; the allocator holds "
        f"{_gib(peak['expandable'])} with expandable segments, {_gib(peak['native'])} without; "
        f"{_gib(usable)} can be used: {WORDS[gpu]}"
        + (f" (within {MARGIN:.0%})" if gpu == "too_close" else ""),
        f"  at the peak ({phase['peak_phase']}):",
        *(f"    {_gib(size):>11}  {name}" for name, size in phase["components"].items()),
    ]
    if "correction" in phase:
        lines.append(f"  corrected for this machine by {phase['correction']}")
    if phase["host_bytes"]:
        parts = ", ".join(f"{name} {_gib(n)}" for name, n in phase["host_components"].items())
        lines.append(
            f"  host memory of a node: {_gib(phase['host_bytes'])} pinned ({parts}), of "
            f"{_gib(phase['host_usable_bytes'])}: {WORDS[host]}"
        )
    parts = ", ".join(f"{name} {_gib(n)}" for name, n in phase["disk_components"].items())
    lines.append(f"  disk, at least: {_gib(phase['disk_bytes'])} ({parts})")
    return "\n".join([*lines, *_time_lines(phase), *_change_lines(phase)])


def _time_lines(phase: dict[str, Any]) -> list[str]:
    step, hours = phase["step_s"], phase["gpu_hours"]
    lines = [
        f"  a step of {phase['tokens_per_step']:,} tokens: {_seconds(step['low'])} at least "
        f"(ceiling: {phase['ceiling']}), {_seconds(step['likely'])} by rates that others reach, "
        f"up to {_seconds(step['high'])}",
        f"  {phase['tokens_per_s']:,.0f} tokens/s, MFU {phase['mfu']:.0%}",
    ]
    if phase["steps"]:
        total = phase["total_s"]
        lines.append(
            f"  {phase['steps']:,} steps: {_duration(total['low'])} to {_duration(total['high'])}, "
            f"{hours['low']:,.1f} to {hours['high']:,.1f} GPU-hours{cost([phase])}"
        )
    sent = [
        f"{one['kind']} of {one['tensor']} over {one['ranks']} ({one['link']}): "
        f"{one['times']} x {_mib(one['payload_bytes'])}, {_seconds(one['seconds'])}"
        for one in phase["communication"]
    ]
    return [*lines, *(["  sent in a step, alone:"] if sent else []), *(f"    {x}" for x in sent)]


def _change_lines(phase: dict[str, Any]) -> list[str]:
    if phase["changes"]:
        after = phase["changed"]
        return [
            "  the fewest changes that fit, traced again:",
            f"    {' '.join(phase['changes'])}",
            f"    then {_gib(after['peak_bytes']['expandable'])} of the GPU, "
            f"{_gib(after['host_bytes'])} of host memory a node, "
            f"{_seconds(after['step_s']['likely'])} a step",
        ]
    if "no_change" in phase:
        return [f"  {phase['no_change']}"]
    return []


def table(rows: Sequence[dict[str, Any]]) -> str:
    """One line for each length and number of GPUs; `error` in place of figures."""
    priced = any("cost" in row for row in rows)
    lines = [
        f"{'tokens':>10} {'GPUs':>5} {'tensors':>9} {'held':>9} {'host/node':>10} {'step':>9} "
        f"{'tokens/s':>10} {'MFU':>5} " + (f"{'cost':>10}" if priced else "") + " verdict"
    ]
    for row in rows:
        head = f"{row['seq_len']:>10,} {row['gpus']:>5}"
        if "error" in row:
            lines.append(f"{head} {row['message']}")
            continue
        peak = row["peak_bytes"]
        lines.append(
            f"{head} {_gib(peak['allocated']):>9} {_gib(peak['expandable']):>9} "
            f"{_gib(row['host_bytes']):>10} {_seconds(row['step_s']['likely']):>9} "
            f"{row['tokens_per_s']:>10,.0f} {row['mfu']:>5.0%} "
            + (f"{row['cost']['likely']:>10,.2f}" if priced else "")
            + f" {WORDS[row['verdict']]}"
        )
    by = dict.fromkeys(row["correction"] for row in rows if "correction" in row)
    return "\n".join([*lines, *(f"corrected for this machine by {one}" for one in by)])


def _sum(phases: Sequence[dict[str, Any]]) -> str:
    low, high = (sum(p["total_s"][key] for p in phases) for key in ("low", "high"))
    hours = [sum(p["gpu_hours"][key] for p in phases) for key in ("low", "high")]
    tokens = sum(p["steps"] * p["tokens_per_step"] for p in phases)
    return (
        f"all phases: {tokens:,} tokens, {_duration(low)} to {_duration(high)}, "
        f"{hours[0]:,.1f} to {hours[1]:,.1f} GPU-hours{cost(phases)}"
    )


def cost(phases: Sequence[dict[str, Any]]) -> str:
    """What they cost together; empty without a price."""
    if "cost" not in phases[0]:
        return ""
    low, high = (sum(phase["cost"][key] for phase in phases) for key in ("low", "high"))
    price, origin = phases[0]["price_per_gpu_hour"], phases[0]["price_from"]
    rate = f"{price:,.2f} each" + (f" ({origin})" if origin else "")
    return f", {low:,.2f} to {high:,.2f} at {rate}"


def _gib(size: float) -> str:
    return f"{size / GIB:,.1f} GiB" if size >= GIB / 20 else _mib(size)


def _mib(size: float) -> str:
    return f"{size / 2**20:,.1f} MiB"


def _seconds(value: float) -> str:
    return f"{value:,.1f} s" if value >= 1 else f"{value * 1000:,.1f} ms"


def _duration(value: float) -> str:
    if value < 120:
        return _seconds(value)
    return f"{value / 3600:,.1f} h" if value >= 7200 else f"{value / 60:,.0f} min"
