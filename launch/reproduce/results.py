"""What a run computed: hashes of its artifacts, its losses, and the values of its evaluation.

Nothing here says how long something took, or where it lies: two runs that computed the same are
equal here.
"""

import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from ropewalk.conf.artifacts import manifest
from ropewalk.conf.artifacts.records import UNREADABLE, fingerprint, read_json
from ropewalk.train.results import METRICS_FILE

Json = Mapping[str, Any]
COMPUTED = (
    *("step", "event", "loss", "z_loss", "router_loss", "grad_norm", "lr", "tokens", "labels"),
    *("sequences", "loss_by_position", "loss_by_source", "grad_norm_by_group", "validation"),
)
"""Keys of a line of metrics.jsonl that the settings, the data and the seed decide."""
MEASURED = ("reference", "judged", "base_window", "length", "documents", "windows", "models")
"""Keys of results.json that are measured, not judged."""
MOST_LOSSES = 10_000
"""Steps whose loss is recorded one by one."""
LAST_SHARE = 10
"""The training's loss is the mean of its last steps, one in so many."""


def results(run: Path, cache: Path) -> dict[str, Any]:
    """By stage, of those that are finished in the run's folder."""
    parts = {
        "rope": _rope(run),
        "data": _data(run, cache),
        "train": _train(run / "train"),
        "eval": _eval(run / "eval"),
    }
    return {stage: part for stage, part in parts.items() if part}


def _rope(run: Path) -> dict[str, Any]:
    plan = _json(run / "rope.json")
    return {key: plan[key] for key in ("method", "factor", "hash") if key in plan}


def _data(run: Path, cache: Path) -> dict[str, Any]:
    """The digests of plan and token stores as their manifests in the cache have them."""
    finished = manifest.read(run / "data")
    if finished is None:
        return {}
    content = finished.content
    stores = {name: cache / "tokens" / key for name, key in content.get("stores", {}).items()}
    return {
        **finished.facts,
        **{key: content.get(key) for key in ("tokenizer", "tokenizer_files")},
        "stores": {name: _digest(folder) for name, folder in stores.items()},
        "plan": _digest(cache / "plans" / content["plan"]) if "plan" in content else None,
    }


def _digest(folder: Path) -> str | None:
    """Of all files of a finished part of the cache, without its manifests, which have seconds."""
    finished = manifest.read(folder)
    if finished is None:
        return None
    names = {name for name in finished.files if Path(name).name != manifest.MANIFEST}
    return fingerprint({name: finished.files[name] for name in sorted(names)})


def _train(folder: Path) -> dict[str, Any]:
    finished = manifest.read(folder)
    if finished is None:
        return {}
    lines = [computed(line) for line in read_lines(folder / METRICS_FILE)]
    weights = {name: sha for name, sha in finished.files.items() if name != METRICS_FILE}
    return {
        "steps": finished.facts.get("steps", len(lines)),
        "steps_sha256": fingerprint(lines),
        "losses": [line.get("loss") for line in lines] if len(lines) <= MOST_LOSSES else None,
        "files": weights,
        "checkpoint": _checkpoint(folder / "checkpoints"),
    }


def read_lines(path: Path) -> list[dict[str, Any]]:
    """The lines of a finished training's metrics.jsonl."""
    from ropewalk.train.metrics.writers import read_metrics

    return read_metrics(path.parent)


def computed(line: Json) -> dict[str, Any]:
    """What of a step's line another run of the same settings has too."""
    return {key: _without_seconds(line[key]) for key in COMPUTED if key in line}


def _without_seconds(value: Any) -> Any:
    if not isinstance(value, dict):
        return value
    return {key: _without_seconds(item) for key, item in value.items() if key != "seconds"}


def _checkpoint(folder: Path) -> dict[str, Any] | None:
    """The last one: its step, its mesh, and the sha256 of each file of weights and moments."""
    from ropewalk.train.checkpoint import storage

    for _, metadata in storage.iter_checkpoints(folder):
        files = {
            name: file["sha256"]
            for name, file in metadata.get("files", {}).items()
            if name.endswith((".pt", ".safetensors"))
        }
        mesh = {key: metadata.get(key) for key in ("world_size", "sp_size", "zero_stage")}
        return {"step": metadata["step"], **mesh, "files": files}
    return None


def _eval(folder: Path) -> dict[str, Any]:
    finished, content = manifest.read(folder), _json(folder / "results.json")
    if finished is None or not content:
        return {}
    samples = {name: sha for name, sha in finished.files.items() if name != "results.json"}
    return {
        "measures": fingerprint(measured(content)),
        "samples": samples,
        "verdicts": {gate["name"]: gate["verdict"] for gate in content.get("gates", [])},
    }


def measured(content: Json) -> dict[str, Any]:
    """What of results.json another run of the same settings has too."""
    return {key: content[key] for key in MEASURED if key in content}


def values(run: Path) -> dict[str, float]:
    """The numbers that a spread over seeds is stated for: the loss at the training's end, and that
    of the judged model on held-out text. Accuracies on few questions have no such spread: where
    all seeds get all of them right it would be 0."""
    return dict(_values(run))


def _values(run: Path) -> Iterator[tuple[str, float]]:
    if manifest.read(run / "train") is not None:
        losses: list[Any] = [line.get("loss") for line in read_lines(run / "train" / METRICS_FILE)]
        numbers = [loss for loss in losses if _is_number(loss)]
        if numbers:
            last = numbers[-max(1, len(numbers) // LAST_SHARE) :]
            yield "train loss, last tenth", sum(last) / len(last)
    content = _json(run / "eval" / "results.json")
    if manifest.read(run / "eval") is not None:
        column = content.get("judged") or "extended"
        loss = mean_nll((content.get("models") or {}).get(column) or {})
        if loss is not None:
            yield f"held-out loss, {column}", loss


def mean_nll(tasks: Json) -> float | None:
    """Nats a token over all positions; None where it was not measured."""
    bins = tasks.get("nll_by_position") or []
    tokens = sum(row["tokens"] for row in bins)
    return sum(row["nll"] * row["tokens"] for row in bins) / tokens if tokens else None


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and math.isfinite(value)


def _json(path: Path) -> dict[str, Any]:
    """The object in a file; empty for one that is missing or damaged."""
    try:
        content = read_json(path)
    except UNREADABLE:
        return {}
    return content if isinstance(content, dict) else {}
