"""Sentences of the page that the numbers decide."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from ropewalk.eval.measure.statistics import PAIRED
from ropewalk.eval.report.figures.columns import in_order
from ropewalk.eval.report.formats import signed

_SIZES = {"hidden_size": "hidden", "num_hidden_layers": "layers", "num_attention_heads": "heads"}


def sentence(clauses: Iterable[str]) -> str | None:
    """The clauses as one sentence; None without any."""
    text = "; ".join(clauses)
    return f"{text[0].upper()}{text[1:]}." if text else None


def list_by_model(rows: Mapping[str, Any], text_of: Callable[[Any], str | None]) -> str:
    """`2.83 (base), 2.98 (rescaled) and 2.83 (extended)`: the text of each model that has one."""
    texts = {name: text_of(rows[name]) for name in in_order(rows) if rows[name]}
    parts = [f"{text} ({name})" for name, text in texts.items() if text is not None]
    return " and ".join(filter(None, (", ".join(parts[:-1]), *parts[-1:])))


def difference_text(row: Mapping[str, Any]) -> str | None:
    """`-0.010 [-0.020 to +0.001]`: the difference of a row to its reference; None without one."""
    if any(row.get(key) is None for key in PAIRED):
        return None
    value, low, high = (signed(row[key]) for key in PAIRED)
    return f"{value} [{low} to {high}]"


def tuned_settings(settings: Mapping[str, object]) -> list[str]:
    """`beta_fast 17.25` for each real-valued setting of a RoPE method except its factor."""
    values = {k: v for k, v in settings.items() if isinstance(v, float) and k != "factor"}
    return [f"{key} {value:.4g}" for key, value in values.items()]


def model_line(config: Mapping[str, Any], rope: Mapping[str, Any]) -> str:
    """The base in one line; a local path is cut to its last part."""
    model = config.get("model") or {}
    path = str(model.get("path") or "")
    if path.startswith(("/", "~", ".")):
        parts = [path.rstrip("/").rsplit("/", 1)[-1]]
    else:
        keys = ("path", "gguf_file", "revision")
        parts = [str(model[key]) for key in keys if model.get(key)]
    if scratch := model.get("scratch"):
        sizes = [f"{label} {scratch[key]:,}" for key, label in _SIZES.items() if key in scratch]
        parts.append("Llama from scratch, " + ", ".join(sizes))
    if rope.get("inv_freq"):
        parts.append(f"{2 * len(rope['inv_freq'])} rotary dimensions")
    if rope.get("rope_theta"):
        parts.append(f"theta {rope['rope_theta']:,.10g}")
    return " · ".join(parts)
