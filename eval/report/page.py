"""The report: a run folder's artifacts in, one self-contained HTML page out. Nothing is measured here.

What an artifact does not hold is shown as "not run" or a dash; an artifact that cannot be read is refused by name.
Every sentence under a figure is computed from the same numbers as the figure.
"""

import functools
import json
import math
import re
import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Any

import yaml
from jinja2 import ChainableUndefined, Environment
from markupsafe import Markup

from ropewalk.conf.errors import DataError
from ropewalk.eval.report import phases
from ropewalk.eval.report.figures import calibration, data, style, training
from ropewalk.eval.report.figures import rope as figures_rope
from ropewalk.eval.report.figures.style import MODELS

SCHEMA = 1
STAGES = {
    "data": "ledger",
    "rope": "rope",
    "train": "metrics",
    "eval": "results",
}  # stage -> the artifact it leaves
Json = dict[str, Any]
Rows = Sequence[Mapping[str, Any]]


def render(run_dir: Path, leave_out: Sequence[str] = ()) -> str:
    """The page of one run folder, without what the stages `leave_out` left; the same artifacts give the same bytes."""
    run = load(run_dir, leave_out)
    template = (
        resources.files("ropewalk.eval.report")
        .joinpath("report.html.j2")
        .read_text(encoding="utf-8")
    )
    return _environment().from_string(template).render(**run, **derived(run))


def load(run_dir: Path, leave_out: Sequence[str] = ()) -> Json:
    """Every artifact by its name; a missing one is empty."""

    def of(stage: str, file: str) -> Json:
        return {} if stage in leave_out else _artifact(run_dir / file)

    text = _text(run_dir / "config.yaml")
    try:
        config = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise DataError(
            f"config.yaml is not YAML ({error}); it must be the run's frozen config; restore it"
        ) from None
    config = config if isinstance(config, dict) else {}
    metrics, repeated = (
        ([], 0) if "train" in leave_out else _metrics(run_dir / "train" / "metrics.jsonl")
    )
    manifest, rope, ledger = (
        _artifact(run_dir / f) for f in ("manifest.json", "rope.json", "data/ledger.json")
    )
    before = [] if "train" in leave_out else _earlier(run_dir, manifest)
    parts = [
        *before,
        {"name": config.get("name"), "rope": rope, "ledger": ledger, "metrics": metrics},
    ]
    return {
        "name": config.get("name") or run_dir.resolve().name,
        "config_text": text,
        "config": config,
        "metrics": phases.joined([part["metrics"] for part in parts]),
        "phases": phases.table([part["name"] for part in parts], parts) if before else [],
        "repeated": repeated,
        "rope": rope,
        "ledger": ledger,
        "results": of("eval", "eval/results.json"),
        "calibration": of("calibration", "calibration/results.json"),
        "manifest": manifest,
    }


def _earlier(run_dir: Path, manifest: Json) -> list[Json]:
    """The phases before the last one: the artifacts that the page shows of them."""
    return [
        {
            "name": phase["name"],
            "rope": _artifact(run_dir / phase["folder"] / "rope.json"),
            "ledger": _artifact(run_dir / phase["folder"] / "data" / "ledger.json"),
            "metrics": _metrics(run_dir / phase["folder"] / "train" / "metrics.jsonl")[0],
        }
        for phase in manifest.get("phases") or []
    ]


def _text(path: Path) -> str:
    return path.read_text(encoding="utf-8") if path.is_file() else ""


def _without_nulls(entries: Json) -> Json:
    """A null says the same as a missing key."""
    return {key: value for key, value in entries.items() if value is not None}


def _parse(text: str, name: str) -> Json:
    try:
        value = json.loads(text, object_hook=_without_nulls)
    except json.JSONDecodeError as error:
        raise DataError(
            f"{name} is not JSON ({error}); it must be as its stage wrote it; run that stage again"
        ) from None
    if not isinstance(value, dict):
        raise DataError(
            f"{name} is {type(value).__name__}; it must be a JSON object; run its stage again"
        )
    return value


