"""The calibration on the page: loss by position of every method, the search, one sentence."""

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


def figures(calibration: Mapping[str, Any]) -> dict[str, str | None]:
    if not calibration:
        return {"methods": None, "search": None}
    return {"methods": methods(calibration), "search": search(calibration)}


def colours(names: Sequence[str]) -> dict[str, str]:
    """A colour for each method; the emphasised ones have the three model colours."""
    others = iter(OTHERS * (1 + len(names) // len(OTHERS)))
    return {name: COLOURS[EMPHASISED.get(name) or next(others)] for name in names}


def methods(calibration: Mapping[str, Any]) -> str:
    """Mean loss of each bin of positions, in full and closer around the best methods."""
    with styled():
        figure = Figure(figsize=(9, 6.6), layout="constrained")
        full, close = figure.subplots(2, 1, sharex=True, height_ratios=[1.0, 1.3])
        for axes in (full, close):
            _draw_methods(axes, calibration["methods"], calibration["base_window"])
        close.set_ylim(*_close(calibration["methods"]))
        close.set_title("the same, closer", color=COLOURS["muted"], size=9)
        close.set_xlabel("position (tokens)")
        thousands(close.xaxis)
        full.legend(ncols=4, frameon=False, fontsize=9, loc="lower left", bbox_to_anchor=(0, 1))
        return to_svg(
            figure, "calibration", "Loss by position of each scaling method without training"
        )


def _draw_methods(axes: Axes, measured: Mapping[str, Any], window: int) -> None:
    for name, colour in colours(list(measured)).items():
        rows = measured[name]["nll_by_position"]
        x = (column(rows, "from") + column(rows, "to")) / 2
        emphasised = name in EMPHASISED
        style: Kwargs = {
            "linewidth": 2.2 if emphasised else 1.3,
            "marker": "o" if emphasised else "",
            "markersize": 3,
        }
        axes.plot(
            x, column(rows, "nll"), color=colour, label=name, zorder=3 if emphasised else 2, **style
        )
        if name == "calibrated":
            axes.fill_between(
                x, column(rows, "low"), column(rows, "high"), color=colour, alpha=0.15, linewidth=0
            )
    axes.axvspan(0, window, color=COLOURS["shade"], zorder=0, linewidth=0)
    axes.set_ylabel("nats per token")
    axes.yaxis.set_major_locator(ticks(6))


def _close(measured: Mapping[str, Any]) -> tuple[float, float]:
    """y limits around the calibrated curve and YaRN with its paper's settings."""
    values = np.concatenate(
        [column(measured[n]["nll_by_position"], "nll") for n in ("calibrated", "yarn")]
    )
    low, high = float(np.nanmin(values)), float(np.nanmax(values))
    margin = 0.15 * (high - low) or 0.1
    return low - margin, high + margin


def search(calibration: Mapping[str, Any]) -> str:
    """Every trial that was not pruned, by passes spent, and the lowest value so far."""
    trials = calibration["trials"]
    spent = accumulate(trial["passes"] for trial in trials)
    points = [(x, t) for x, t in zip(spent, trials, strict=True) if t.get("value") is not None]
    with styled():
        figure = Figure(figsize=(9, 3.6), layout="constrained")
        axes = figure.subplots()
        for name, colour in SEARCHERS.items():
            own = [(x, t["value"]) for x, t in points if t["searcher"] == name]
            if own:
                x, y = zip(*own, strict=True)
                axes.plot(x, y, "o", color=COLOURS[colour], label=name, markersize=4)
        values = [trial["value"] for _, trial in points]
        lowest = list(accumulate(values, min))
        axes.step(
            [x for x, _ in points],
            lowest,
            where="post",
            color=COLOURS["ink"],
            linewidth=1.2,
            label="lowest so far",
        )
        axes.set_ylim(*_search_limits(lowest, values))
        axes.set_xlabel("forward passes of a whole stretch")
        axes.set_ylabel("inside and beyond, nats")
        axes.legend(frameon=False, fontsize=9)
        return to_svg(figure, "search", "What the search measured")


def _search_limits(lowest: Sequence[float], values: Sequence[float]) -> tuple[float, float]:
    """y limits from below the best to above the median: one bad method would flatten the others."""
    low, high = min(lowest), max(float(np.median(values)), lowest[0])
    margin = 0.1 * (high - low) or 0.05
    return low - margin, high + 2 * margin


def reading(calibration: Mapping[str, Any]) -> str | None:
    """The chosen settings, the budget spent, and the verdict."""
    if not calibration:
        return None
    budget, chosen = calibration["budget"], calibration["chosen"]
    reported_on, settings = calibration["reported_on"], chosen["settings"]
    values = [
        f"{key} {value:.4g}"
        for key, value in settings.items()
        if isinstance(value, float) and key != "factor"
    ]
    described = ", ".join([settings["method"], *values])
    reason = f" The paper's settings stand, for {chosen['kept']}." if chosen.get("kept") else ""
    return (
        f"Chosen: trial {chosen['trial']} ({chosen['searcher']}: {described}), after "
        f"{budget['trials']} trials and {budget['spent']:.0f} forward passes, {budget['pruned']} "
        f"pruned at a short prefix. On {reported_on['windows']} stretches of "
        f"{reported_on['documents']} documents that were not searched on: "
        f"{calibration['verdict']}.{reason}"
    )


def rows(calibration: Mapping[str, Any]) -> Rows:
    """Rows of the table: each method inside, beyond, and its paired difference to the reference."""
    methods = calibration.get("methods") or {}
    return [{"name": name, **measured} for name, measured in methods.items()]
