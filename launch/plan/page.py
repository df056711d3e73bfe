"""A page of its own: what `ropewalk plan` prints, and the memory of one step over time."""

from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import Any

from ropewalk.conf.artifacts.records import write_text
from ropewalk.eval.report.figures.style import (
    COLOURS,
    SHADES,
    SLOTS,
    Drawing,
    styled_figure,
    thousands,
    ticks,
    to_svg,
)
from ropewalk.launch.plan import text

GIB = 2**30
AREAS = (*SHADES, *SLOTS)
"""Colours of the components, the largest at the peak first."""
DARK = {
    "ink": "#e8eaec",
    "muted": "#a3adb6",
    "line": "#3a4148",
    "paper": "#16191d",
}
"""Where it differs from the light colours."""


def write(path: Path, phases: Sequence[dict[str, Any]]) -> None:
    """Write the page of all phases."""
    figures = "\n".join(
        f"<figure>{memory(phase, number)}</figure>" for number, phase in enumerate(phases)
    )
    light, dark = (_variables(colours) for colours in (COLOURS, DARK))
    path.parent.mkdir(parents=True, exist_ok=True)
    write_text(
        path,
        "<!doctype html>\n"
        '<html lang="en"><head><meta charset="utf-8"><title>ropewalk plan</title>\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<style>:root {{{light}}} @media (prefers-color-scheme: dark) {{:root {{{dark}}}}}\n"
        "body {max-width: 70rem; margin: 2rem auto; padding: 0 1rem; background: var(--paper); "
        "color: var(--ink); font-family: system-ui, sans-serif} "
        "pre {overflow-x: auto} svg {width: 100%; height: auto}</style></head>\n"
        f"<body><h1>Plan</h1>\n{figures}\n<pre>{escape(text.page(phases))}</pre></body></html>\n",
    )


def _variables(colours: dict[str, str]) -> str:
    return " ".join(f"--{name}: {colour};" for name, colour in colours.items())


def memory(phase: dict[str, Any], number: int = 0) -> Drawing:
    """Bytes of tensors through one step, by what they hold, below what the device has."""
    curve = phase["curve"]
    components = sorted(
        {name for point in curve for name in point["bytes"]},
        key=lambda name: -max(point["bytes"].get(name, 0) for point in curve),
    )
    at = [point["at"] for point in curve]
    layers = [[p["bytes"].get(name, 0) / GIB for p in curve] for name in components]
    with styled_figure(9, 4.2) as figure:
        axes = figure.subplots()
        colours = [COLOURS[AREAS[n % len(AREAS)]] for n in range(len(components))]
        axes.stackplot(at, layers, labels=components, colors=colours, linewidth=0)
        usable = phase["usable_bytes"] / GIB
        axes.axhline(usable, color=COLOURS["ink"], linewidth=1, linestyle=(0, (3, 3)))
        style: dict[str, Any] = {"xytext": (0, 3), "textcoords": "offset points", "size": 9}
        axes.annotate(f"{usable:,.1f} GiB can be used", (0, usable), **style)
        _name_phases(axes, curve)
        axes.set(xlim=(0, 1), ylabel="GiB of one GPU", xlabel="one step, by allocations")
        axes.set_xticks([])
        axes.yaxis.set_major_locator(ticks(6))
        thousands(axes.yaxis)
        axes.legend(loc="upper left", bbox_to_anchor=(1, 1), reverse=True)
        axes.set_title(f"{phase['phase']}, {phase['seq_len']:,} tokens")
        label = f"Memory of one GPU through a step of {phase['seq_len']} tokens, by what it holds"
        return to_svg(figure, f"plan-{number}", label)


def _name_phases(axes: Any, curve: Sequence[dict[str, Any]]) -> None:
    """Where the loss, the backward pass and the optimizer begin."""
    seen = {"batch", "step", "end", ""}
    for point in curve:
        if point["phase"] in seen:
            continue
        seen.add(point["phase"])
        axes.axvline(point["at"], color=COLOURS["line"], linewidth=0.8)
        style: dict[str, Any] = {"xytext": (2, -10), "textcoords": "offset points", "size": 8}
        label = {"xycoords": ("data", "axes fraction"), "color": COLOURS["muted"]}
        axes.annotate(point["phase"], (point["at"], 1), **style, **label)