def _artifact(path: Path) -> Json:
    text = _text(path)
    value = _parse(text, path.name) if text else {}
    if value.get("schema", SCHEMA) != SCHEMA:
        raise DataError(
            f"{path.name} schema is {value['schema']}; this report reads {SCHEMA}; use the version that wrote it"
        )
    return value


def _metrics(path: Path) -> tuple[list[Json], int]:
    """One line a step, the last one written, and how many were written again by a resumed run. Steps not taken have none."""
    lines = [line for line in _text(path).splitlines() if line.strip()]
    rows = [_parse(line, f"{path.name} line {k}") for k, line in enumerate(lines, 1)]
    rows = [row for row in rows if "event" not in row]
    steps = {row["step"]: row for row in rows}
    return [steps[step] for step in sorted(steps)], len(rows) - len(steps)


def derived(run: Json) -> Json:
    """Figures, sentences and the tables that need arithmetic."""
    rope, results, metrics = run["rope"], run["results"], run["metrics"]
    models, window = results.get("models") or {}, results.get("base_window")
    dimensions, width = figures_rope.dimensions(rope), max(1, len(metrics) // 20)
    figures = {
        "position": style.loss_by_position(models, window),
        "gain": style.context_gain(models, window),
        "rope": figures_rope.wavelengths(rope, dimensions),
        "training": style.training(metrics, width),
        "by_position": training.by_position(metrics, width),
        **calibration.figures(run["calibration"]),
        **data.figures(run["ledger"]),
    }
    return {
        "MODELS": MODELS,
        "models": models,
        "window": window,
        "reference": gain_reference(models, window),
        "dimensions": dimensions,
        "width": width,
        "model_line": model_line(run["config"], rope),
        "figures": {name: Markup(svg) for name, svg in figures.items() if svg},
        "lengths": sorted(
            {length for m in models.values() for length in m.get("perplexity") or {}}, key=float
        ),
        "passkeys": {
            name: passkey_grid((models.get(name) or {}).get("passkey") or []) for name in MODELS
        },
        "stages": stage_rows(run),
        "methods": calibration.rows(run["calibration"]),
        "left_out": data.left_out(run["ledger"]),
        "looked_for": data.looked_for(run["ledger"]),
        "readings": {
            "position": position_reading(models, window),
            "perplexity": perplexity_reading(models, window),
            "gain": gain_reading(models, gain_reference(models, window)),
            "passkey": passkey_reading(models, window),
            "rope": figures_rope.reading(dimensions),
            "calibration": calibration.reading(run["calibration"]),
            "lengths": data.lengths_reading(run["ledger"]),
            "own": data.own_reading(run["ledger"]),
            "training": training_reading(metrics, width),
            "by_position": training.reading(metrics),
        },
    }


def model_line(config: Mapping[str, Any], rope: Mapping[str, Any]) -> str:
    """What the base is, in one line; of a local path only the last part."""
    model = config.get("model") or {}
    scratch = model.get("scratch") or {}
    parts = (
        [str(model["path"]).rstrip("/").rsplit("/", 1)[-1]]
        if str(model.get("path") or "").startswith(("/", "~", "."))
        else []
    )
    parts = parts or [
        str(model[key]) for key in ("path", "gguf_file", "revision") if model.get(key)
    ]
    if scratch:
        shape = {
            "hidden_size": "hidden",
            "num_hidden_layers": "layers",
            "num_attention_heads": "heads",
        }
        parts.append(
            "Llama from scratch, "
            + ", ".join(f"{word} {scratch[key]:,}" for key, word in shape.items() if key in scratch)
        )
    if rope.get("inv_freq"):
        parts.append(f"{2 * len(rope['inv_freq'])} rotary dimensions")
    if rope.get("rope_theta"):
        parts.append(f"theta {rope['rope_theta']:,.10g}")
    return " · ".join(parts)


def stage_rows(run: Json) -> list[Json]:
    """Recorded stages in their order; then those expected and not recorded."""
    recorded = run["manifest"].get("stages") or {}
    rows = [{"name": name, "state": "done", **facts} for name, facts in recorded.items()]
    for name, artifact in STAGES.items():
        if name not in recorded:
            rows.append({"name": name, "state": "not recorded" if run[artifact] else "not run"})
    return rows


def passkey_grid(rows: Rows) -> Json:
    """Lengths across, depths down, a cell for each pair that was run."""
    tries = sorted({row["n"] for row in rows})
    return {
        "lengths": sorted({row["length"] for row in rows}),
        "depths": sorted({row["depth"] for row in rows}),
        "cells": {(row["length"], row["depth"]): row for row in rows},
        "n": " to ".join(f"{n:,}" for n in sorted({*tries[:1], *tries[-1:]})),
    }


def _each(models: Mapping[str, Any], value: Callable[[Mapping[str, Any]], str | None]) -> str:
    """`2.83 (base), 2.98 (rescaled) and 2.83 (extended)`, of the models that have one."""
    found = {name: value(models[name]) for name in MODELS if models.get(name)}
    parts = [f"{text} ({name})" for name, text in found.items() if text is not None]
    return " and ".join(filter(None, (", ".join(parts[:-1]), *parts[-1:])))


def _pooled(rows: Rows, low: float, high: float) -> str | None:
    """Mean loss, weighted by tokens, of the bins that lie wholly within [low, high]."""
    inside = [row for row in rows if row["from"] >= low and row["to"] <= high]
    tokens = sum(row["tokens"] for row in inside)
    return f"{sum(row['nll'] * row['tokens'] for row in inside) / tokens:.3f}" if tokens else None


def position_reading(models: Mapping[str, Any], window: float | None) -> str | None:
    if not window:
        return None
    beyond = _each(models, lambda m: _pooled(m.get("nll_by_position") or [], window, math.inf))
    inside = _each(models, lambda m: _pooled(m.get("nll_by_position") or [], 0, window))
    sentences = (
        [f"beyond the base's window of {window:,} tokens the mean loss is {beyond}"]
        if beyond
        else []
    )
    sentences += [f"inside that window it is {inside}"] if inside else []
    return _sentence(sentences)


def perplexity_reading(models: Mapping[str, Any], window: float | None) -> str | None:
    lengths = sorted({int(length) for m in models.values() for length in m.get("perplexity") or {}})
    chosen = [length for length in lengths if length in (lengths[-1], window)]
    each = {length: _each(models, functools.partial(_perplexity, str(length))) for length in chosen}
    return _sentence(
        f"over {length:,} tokens the perplexity is {text}" for length, text in each.items()
    )


def _perplexity(length: str, model: Mapping[str, Any]) -> str | None:
    value = (model.get("perplexity") or {}).get(length)
    return None if value is None else perplexity(value)


def gain_reference(models: Mapping[str, Any], window: float | None) -> float | None:
    """The context that differences are taken to: where the difference is exactly zero, interval and all."""
    keys = ("difference", "difference_low", "difference_high")
    rows = [row for m in models.values() for row in m.get("context_gain") or []]
    return next((row["context"] for row in rows if all(row.get(key) == 0 for key in keys)), window)


def gain_reading(models: Mapping[str, Any], reference: float | None) -> str | None:
    """The longest context against the one that differences are taken to: the paired difference, and whether its interval has zero."""
    name = next((m for m in reversed(MODELS) if (models.get(m) or {}).get("context_gain")), None)
    row = max(models[name]["context_gain"], key=lambda row: row["context"]) if name else {}
    keys = ("difference", "difference_low", "difference_high")
    if not reference or any(row.get(key) is None for key in keys) or row["context"] == reference:
        return None
    change, low, high = (row[key] for key in keys)
    verdict = (
        "lower"
        if high < 0
        else "higher"
        if low > 0
        else "not shown to differ (the interval holds zero)"
    )
    return _sentence(
        [
            f"given {row['context']:,} tokens of context instead of {reference:,}, the {name} model's loss on the same "
            f"targets changes by {signed(change)} nats ({signed(low)} to {signed(high)}): {verdict}"
        ]
    )


def passkey_reading(models: Mapping[str, Any], window: float | None) -> str | None:
    if not window:
        return None
    beyond = _each(
        models, lambda m: _found(row for row in m.get("passkey") or [] if row["length"] > window)
    )
    inside = _each(
        models, lambda m: _found(row for row in m.get("passkey") or [] if row["length"] <= window)
    )
    sentences = [f"beyond {window:,} tokens the keys found are {beyond}"] if beyond else []
    sentences += [f"up to {window:,} tokens, {inside}"] if inside else []
    return _sentence(sentences)


def _found(rows: Iterable[Mapping[str, Any]]) -> str | None:
    counts = [(round(row["accuracy"] * row["n"]), row["n"]) for row in rows]
    return f"{sum(hit for hit, _ in counts):,} of {sum(n for _, n in counts):,}" if counts else None


def training_reading(metrics: Rows, width: int) -> str | None:
    losses = [
        row["loss"] for row in metrics if row.get("loss") is not None and math.isfinite(row["loss"])
    ]
    if not losses:
        return None
    first, last = statistics.fmean(losses[:width]), statistics.fmean(losses[-width:])
    over = (
        f"the mean loss of the first and the last {width} steps is"
        if width > 1
        else "the loss of the first and the last step is"
    )
    missing = len(metrics) - len(losses)
    sentences = [f"{over} {first:.3f} and {last:.3f}"]
    return _sentence(sentences + ([f"{missing:,} steps have no finite loss"] if missing else []))


def _sentence(parts: Iterable[str]) -> str | None:
    text = "; ".join(parts)
    return f"{text[0].upper()}{text[1:]}." if text else None


# Formats. Jinja's undefined and None become a dash: a missing value is never a number.

DASH = "–"


def _number(form: Callable[..., str]) -> Callable[..., str]:
    @functools.wraps(form)
    def formatted(value: Any, *args: Any) -> str:
        if isinstance(value, bool) or not isinstance(value, int | float):
            return DASH
        return form(value, *args) if math.isfinite(value) else str(value)

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
    whole = round(seconds)
    if whole < 60:
        return f"{seconds:.1f} s"
    return (
        f"{whole // 60} min {whole % 60} s"
        if whole < 3600
        else f"{whole // 3600} h {whole % 3600 // 60} min"
    )


@_number
def clamp(value: float) -> str:
    """For the width of a bar, percent."""
    return f"{100 * min(max(value, 0.0), 1.0):.2f}"


@_number
def general(value: float) -> str:
    digits = "," if isinstance(value, int) else ",.4g" if abs(value) < 1e4 else ",.0f"
    return f"{value:{digits}}".replace("-", "\u2212")


def bounds(label: str) -> str:
    """`257-1024` or `<=1024` as a person would write it."""
    return re.sub(
        r"\d+", lambda found: f"{int(found[0]):,}", label.replace("<=", "≤ ").replace("-", "–")
    )


def plain(value: Any) -> str:
    """A value of any kind, as a person would write it."""
    if value is None or isinstance(value, ChainableUndefined):
        return DASH
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list):
        return ", ".join(map(plain, value)) or "none"
    if isinstance(value, dict):
        return json.dumps(value, ensure_ascii=False)
    return general(value) if isinstance(value, int | float) else str(value)


FORMATS = (integer, fixed, signed, percent, perplexity, duration, clamp, general, bounds, plain)


def _environment() -> Environment:
    environment = Environment(
        autoescape=True, trim_blocks=True, lstrip_blocks=True, undefined=ChainableUndefined
    )
    environment.filters |= {form.__name__: form for form in FORMATS}
    environment.filters["median"] = lambda values: statistics.median(values) if values else None
    return environment
