"""Finished runs by hand, with kept samples of chosen losses: what `ropewalk compare` reads."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from ropewalk.conf.artifacts import manifest
from ropewalk.conf.artifacts.records import signed, write_json
from ropewalk.eval.measure.store import ResultStore
from ropewalk.eval.requests import Prompt, Prompts, Reply, Request, Result, Text, digest

WINDOW, LENGTH, TARGETS = 16, 64, 8
TASKS = ("nll_by_position", "context_gain", "short_context", "passkey")


@dataclass
class Kept:
    """What one column answered. N windows, D short documents, Q questions."""

    windows: np.ndarray
    """(N, LENGTH - 1) nats."""
    short: np.ndarray
    """(D, WINDOW - 1) nats."""
    targets: np.ndarray
    """(N, TARGETS) nats: the last tokens of the windows, given WINDOW tokens."""
    right: Sequence[bool] = ()
    """(Q,)"""


def planted(
    seed: int, n: int = 24, past: float = 0.0, short: float = 0.0, far: float = 0.5, **more: Any
) -> Kept:
    """Losses of documents that differ by more than the models do: `past` nats past the window and
    `short` on short text are added; given the whole window the targets are `far` nats lower.

    `seed`: of what differs between two models. The documents are the same for every seed.
    """
    level = np.random.default_rng(0).normal(3.0, 1.0, n)[:, None]
    own = np.random.default_rng(seed + 1)
    windows = level + own.normal(0, 0.3, (n, LENGTH - 1))
    windows[:, WINDOW - 1 :] += past
    targets = windows[:, -TARGETS:] + far + own.normal(0, 0.05, (n, TARGETS))
    documents = level + short + own.normal(0, 0.3, (n, WINDOW - 1))
    right = own.random(more.pop("questions", 40)) < more.pop("share", 0.8)
    return Kept(windows, documents, targets, right.tolist(), **more)


@dataclass
class RunFolder:
    """What stands in the run's folder beside the samples."""

    name: str
    columns: Mapping[str, Kept]
    seed: int = 0
    settings: Mapping[str, Any] = field(default_factory=dict)
    results: Mapping[str, Any] = field(default_factory=dict)
    facts: Mapping[str, Any] = field(default_factory=dict)
    texts: int = 0
    """Seed of the texts: two runs with equal ones were asked the same."""
    step_s: float = 9.0
    ranks: int = 2
    gpus: Sequence[str] = ("NVIDIA H100",)

    def write(self, runs: Path) -> Path:
        run = runs / self.name
        run.mkdir(parents=True)
        (run / "config.yaml").write_text(yaml.safe_dump(self._config()))
        machine = {"system": "Linux", "gpus": list(self.gpus)}
        record = {"schema": 1, "name": self.name, "command": f"ropewalk run name={self.name}"}
        record |= {"versions": {"torch": "2.14.1"}, "machine": machine, "stages": {}}
        write_json(run / "manifest.json", signed(record))
        content: dict[str, Any] = {"plan": "5f6b77d4311f4625", "stores": {"books": "2c16"}}
        manifest.run_stage("data", content, run / "data", lambda _: {})
        if any(name == "extended" for name in self.columns):
            manifest.run_stage("train", {"seed": self.seed}, run / "train", self._train)
        trained = manifest.read(run / "train")
        inputs = {"train": trained.fingerprint} if trained else {}
        key = {"inputs": inputs, "format": 10}
        manifest.run_stage("eval", key, run / "eval", self._evaluate)
        return run

    def _config(self) -> dict[str, Any]:
        config: dict[str, Any] = {"schema": 1, "name": self.name, "seed": self.seed}
        config |= {"rope": {"method": "yarn", "factor": 4.0}, "train": {"optimizer": {"lr": 1e-3}}}
        named = {name: {"path": "org/x"} for name in self.columns if name not in BUILT_IN}
        return config | {"eval": {"models": named}} | dict(self.settings)

    def _train(self, folder: Path) -> dict[str, Any]:
        rate = {"tokens_per_s": 100.0 * self.ranks, "tokens_per_s_per_rank": 100.0}
        lines = [{"step": k, "loss": 2.0, "step_time_s": self.step_s, **rate} for k in (1, 2, 3)]
        text = "".join(json.dumps(line) + "\n" for line in lines)
        (folder / "metrics.jsonl").write_text(text)
        return {"steps": 3}

    def _evaluate(self, folder: Path) -> dict[str, Any]:
        for label, kept in self.columns.items():
            write_samples(folder / "samples" / label, kept, self.texts)
        write_json(folder / "results.json", self._content())
        return {}

    def _content(self) -> dict[str, Any]:
        names = list(self.columns)
        judged = "extended" if "extended" in names else names[-1]
        facts = {"tokenizer": "t0", "rope": "yarn", "rope_hash": "9f", "dtype": "fp32"}
        content: dict[str, Any] = {"schema": 2, "seed": self.seed, "reference": names[0]}
        content |= {"judged": judged, "base_window": WINDOW, "length": LENGTH, "targets": TARGETS}
        content |= {"documents": 24, "windows": 24, "layout": {}, "gates": [], "notes": []}
        content["columns"] = {
            name: {"identity": f"{self.name if name == 'extended' else ''} {name}", **facts}
            | dict(self.facts)
            for name in names
        }
        content["models"] = {name: rows(kept) for name, kept in self.columns.items()}
        return content | dict(self.results)


BUILT_IN = ("base", "rescaled", "extended")


def rows(kept: Kept) -> dict[str, Any]:
    """Means by position, as a run has them."""
    bins = []
    for start in range(0, LENGTH, 16):
        part = kept.windows[:, max(start - 1, 0) : start + 15]
        mean = float(part.mean())
        bins.append({"from": start, "to": start + 16, "tokens": part.size, "nll": mean})
        bins[-1] |= {"low": mean - 0.1, "high": mean + 0.1}
    return {"nll_by_position": bins}


def write_samples(folder: Path, kept: Kept, texts: int) -> None:
    """As the eval stage keeps them."""
    lines: list[dict[str, Any]] = []
    results: dict[str, Result] = {}

    def add(task: str, name: str, unit: str, request: Request, result: Result, **more: Any) -> None:
        lines.append({"task": task, "id": name, "unit": unit, "request": digest(request), **more})
        results[digest(request)] = result

    for number, losses in enumerate(kept.windows):
        ids = tokens(texts, number, LENGTH)
        for task in ("nll_by_position", "context_gain"):
            add(task, f"window/{number:03}", f"document {number}", Text(ids), losses)
        near = Text(ids[-WINDOW:], WINDOW - TARGETS)
        name = f"context/{WINDOW}/{number:03}"
        add("context_gain", name, f"document {number}", near, kept.targets[number], length=WINDOW)
    for number, losses in enumerate(kept.short):
        ids = tokens(texts, 1000 + number, WINDOW)
        add("short_context", f"short/{number:03}", f"document {number}", Text(ids), losses)
    for number, right in enumerate(kept.right):
        ids = tokens(texts, 2000 + number, LENGTH)
        prompt, name = Prompt(ids[:-3], ids[-3:]), f"passkey/{LENGTH}/0.5/{number:03}"
        reply = (Reply(3 if right else 1, 1.0),)
        facts = {"length": LENGTH, "depth": 0.5, "scores": [float(right)]}
        add("passkey", name, name, Prompts((prompt,)), reply, **facts)
    store = ResultStore(folder)
    store.extend(results)
    (folder / "samples.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))


def tokens(texts: int, number: int, length: int) -> np.ndarray:
    return np.random.default_rng([texts, number]).integers(0, 1000, length)
