"""How the columns of the results are drawn: one colour and marker a column in every figure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from itertools import cycle
from typing import TYPE_CHECKING, Any

from ropewalk.eval.report.figures.style import (
    COLOURS,
    MARKERS,
    MODEL_TITLES,
    MODELS,
    SLOTS,
    Kwargs,
    is_narrow,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MOST_LETTERS = 24
DASHES: tuple[Any, ...] = ("solid", (0, (5, 2)), (0, (1, 1.5)))
"""Of the first eight columns, the next eight, and the eight after them."""


@dataclass(frozen=True)
class ColumnStyle:
    slot: str
    """Of SLOTS: its colour, and the class of its name on the page."""
    dash: Any = "solid"

    @property
    def colour(self) -> str:
        return COLOURS[self.slot]

    @property
    def line(self) -> Kwargs:
        return {"color": self.colour, "linestyle": self.dash}

    @property
    def marker(self) -> Kwargs:
        edge: Kwargs = {"markeredgecolor": COLOURS["paper"], "markeredgewidth": 0.6}
        return {"marker": MARKERS[self.slot], **edge}


_page: ContextVar[tuple[str, ...]] = ContextVar("columns of the page", default=())


@contextmanager
def page_columns(names: Iterable[str]) -> Iterator[None]:
    """Inside the block a column has one style in all figures, whichever columns each has."""
    token = _page.set(tuple(names))
    try:
        yield
    finally:
        _page.reset(token)


def in_order(names: Iterable[str]) -> list[str]:
    """Base, rescaled and extended first, the others as they come."""
    names = list(dict.fromkeys(names))
    return [n for n in MODELS if n in names] + [n for n in names if n not in MODELS]


def column_styles(names: Iterable[str]) -> dict[str, ColumnStyle]:
    """The style of each column, in order; up to 24 are distinct."""
    names = list(names)
    known = shown_columns(names)
    free = [ColumnStyle(slot) for slot in (*SLOTS[3:], *MODELS) if slot not in known]
    dashed = [ColumnStyle(slot, dash) for dash in DASHES[1:] for slot in SLOTS]
    others = (name for name in known if name not in MODELS)
    styles = {name: ColumnStyle(name) for name in known if name in MODELS}
    styles |= dict(zip(others, cycle([*free, *dashed]), strict=False))
    return {name: style for name, style in styles.items() if name in names}


def shown_columns(names: Iterable[str]) -> list[str]:
    """These and the other columns of the page, in order."""
    return in_order([*_page.get(), *names])


def column_title(name: str) -> str:
    return MODEL_TITLES.get(name, name)


def short_title(name: str) -> str:
    """For a legend: the end of a long name is cut."""
    title = column_title(name)
    return title if len(title) <= MOST_LETTERS else f"{title[: MOST_LETTERS - 1]}…"


def legend(figure: Figure, panels: Sequence[Axes]) -> None:
    """Above the figure: each column once, whichever panels it is in."""
    entries: dict[str, Any] = {}
    for axes in panels:
        for handle, label in zip(*axes.get_legend_handles_labels(), strict=True):
            entries.setdefault(label, handle)
    place: Kwargs = {"loc": "outside upper center", "ncols": 2 if is_narrow() else 4}
    figure.legend([*entries.values()], [*entries], **place)
