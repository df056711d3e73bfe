"""The data stage on the page: tokens by document length, context of targets, tables, sentences.

Keys that an older ledger lacks are left out.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ropewalk.eval.report.figures.style import COLOURS, Kwargs, styled_figure, to_svg, token_axis

if TYPE_CHECKING:
    from matplotlib.axes import Axes


Json = Mapping[str, Any]
SOURCE_COLOURS = ("s0", "s1", "s2", "s3", "s4", "s5")  # the page's swatches
UNITS = ((1e9, "G"), (1e6, "M"), (1e3, "K"))
MIN_LABELLED = 0.09  # share of a bar from which a segment has room for its label


def figures(ledger: Json) -> dict[str, str | None]:
    return {"lengths": lengths(ledger), "own": own_context(ledger)}


def _sources(ledger: Json, key: str) -> dict[str, Any]:
    return {name: row[key] for name, row in (ledger.get("sources") or {}).items() if row.get(key)}


def _span(label: str) -> tuple[int, float]:
    """Bounds of a bucket: lengths above the first number, up to the second."""
    if label.startswith(">"):
        return int(label[1:]), math.inf
    low, high = map(int, label.split("-"))
    return low - 1, high


def _name(label: str) -> str:
    """`257-1024` -> `≤ 1K`, `>1048576` -> `> 1M`; of tokens in powers of two."""
    low, high = _span(label)
    value, sign = (low, ">") if math.isinf(high) else (int(high), "≤")
    if value >= 1 << 20:
        return f"{sign} {value >> 20}M"
    return f"{sign} {value >> 10}K" if value >= 1 << 10 else f"{sign} {value}"


def lengths(ledger: Json) -> str | None:
    """Two bars a source, its tokens in the store and in the plan, split by document length.

    None without any.
    """
    sources = _sources(ledger, "by_length")
    if not sources:
        return None
    labels = sorted({label for row in sources.values() for label in row}, key=_span)
    shade = {label: 0.14 + 0.86 * k / max(len(labels) - 1, 1) for k, label in enumerate(labels)}
    with styled_figure(9, 0.75 + 0.78 * len(sources)) as figure:
        axes = figure.subplots()
        axes.set(xlim=(0, 1), ylim=(len(sources) - 0.5, -0.5))
        axes.set_axis_off()
        for y, (name, row) in enumerate(sources.items()):
            for key, title, offset in (("tokens", "store", -0.21), ("plan_tokens", "plan", 0.21)):
                tokens = {label: row.get(label, {}).get(key, 0) for label in labels}
                _bar(axes, y + offset, title, tokens, shade)
            axes.annotate(name, (0, y), (-58, 0), ha="right", weight="bold", **_NOTE)
        for label, alpha in shade.items():  # entries of the legend, drawn outside the limits
            axes.barh(-9, 0, color=COLOURS["s0"], alpha=alpha, label=_name(label))
        spacing: Kwargs = {"handlelength": 1, "handletextpad": 0.4, "columnspacing": 1.1}
        figure.legend(loc="outside upper center", ncols=len(labels), **spacing)
        description = "Tokens by length of their document, in the store and in the plan"
        return to_svg(figure, "lengths", description)


_NOTE: Kwargs = {"textcoords": "offset points", "va": "center", "annotation_clip": False}


def _bar(
    axes: Axes, y: float, title: str, tokens: Mapping[str, int], shade: Mapping[str, float]
) -> None:
    """A bar split by bucket, each named where there is room, with the total at its end."""
    total, left = sum(tokens.values()), 0.0
    for label, count in tokens.items():
        share = count / total if total else 0
        axes.barh(y, share, 0.38, left, color=COLOURS["s0"], alpha=shade[label], linewidth=0)
        if share > MIN_LABELLED:
            ink = COLOURS["paper"] if shade[label] > 0.8 else COLOURS["ink"]
            text = f"{_name(label)}  {share:.0%}"
            axes.text(left + share / 2, y, text, ha="center", va="center", size=8, color=ink)
        left += share
    axes.annotate(_compact(total), (1, y), (6, 0), size=9, color=COLOURS["muted"], **_NOTE)
    axes.annotate(title, (0, y), (-6, 0), size=9, ha="right", color=COLOURS["muted"], **_NOTE)


def _compact(tokens: float) -> str:
    size, unit = next(((size, unit) for size, unit in UNITS if tokens >= size), (1, ""))
    return f"{tokens / size:.3g}{unit}"


def own_context(ledger: Json) -> str | None:
    """Share of targets with more than L tokens of their own document before them, by L."""
    plan = ledger.get("plan") or {}
    plan_shares, seq_len = plan.get("own_context_share"), plan.get("seq_len")
    if not plan_shares or not seq_len:
        return None
    with styled_figure(9, 3.6) as figure:
        axes = figure.subplots()
        x_label = "tokens of its own document before a target, more than"
        token_axis(axes, min(map(int, plan_shares)), seq_len, x_label)
        for k, (name, shares) in enumerate(_sources(ledger, "own_context_share").items()):
            colour = COLOURS[SOURCE_COLOURS[k % len(SOURCE_COLOURS)]]
            _curve(axes, shares, seq_len, {"color": colour, "label": name, "linewidth": 1.4})
        style = {"color": COLOURS["extended"], "linewidth": 2.4, "marker": "o"}
        _curve(axes, plan_shares, seq_len, {"label": "plan", **style})
        axes.set(ylim=(0, 1), ylabel="targets")
        axes.set_yticks([0, 0.25, 0.5, 0.75, 1])
        axes.yaxis.set_major_formatter(lambda value, _: f"{value:.0%}")
        axes.legend(loc="upper right")
        description = "Share of targets by the tokens of their own document before them"
        return to_svg(figure, "own", description)


def _curve(axes: Axes, shares: Mapping[str, float], seq_len: int, style: Kwargs) -> None:
    """A curve that ends at zero: no target has a whole sequence before it."""
    by_length = {int(length): share for length, share in shares.items() if int(length) < seq_len}
    axes.plot(*zip(*sorted(by_length.items()), (seq_len, 0.0), strict=True), **style, clip_on=False)


def left_out(ledger: Json) -> dict[str, Any]:
    """Reasons, and for each source its documents and tokens by reason."""
    sources = ledger.get("sources") or {}
    rows = {name: row.get("left_out", _older(row)) for name, row in sources.items()}
    reasons = dict.fromkeys(reason for row in rows.values() for reason in row)
    return {"reasons": list(reasons), "rows": rows}


_OLDER_KEYS = (
    ("held_out", "heldout_documents", "heldout_tokens"),
    ("overlong", "dropped_documents", "dropped"),
    ("cut", "", "cut"),
)


def _older(row: Json) -> dict[str, Json]:
    """The three reasons that a ledger without `left_out` has as keys of their own."""
    present = [keys for keys in _OLDER_KEYS if row.get(keys[2]) is not None]
    return {
        reason: {"documents": row.get(documents), "tokens": row[tokens]}
        for reason, documents, tokens in present
    }


def cleaning(ledger: Json) -> dict[str, Any]:
    """Copies and length buckets by source, and the most contaminated documents of each side."""
    contamination = ledger.get("contamination") or {}
    contaminated = [
        (side, document)
        for side, key in (("held out", "heldout"), ("training", "training"))
        for document in contamination.get(key, {}).get("worst", [])
    ]
    copies, buckets = (_sources(ledger, key) for key in ("duplicates", "buckets"))
    return {"copies": copies, "buckets": buckets, "contaminated": contaminated}


def own_reading(ledger: Json) -> str | None:
    """Share of tokens at the shortest and at the longest length that any token reaches."""
    by_length = (ledger.get("plan") or {}).get("own_context_share") or {}
    shares = {int(length): share for length, share in by_length.items()}
    reached = [length for length, share in shares.items() if share]
    if not shares:
        return None
    if not reached:
        return "No token has that much of its own document before it."
    first, last = min(shares), max(reached)
    text = (
        f"{shares[first]:.1%} of the plan's tokens have more than {first:,} tokens of their own "
        "document before them"
    )
    return text + (f", and {shares[last]:.1%} have more than {last:,}." if last > first else ".")


def lengths_reading(ledger: Json) -> str | None:
    """Long documents' share of the tokens in the stores and in the plan.

    Long: above the largest bucket bound below `seq_len`.
    """
    rows = list(_sources(ledger, "by_length").values())
    seq_len = (ledger.get("plan") or {}).get("seq_len", 0)
    bounds = [_span(label)[0] for row in rows for label in row]
    bound = max((low for low in bounds if low < seq_len), default=0)
    store, plan = (_long(rows, key, bound) for key in ("tokens", "plan_tokens"))
    if not bound or store is None or plan is None:
        return None
    return (
        f"Documents of more than {bound:,} tokens hold {store:.1%} of the tokens in the stores and "
        f"{plan:.1%} of the tokens in the plan."
    )


def _long(rows: Sequence[Json], key: str, bound: int) -> float | None:
    counts = [(label, counts.get(key, 0)) for row in rows for label, counts in row.items()]
    total = sum(n for _, n in counts)
    return sum(n for label, n in counts if _span(label)[0] >= bound) / total if total else None
