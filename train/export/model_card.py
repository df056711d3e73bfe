"""README.md of the exported model: its card, with the evaluation as Hugging Face's model-index.

https://github.com/huggingface/hub-docs/blob/main/modelcard.md. Pure but for `write`.
"""

import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from huggingface_hub import EvalResult, ModelCard, ModelCardData

from ropewalk.conf.artifacts.records import read_json, signed
from ropewalk.conf.schema import Config
from ropewalk.train.export import card_sections, serving
from ropewalk.train.export.card_sections import Origin
from ropewalk.train.model.companions import LICENCES
from ropewalk.train.rope.plan import RopePlan

RECORD = "ropewalk-manifest.json"
"""The run's manifest beside the card."""
EXPORTED = ("rope", "data", "train", "eval")
"""Stages that an export is made from, and measured by. Others depend on what was called when."""

COLUMN = "extended"
"""The column of results.json that is the exported model."""
PLACES = ("depth", "from", "to", "kind", "measure")
"""Keys of a row that is a part of a curve: curves stay in results.json."""
PARTS = ("configuration", "source", "documents")
"""Keys that name a part of a task; `documents` as a number counts them."""
VALUES = {
    "accuracy": "accuracy",
    "perplexity": "perplexity",
    "longppl": "perplexity",
    "gain": "loss",
    "nll": "loss",
}
"""Value of a row -> type of the metric."""
SAID = ("unit", "protocol", "data", "haystack", "shots", "seed")
Json = Mapping[str, Any]


def eval_results(results: Json) -> list[EvalResult]:
    """A metric for each row of the exported model's column that has a value for a whole text."""
    tasks: Json = (results.get("models") or {}).get(COLUMN) or {}
    facts = {
        "unit": "window",
        "windows": results.get("windows"),
        "documents": results.get("documents"),
        "dtype": ((results.get("columns") or {}).get(COLUMN) or {}).get("dtype"),
    }
    return [entry for task, rows in tasks.items() for entry in _of_task(task, rows, facts)]


def _of_task(task: str, rows: Any, facts: Json) -> Iterator[EvalResult]:
    if isinstance(rows, Mapping):  # perplexity by length
        rows = [
            {"length": int(length), "perplexity": value, **facts} for length, value in rows.items()
        ]
    for row in _whole_texts(rows or []):
        key = next((key for key in VALUES if _is_number(row.get(key))), None)
        if key is not None:
            yield _entry(task, key, row)


def _whole_texts(rows: Any) -> Iterator[Json]:
    """The rows that are no part of a curve; the mean of a length whose rows all are."""
    full_rows = [row for row in rows if not any(key in row for key in PLACES)]
    yield from full_rows
    lengths = {row.get("length") for row in full_rows}
    cells: dict[Any, list[Json]] = {}
    for row in rows:
        if "depth" in row and row.get("length") not in lengths and _is_number(row.get("accuracy")):
            cells.setdefault(row.get("length"), []).append(row)
    for length, parts in cells.items():
        n = sum(part["n"] for part in parts)
        hits = sum(part["accuracy"] * part["n"] for part in parts)
        yield {"length": length, "accuracy": hits / n, "n": n, "depths": len(parts)}


def _is_number(value: object) -> bool:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return is_number and math.isfinite(float(value))  # type: ignore[arg-type]


def _entry(task: str, key: str, row: Json) -> EvalResult:
    part = next((row[key] for key in PARTS if isinstance(row.get(key), str)), None)
    length = row.get("length") or row.get("context") or row.get("window")
    known = {"low": row.get("low"), "high": row.get("high"), "n": row.get("n")}
    known |= {name: row.get(name) for name in (*SAID, "windows", "documents", "dtype", "depths")}
    name = " ".join(filter(None, [task, part and f"({part})", length and f"at {length} tokens"]))
    return EvalResult(
        task_type="text-generation",
        task_name="Text generation",
        dataset_type=f"ropewalk-{task.replace('_', '-')}",
        dataset_name=str(row.get("protocol") or task.replace("_", " ")),
        dataset_config=" ".join(str(v) for v in (part, length) if v is not None) or None,
        metric_type=VALUES[key],
        metric_name=name,
        metric_value=row[key],
        metric_args={name: value for name, value in known.items() if value is not None},
    )


