"""What calibrate measured: loss by position of every method before any training, and the way of the search. Figures and sentences."""

from collections.abc import Mapping, Sequence
from itertools import accumulate
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ropewalk.eval.report.figures.style import (
    COLOURS,
    Kwargs,
    Rows,
    column,
    styled,
    thousands,
    ticks,
    to_svg,
)

EMPHASISED = {"none": "base", "calibrated": "extended", "yarn": "rescaled"}
OTHERS = ("s0", "s2", "s3", "s4", "s1", "s5")
SEARCHERS = {"paper": "base", "ramp": "rescaled", "longrope": "extended"}


def figures(found: Mapping[str, Any]) -> dict[str, str | None]:
    if not found:
        return {"methods": None, "search": None}
    return {"methods": methods(found), "search": search(found)}


def colours(names: Sequence[str]) -> dict[str, str]:
    """A colour of the page for each method; what matters most has the three of the report."""
    rest = iter(OTHERS * (1 + len(names) // len(OTHERS)))
    return {name: COLOURS[EMPHASISED.get(name) or next(rest)] for name in names}


def methods(found: Mapping[str, Any]) -> str:
    """Mean loss of each bin of positions: all on one scale, and closer around those that held beyond the window."""
    with styled():
        figure = Figure(figsize=(9, 6.6), layout="constrained")
        whole, close = figure.subplots(2, 1, sharex=True, height_ratios=[1.0, 1.3])
        for axes in (whole, close):
            _draw_methods(axes, found["methods"], found["base_window"])
        close.set_ylim(*_close(found["methods"]))
        close.set_title("the same, closer", color=COLOURS["muted"], size=9)
        close.set_xlabel("position (tokens)")
        thousands(close.xaxis)
        whole.legend(ncols=4, frameon=False, fontsize=9, loc="lower left", bbox_to_anchor=(0, 1))
        return to_svg(
            figure, "calibration", "Loss by position of each scaling method without training"
        )


def _draw_methods(axes: Axes, measured: Mapping[str, Any], window: int) -> None:
    for name, colour in colours(list(measured)).items():
        rows = measured[name]["nll_by_position"]
        x = (column(rows, "from") + column(rows, "to")) / 2
        strong = name in EMPHASISED
        shape: Kwargs = {
            "linewidth": 2.2 if strong else 1.3,
            "marker": "o" if strong else "",
            "markersize": 3,
        }
        axes.plot(
            x, column(rows, "nll"), color=colour, label=name, zorder=3 if strong else 2, **shape
        )
        if name == "calibrated":
            axes.fill_between(
                x, column(rows, "low"), column(rows, "high"), color=colour, alpha=0.15, linewidth=0
            )
    axes.axvspan(0, window, color=COLOURS["shade"], zorder=0, linewidth=0)
    axes.set_ylabel("nats per token")
    axes.yaxis.set_major_locator(ticks(6))


def _close(measured: Mapping[str, Any]) -> tuple[float, float]:
    """Bounds around the calibrated line and the paper's YaRN."""
    values = np.concatenate(
        [column(measured[n]["nll_by_position"], "nll") for n in ("calibrated", "yarn")]
    )
    low, high = float(np.nanmin(values)), float(np.nanmax(values))
    margin = 0.15 * (high - low) or 0.1
    return low - margin, high + margin


def search(found: Mapping[str, Any]) -> str:
    """Every whole trial by what it cost so far, the lowest until then, and the paper's YaRN."""
    trials = found["trials"]
    at = list(accumulate(t["passes"] for t in trials))
    whole = [(x, t) for x, t in zip(at, trials, strict=True) if t.get("value") is not None]
    with styled():
        figure = Figure(figsize=(9, 3.6), layout="constrained")
        axes = figure.subplots()
        for name, colour in SEARCHERS.items():
            points = [(x, t["value"]) for x, t in whole if t["searcher"] == name]
            if points:
                axes.plot(
                    *zip(*points, strict=True), "o", color=COLOURS[colour], label=name, markersize=4
                )
        lowest = list(accumulate((t["value"] for _, t in whole), min))
        axes.step(
            [x for x, _ in whole],
            lowest,
            where="post",
            color=COLOURS["ink"],
            linewidth=1.2,
            label="lowest so far",
        )
        axes.set_ylim(*_near(lowest, [t["value"] for _, t in whole]))
        axes.set_xlabel("forward passes of a whole stretch")
        axes.set_ylabel("inside and beyond, nats")
        axes.legend(frameon=False, fontsize=9)
        return to_svg(figure, "search", "What the search measured")


def _near(lowest: Sequence[float], values: Sequence[float]) -> tuple[float, float]:
    """From below the best to above the middle: PI far up would flatten the rest."""
    low, high = min(lowest), max(float(np.median(values)), lowest[0])
    margin = 0.1 * (high - low) or 0.05
    return low - margin, high + 2 * margin


def reading(found: Mapping[str, Any]) -> str | None:
    """What was chosen, on how much, and what it is worth."""
    if not found:
        return None
    spent, chosen, on = found["budget"], found["chosen"], found["reported_on"]
    name = chosen["settings"]["method"]
    words = [
        f"{k} {v:.4g}"
        for k, v in chosen["settings"].items()
        if isinstance(v, float) and k != "factor"
    ]
    kept = f" The paper's settings stand, for {chosen['kept']}." if chosen.get("kept") else ""
    return (
        f"Chosen: trial {chosen['trial']} ({chosen['searcher']}: {name}{', ' if words else ''}{', '.join(words)}), after "
        f"{spent['trials']} trials and {spent['spent']:.0f} forward passes, {spent['pruned']} pruned at a short prefix. On "
        f"{on['windows']} stretches of {on['documents']} documents that were not searched on: {found['verdict']}.{kept}"
    )


def rows(found: Mapping[str, Any]) -> Rows:
    """The table: each method inside, beyond, and its paired difference to the reference."""
    return [{"name": name, **measured} for name, measured in (found.get("methods") or {}).items()]
