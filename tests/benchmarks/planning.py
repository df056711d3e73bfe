"""What `ropewalk plan` would have said of published runs, beside what was published.

`make planning` writes the tables of docs/planning.md anew. The runs are in published_memory.yaml
and published_speeds.yaml. They are of other programs: parts of theirs (planning_peers.py) and their
settings are traced in place of ours; torch.compile and fp8 are not. Nothing is fitted.
"""

import argparse
import dataclasses
import json
import os
import re
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import common
import planning_cpu
from planning_points import KNOWN, Memory, Speed, config_of, point_of, points

DOCUMENT = common.ROOT / "docs" / "planning.md"
GIB = 2**30
WITHIN = 0.05
WITHIN_SPEED = 0.20


# -- in the children -------------------------------------------------------------------------------


def traced(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Peaks of points of one `Memory.group`."""
    import planning_peers

    from ropewalk.train.trace.plan import StepPlan
    from ropewalk.train.trace.step import trace_step

    given: list[Memory] = [point_of(Memory, row) for row in rows]
    for peer in given[0].peers:
        planning_peers.ALL[peer]()
    results = []
    for point in given:
        plan = StepPlan(config_of(point.model), point.documents, point.train(), point.gpus)
        trace = trace_step(plan)
        results.append({"allocated": trace.peak_bytes, **trace.reserved})
    return results


def timed(rows: Sequence[dict[str, Any]]) -> list[float]:
    """Tokens a second and GPU."""
    return [_speed(point_of(Speed, row)) for row in rows]


def _speed(point: Speed) -> float:
    halves = {"all": [(True, False)], "none": [(False, False)]}
    cases = halves.get(point.recomputes, [(True, True), (False, True)])
    seconds = sum(_seconds(point, again, kept) for again, kept in cases) / len(cases)
    tokens = point.tokens * point.sequences * point.micro_batches
    return tokens / point.sp_size / seconds


def _seconds(point: Speed, recomputes: bool, attention_kept: bool) -> float:
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    from ropewalk.conf import hardware_file
    from ropewalk.train.cost.flops import mlp_elements, model_cost
    from ropewalk.train.cost.layer_traffic import fused_layer_traffic, layer_traffic
    from ropewalk.train.cost.step_time import MEMORY_SHARE, Choices, Rates, step_time
    from ropewalk.train.cost.traffic import ParallelLayout, model_sizes
    from ropewalk.train.loss import chunk_tokens

    config = AutoConfig.for_model(**config_of(point.model))
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config)
    if point.lora:  # adapters of some permille are taken as nothing
        model.requires_grad_(False)
        next(iter(model.parameters())).requires_grad_(True)
    sizes = model_sizes(model)
    layout = ParallelLayout(
        point.gpus // point.sp_size,
        point.sp_size,
        point.zero_stage,
        point.micro_batches,
        point.tokens * point.sequences,
        checkpointing=recomputes,
        loss_chunk=chunk_tokens(sizes.vocabulary, "cuda"),
    )
    rates = Rates.of(hardware_file.load(point.hardware), is_fast=point.is_fast)
    if point.memory_tb_s:
        rates = dataclasses.replace(rates, memory=point.memory_tb_s * 1e12 * MEMORY_SHARE)
    traffic = fused_layer_traffic(config) if point.is_fused else layer_traffic(config)
    tiled = mlp_elements(model) if point.tiles else 0
    choices = Choices(attention_kept, tiled, point.is_fused)
    lengths = [point.tokens] * point.sequences
    return step_time(model_cost(model), sizes, traffic, layout, rates, choices, lengths).seconds


# -- in the parent ---------------------------------------------------------------------------------


def child(kind: str, given: Sequence[Any], variables: dict[str, str] | None = None) -> list[Any]:
    environment = os.environ | {"DS_ACCELERATOR": "cpu", "CUDA_VISIBLE_DEVICES": ""}
    environment |= variables or {}
    process = subprocess.run(
        [sys.executable, __file__, kind],
        input=json.dumps([asdict(point) for point in given]),
        capture_output=True,
        text=True,
        check=False,
        env=environment,
    )
    if process.returncode:
        raise RuntimeError(process.stderr)
    answers: list[Any] = json.loads(process.stdout.splitlines()[-1])
    return answers


def memory_rows(given: Sequence[Memory]) -> list[str]:
    """One line a run. nvml counts what the driver takes too, which the hardware file assumes."""
    from ropewalk.conf import hardware_file

    context = hardware_file.load("h100").context_mib.value * 2**20
    groups: dict[tuple[Any, ...], list[Memory]] = {}
    for point in given:
        groups.setdefault(point.group, []).append(point)
    answers: dict[str, dict[str, float]] = {}
    for number, members in enumerate(groups.values(), 1):
        names = [point.run for point in members]
        answers |= dict(zip(names, child("traced", members), strict=True))
        common.say(f"  {number} of {len(groups)}: {', '.join(names)}")
    lines, inside = [], 0
    for point in given:
        extra = 0 if point.kind in ("reserved", "allocated") else context
        parts = {name: size / GIB for name, size in answers[point.run].items()}
        for name in ("expandable", "native"):
            parts[name] += extra / GIB
        inside += point.held and is_inside(point.published, parts)
        lines.append(_memory_line(point, parts))
    held = sum(point.held for point in given)
    common.say(f"{len(given)} peaks; of {held} that are held to a bar {inside} lie inside")
    return lines


def is_inside(published: float, planned: dict[str, float]) -> bool:
    """Between what the allocator holds with expandable segments and without, or within 5%."""
    low, high = sorted((planned["expandable"], planned["native"]))
    return low * (1 - WITHIN) <= published <= high * (1 + WITHIN)


def _memory_line(point: Memory, parts: dict[str, float]) -> str:
    kinds = ("allocated", "expandable", "native")
    ratios = " / ".join(f"{parts[kind] / point.published:.2f}" for kind in kinds)
    figures = " | ".join(f"{parts[kind]:.1f}" for kind in kinds)
    published = f"{'<= ' if point.kind == 'limit' else ''}{point.published}"
    verdict = ("yes" if is_inside(point.published, parts) else "**no**") if point.held else ""
    return (
        f"| {point.run} | {published} | {point.kind} | {figures} | {ratios} | {verdict} | "
        f"{_source(point)} |"
    )


def speed_rows(given: Sequence[Speed]) -> list[str]:
    lines, near = [], 0
    for point, ours in zip(given, child("timed", given), strict=True):
        ratio = ours / point.tokens_per_s
        near += abs(ratio - 1) <= WITHIN_SPEED
        note = "; fp8 taken as bf16" * point.is_fp8
        lines.append(
            f"| {point.run} | {point.tokens_per_s:,.0f} | {ours:,.0f} | {ratio:.2f} | "
            f"{_source(point)}{note} |"
        )
    common.say(f"{len(given)} speeds, {near} of them within {WITHIN_SPEED:.0%}")
    return lines


def cpu_rows() -> list[str]:
    """Real steps on this machine's CPU."""
    lines = []
    for point, ours in zip(planning_cpu.STEPS, child("planned", planning_cpu.STEPS), strict=True):
        (real,) = child("measured", [point], planning_cpu.MALLOC)
        figures = f"{real / common.MIB:,.0f} | {ours / common.MIB:,.0f} | {ours / real:.3f}"
        lines.append(f"| {point.run} | {figures} |")
        common.say(lines[-1])
    return lines


def _source(point: Any) -> str:
    return KNOWN["sources"][point.source] + (f"; {point.note}" if point.note else "")


def write(name: str, lines: Sequence[str]) -> None:
    """Put a table between its marks in the document."""
    pattern, text = rf"(<!-- {name} -->\n).*?(<!-- end {name} -->)", DOCUMENT.read_text()
    new, count = re.subn(pattern, lambda m: m[1] + "\n".join(lines) + "\n" + m[2], text, flags=re.S)
    assert count == 1, name
    DOCUMENT.write_text(new)


def main(only: str) -> None:
    if only in ("", "cpu"):
        write("cpu", ["| step | measured MiB | plan | ratio |", "|--|--|--|--|", *cpu_rows()])
    if only in ("", "speed"):
        head = ["| run | published | plan | ratio | source |", "|--|--|--|--|--|"]
        rows = speed_rows(points(Speed, "published_speeds.yaml"))
        write("speed", [*head, *rows])
    if only in ("", "memory"):
        head = [
            "| run | published | kind | tensors | expandable | native | ratios | inside | source |",
            "|--|--|--|--|--|--|--|--|--|",
        ]
        rows = memory_rows(points(Memory, "published_memory.yaml"))
        write("memory", [*head, *rows])


PARTS = {
    "traced": traced,
    "timed": timed,
    "planned": planning_cpu.planned,
    "measured": planning_cpu.measured,
}

if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("part", nargs="?", choices=PARTS, help="in a child: values on stdin")
    parser.add_argument("--only", choices=("cpu", "memory", "speed"), default="", help="one table")
    arguments = parser.parse_args()
    if arguments.part is None:
        main(arguments.only)
    else:
        print(json.dumps(PARTS[arguments.part](json.load(sys.stdin))), flush=True)
        os._exit(0)  # a registered accelerator may not end in good order
