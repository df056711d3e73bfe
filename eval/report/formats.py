"""Numbers and values as text for the page, and its Jinja templates with these as filters.

Jinja's undefined and None become a dash: a missing value is never shown as a number.
"""

import functools
import json
import math
import re
import statistics
from collections.abc import Callable
from importlib import resources

from jinja2 import ChainableUndefined, Environment, FunctionLoader, Template

DASH = "–"


def _number(format_number: Callable[..., str]) -> Callable[..., str]:
    """The format, with a dash for a value that is no number, and `nan` or `inf` unchanged."""

    @functools.wraps(format_number)
    def formatted(value: object, *args: int) -> str:
        if isinstance(value, bool) or not isinstance(value, int | float):
            return DASH
        return format_number(value, *args) if math.isfinite(value) else str(value)

    return formatted


@_number
def integer(value: float) -> str:
    return f"{value:,.0f}"


@_number
def fixed(value: float, digits: int = 3) -> str:
    return f"{value:,.{digits}f}"


@_number
def signed(value: float, digits: int = 3) -> str:
    return f"{value:+,.{digits}f}".replace("-", "\u2212")


@_number
def percent(value: float, digits: int = 1) -> str:
    return f"{100 * value:,.{digits}f}%"


@_number
def perplexity(value: float) -> str:
    return f"{value:,.2f}" if value < 1000 else f"{value:,.0f}"


@_number
def duration(seconds: float) -> str:
    total = round(seconds)
    if total < 60:
        return f"{seconds:.1f} s"
    if total < 3600:
        return f"{total // 60} min {total % 60} s"
    return f"{total // 3600} h {total % 3600 // 60} min"


@_number
def clamp(value: float) -> str:
    """A share as percent within 0 and 100, for the width of a bar."""
    return f"{100 * min(max(value, 0.0), 1.0):.2f}"


@_number
def general(value: float) -> str:
    """Whole numbers in full, others with four significant digits, or none from 10,000 on."""
    spec = ","
    if not isinstance(value, int):
        spec = ",.4g" if abs(value) < 1e4 else ",.0f"
    return f"{value:{spec}}".replace("-", "\u2212")


def bounds(label: str) -> str:
    """A bucket label such as `257-1024` or `<=1024` with separators and a proper dash."""
    label = label.replace("<=", "≤ ").replace("-", "–")
    return re.sub(r"\d+", lambda match: f"{int(match[0]):,}", label)


def as_text(value: object) -> str:
    """A JSON value of any kind as text."""
    if value is None or isinstance(value, ChainableUndefined):
        return DASH
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list):
        return ", ".join(map(as_text, value)) or "none"
    if isinstance(value, dict):
        return json.dumps(value, ensure_ascii=False)
    return general(value) if isinstance(value, int | float) else str(value)


def short(value: object) -> str:
    """As text; of a hash its beginning."""
    text = as_text(value)
    return text[:12] if re.fullmatch(r"[0-9a-f]{16,}", text) else text


FILTERS = (
    integer,
    fixed,
    signed,
    percent,
    perplexity,
    duration,
    clamp,
    general,
    bounds,
    as_text,
    short,
)


def _shared(name: str) -> str:
    """A file of this folder that several pages include."""
    return resources.files("ropewalk.eval.report").joinpath(name).read_text(encoding="utf-8")


def template(package: str, name: str) -> Template:
    """A template file of a package, with autoescape and the formats of this module as filters; it
    may include the files of this folder."""
    jinja = Environment(
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=ChainableUndefined,
        loader=FunctionLoader(_shared),
    )
    jinja.filters |= {function.__name__: function for function in FILTERS}
    jinja.filters["median"] = lambda values: statistics.median(values) if values else None
    return jinja.from_string(resources.files(package).joinpath(name).read_text(encoding="utf-8"))
