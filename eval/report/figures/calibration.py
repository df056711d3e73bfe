"""The calibration on the page: loss by position of every method, the search, one sentence.

Parts that the results lack are left out of the figures and are a dash in the sentence.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import accumulate
from typing import TYPE_CHECKING, Any

import numpy as np

from ropewalk.eval.report.figures.style import (
    COLOURS,
    SHADES,
    Kwargs,
    Rows,
    column,
    styled_figure,
    thousands,
    ticks,
    to_svg,
)
from ropewalk.eval.report.formats import as_text, fixed, integer
from ropewalk.eval.report.sentences import tuned_settings

if TYPE_CHECKING:
    from matplotlib.axes import Axes


Json = Mapping[str, Any]
EMPHASISED = {"none": "base", "calibrated": "extended", "yarn": "rescaled"}
SEARCHERS = {"paper": "base", "ramp": "rescaled", "longrope": "extended"}


def figures(calibration: Json) -> dict[str, str | None]:
    return {"methods": methods(calibration), "search": search(calibration)}


def colours(names: Sequence[str]) -> dict[str, str]:
    """A colour for each method; the emphasised ones have the three model colours."""
    others = iter(SHADES * (1 + len(names) // len(SHADES)))
    return {name: COLOURS[EMPHASISED.get(name) or next(others)] for name in names}


def methods(calibration: Json) -> str | None:
    """Mean loss of each bin of positions, in full and closer around the best methods."""
    measured = calibration.get("methods") or {}
    bins = {name: m["nll_by_position"] for name, m in measured.items() if m.get("nll_by_position")}
    if not bins:
        return None
    with styled_figure(9, 6.6) as figure:
        full, close = figure.subplots(2, 1, sharex=True, height_ratios=[1.0, 1.3])
        for axes in (full, close):
            _draw_methods(axes, bins, calibration.get("base_window") or 0)
        close.set_ylim(_close(bins))
        close.set_title("the same, closer", color=COLOURS["muted"], size=9)
        close.set_xlabel("position (tokens)")
        thousands(close.xaxis)
        full.legend(ncols=4, loc="lower left", bbox_to_anchor=(0, 1))
        description = "Loss by position of each scaling method without training"
        return to_svg(figure, "calibration", description)


def _draw_methods(axes: Axes, bins: Mapping[str, Rows], window: int) -> None:
    thin: Kwargs = {"linewidth": 1.3, "marker": "", "zorder": 2}
    thick: Kwargs = {"linewidth": 2.2, "marker": "o", "zorder": 3}
    for name, colour in colours(list(bins)).items():
        rows, style = bins[name], thick if name in EMPHASISED else thin
        x = (column(rows, "from") + column(rows, "to")) / 2
        axes.plot(x, column(rows, "nll"), color=colour, label=name, markersize=3, **style)
        if name == "calibrated":
            low, high = column(rows, "low"), column(rows, "high")
            axes.fill_between(x, low, high, color=colour, alpha=0.15, linewidth=0)
    axes.axvspan(0, window, color=COLOURS["shade"], zorder=0, linewidth=0)
    axes.set_ylabel("nats per token")
    axes.yaxis.set_major_locator(ticks(6))


def _close(bins: Mapping[str, Rows]) -> tuple[float, float] | None:
    """y limits around the calibrated curve and YaRN with its paper's settings; None without."""
    values = np.concatenate([column(bins.get(name, ()), "nll") for name in ("calibrated", "yarn")])
    if not np.isfinite(values).any():
        return None
    low, high = float(np.nanmin(values)), float(np.nanmax(values))
    margin = 0.15 * (high - low) or 0.1
    return low - margin, high + margin


def search(calibration: Json) -> str | None:
    """Every trial that was not pruned, by passes spent, and the lowest value so far."""
    trials = calibration.get("trials") or []
    spent = accumulate(trial.get("passes") or 0 for trial in trials)
    points = [(x, t) for x, t in zip(spent, trials, strict=True) if t.get("value") is not None]
    if not points:
        return None
    with styled_figure(9, 3.6) as figure:
        axes = figure.subplots()
        for name, colour in SEARCHERS.items():
            by_searcher = [(x, t["value"]) for x, t in points if t.get("searcher") == name]
            if by_searcher:
                x, y = zip(*by_searcher, strict=True)
                axes.plot(x, y, "o", color=COLOURS[colour], label=name, markersize=4)
        x, values = zip(*((x, trial["value"]) for x, trial in points), strict=True)
        lowest = list(accumulate(values, min))
        style: Kwargs = {"color": COLOURS["ink"], "linewidth": 1.2, "label": "lowest so far"}
        axes.step(x, lowest, where="post", **style)
        axes.set_ylim(_search_limits(lowest, values))
        axes.set(xlabel="forward passes of a whole stretch", ylabel="inside and beyond, nats")
        axes.legend()
        return to_svg(figure, "search", "What the search measured")


def _search_limits(lowest: Sequence[float], values: Sequence[float]) -> tuple[float, float]:
    """y limits from below the best to above the median: one bad method would flatten the others."""
    low, high = min(lowest), max(float(np.median(values)), lowest[0])
    margin = 0.1 * (high - low) or 0.05
    return low - margin, high + 2 * margin


def reading(calibration: Json) -> str | None:
    """The chosen settings, the budget spent, and the verdict."""
    if not calibration:
        return None
    parts = ("budget", "chosen", "reported_on")
    budget, chosen, reported_on = (calibration.get(part) or {} for part in parts)
    settings = chosen.get("settings") or {}
    described = ", ".join([as_text(settings.get("method")), *tuned_settings(settings)])
    reason = f" The paper's settings are kept: {chosen['kept']}." if chosen.get("kept") else ""
    return (
        f"Chosen: trial {integer(chosen.get('trial'))} ({as_text(chosen.get('searcher'))}: "
        f"{described}), after {integer(budget.get('trials'))} trials and "
        f"{fixed(budget.get('spent'), 0)} forward passes, {integer(budget.get('pruned'))} pruned "
        f"at a short prefix. On {integer(reported_on.get('windows'))} stretches of "
        f"{integer(reported_on.get('documents'))} documents that were not searched on: "
        f"{as_text(calibration.get('verdict'))}.{reason}"
    )


def rows(calibration: Json) -> Rows:
    """Rows of the table: each method inside, beyond, and its paired difference to the reference."""
    methods = calibration.get("methods") or {}
    return [{"name": name, **measured} for name, measured in methods.items()]