def public_name(config: Config) -> str | None:
    """The base's name on the hub; None for a folder, whose path stays on this machine."""
    path = config.model.path or ""
    is_name = path.count("/") <= 1 and not path.startswith(("/", ".", "~", "builtin:"))
    return path if is_name and path and not Path(path).exists() else None


def origin_of(config: Config, run_dir: Path, base: Path | None, page: Path) -> Origin:
    """What the run recorded of where its model comes from. `base`: the base's folder here; `page`:
    SERVING.md."""
    license, source = config.export.license, "by export.license"
    if license is None and base is not None:
        license, source = license_of(base), "by the base's card"
    return Origin(
        base=public_name(config),
        revision=config.model.revision,
        license=license,
        license_source=source,
        license_files=license_files(run_dir / "train" / "model"),
        datasets=public_datasets(config),
        ledger=_json(run_dir / "data" / "ledger.json"),
        record=_json(run_dir / "manifest.json"),
        commands=serving.commands_of(page),
    )


def license_of(base: Path) -> str | None:
    """The licence that a base's own card names."""
    path = base / "README.md"
    if not path.is_file():
        return None
    card = ModelCard(path.read_text(encoding="utf-8"), ignore_metadata_errors=True)
    licence = card.data.get("license")
    return licence if isinstance(licence, str) else None


def license_files(model: Path) -> list[str]:
    """Names of licence files in a model's folder."""
    return sorted({path.name for pattern in LICENCES for path in model.glob(pattern)})


def public_datasets(config: Config) -> list[str]:
    """Names of the data sets of the hub that the run read."""
    paths = [source.path for source in config.data.sources.values() if source.kind == "hub"]
    return sorted({path for path in paths if path and path.count("/") <= 1})


def _json(path: Path) -> dict[str, Any]:
    return read_json(path) if path.is_file() else {}


def card(name: str, plan: RopePlan, origin: Origin, results: Json | None) -> str:
    """README.md. `results`: results.json."""
    metrics = eval_results(results or {})
    data = ModelCardData(
        library_name="transformers",
        pipeline_tag="text-generation",
        tags=["long-context", "rope", plan.method],
        license=origin.license,
        base_model=origin.base,
        base_model_relation="finetune" if origin.base else None,
        datasets=list(origin.datasets) or None,
        model_name=name if metrics else None,
        eval_results=metrics or None,
    )
    span = f"{plan.original_max_position_embeddings:,} to {plan.max_position_embeddings:,} tokens"
    body = [
        f"# {name}",
        f"A model with rotary embeddings, extended from {span} by Ropewalk: {plan.method}, factor "
        f"{plan.factor:g}, attention factor {plan.attention_factor:.4f}. `config.json` has the "
        "scaling; nothing else is needed to load it.",
        *card_sections.sections(plan, results, _table(metrics) if metrics else "", origin),
    ]
    return f"---\n{data.to_yaml()}\n---\n\n" + "\n\n".join(body) + "\n"


def public_record(record: Json) -> dict[str, Any]:
    """A run's manifest for the hub: the stages that the export is made from, without the text of
    the changes to the code."""
    environments = record.get("environments") or {}
    kept = {
        name: {**e, "code": {k: v for k, v in (e.get("code") or {}).items() if k != "diff"}}
        for name, e in environments.items()
    }
    stages = {k: v for k, v in (record.get("stages") or {}).items() if k in EXPORTED}
    return signed({**record, "environments": kept, "stages": stages})


def _table(metrics: list[EvalResult]) -> str:
    lines = ["| measure | metric | value | 95% interval | n |", "| --- | --- | --- | --- | --- |"]
    for entry in metrics:
        args = entry.metric_args or {}
        interval = f"{args['low']:.4g} to {args['high']:.4g}" if "low" in args else ""
        cells = (entry.metric_name, entry.metric_type, f"{entry.metric_value:.4g}", interval)
        lines.append(f"| {' | '.join(map(str, cells))} | {args.get('n', '')} |")
    return "\n".join(lines)


def write(folder: Path, text: str) -> None:
    """README.md of `folder`; one that is there already keeps its text and gets the metadata."""
    path = folder / "README.md"
    if path.is_file():
        own, ours = ModelCard(path.read_text(encoding="utf-8")), ModelCard(text)
        own.data = ModelCardData(**{**own.data.to_dict(), **ours.data.to_dict()})
        text = str(own)
    path.write_text(text, encoding="utf-8")
