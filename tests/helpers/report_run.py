"""Artifacts of a finished run by hand, and its report page parsed."""

import json
import math
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

BLOCKS = {  # loss by blocks of 256 positions
    "base": [2.831, 3.912, 4.921, 4.903, 5.034, 5.217, 5.149, 5.568],
    "rescaled": [2.978, 3.107, 3.113, 3.011, 2.992, 3.168, 3.054, 3.271],
    "extended": [2.834, 2.842, 2.683, 2.661, 2.648, 2.779, 2.613, 2.889],
}
KEYS = {
    "base": [1.0, 0.0, 0.0, 0.0],
    "rescaled": [0.6, 0.5, 0.2, 0.25],
    "extended": [1.0, 0.95, 1.0, 0.75],
}
CONTEXTS = [64, 128, 256, 512, 1024, 2048]
GAIN = {
    "base": [3.31, 3.02, 2.87, 4.11, 4.97, 5.42],
    "rescaled": [3.44, 3.17, 3.03, 3.01, 3.06, 3.13],
    "extended": [3.32, 3.04, 2.88, 2.79, 2.73, 2.70],
}
LENGTHS = [256, 512, 1024, 2048]


def position_rows(model: str) -> list[dict[str, Any]]:
    rows = []
    for k, nll in enumerate(BLOCKS[model]):
        row = {"from": 256 * k, "to": 256 * (k + 1), "tokens": 3072 + k}
        rows.append(row | {"nll": nll, "low": nll - 0.081, "high": nll + 0.084})
    return rows


def gain_rows(model: str) -> list[dict[str, Any]]:
    rows, reference = [], GAIN[model][2]
    for context, nll in zip(CONTEXTS, GAIN[model], strict=True):
        change, half = nll - reference, 0.0 if context == 256 else 0.03
        row = {"context": context, "tokens": 2048}
        row |= {"nll": nll, "low": nll - 0.07, "high": nll + 0.07, "difference": change}
        row |= {"difference_low": change - 1.1 * half, "difference_high": change + half}
        rows.append(row)
    return rows


def passkey_rows(model: str) -> list[dict[str, Any]]:
    """Accuracy grows with depth where it is neither zero nor nearly one."""
    rows = []
    for length, share in zip(LENGTHS, KEYS[model], strict=True):
        for depth in (0.0, 0.25, 0.5, 0.75, 1.0):
            hits = 20 * share + (round(4 * depth - 2) if 0 < share < 0.9 else 0)
            row = {"length": length, "depth": depth, "n": 20, "accuracy": hits / 20}
            rows.append(row | {"low": hits / 20 * 0.9, "high": min(1.0, hits / 20 + 0.13)})
    return rows


def results() -> dict[str, Any]:
    models = {}
    for name in BLOCKS:
        perplexity = {str(256 * n): math.exp(sum(BLOCKS[name][:n]) / n) for n in (1, 2, 4, 8)}
        models[name] = {
            "nll_by_position": position_rows(name),
            "perplexity": perplexity,
            "passkey": passkey_rows(name),
            "context_gain": gain_rows(name),
        }
    return {
        "schema": 2,
        "base_window": 256,
        "length": 2048,
        "documents": 12,
        "windows": 16,
        "models": models,
        "gates": [*checks(), *gates()],
        "notes": ["Intervals are bootstrapped over documents."],
    }


def gate(question: int | None, verdict: str, text: str, **facts: Any) -> dict[str, Any]:
    """A row of `gates`; its interval is that of the text."""
    row = {"question": question, "name": f"gate {question}", "verdict": verdict, "text": text}
    row |= {"value": 0.1, "low": 0.0, "high": 0.2, "tolerance": 0.02, "p": 0.03}
    return {
        **row,
        "n": 32,
        "unit": "document",
        "rule": "interval below 0",
        "decides": True,
        **facts,
    }


def checks() -> list[dict[str, Any]]:
    """Gates of no question: one of each verdict."""
    rule = "loss past the window over inside it: above +1"
    rise = gate(
        None, "pass", "+2.130 nats [+1.980, +2.290]", name="Base past its window", rule=rule
    )
    rescaled = gate(None, "fail", "+0.210 nats [+0.100, +0.320]", name="Rescaled only", rule="<0")
    other = gate(None, "undecided", "79% [71%, 85%]", name="Other", rule=">80%", needed_n=61523)
    return [rise, rescaled, other]


def gates() -> list[dict[str, Any]]:
    """Of the five questions: yes, no, undecided, not measured, and one of two gates."""
    return [
        gate(1, "pass", "-0.412 nats [-0.520, -0.301]"),
        gate(2, "fail", "-0.003 nats [-0.009, -0.001]"),
        gate(3, "undecided", "81% [72%, 88%]", unit="haystack", n=50, needed_n=412),
        gate(5, "pass", "+0.004 nats [-0.002, +0.010]", n=128),
        gate(5, "undecided", "-0.4 points [-1.3, +0.5]", unit="question", n=1172, needed_n=9214),
    ]


def rope() -> dict[str, Any]:
    """Ramp by hand: four frequencies kept, four blended, eight interpolated, of sixteen."""
    base = [10_000 ** (-i / 16) for i in range(16)]
    shares = [0.0] * 4 + [0.2, 0.4, 0.6, 0.8] + [1.0] * 8
    inv_freq = [f * (1 - s * (1 - 1 / 8)) for f, s in zip(base, shares, strict=True)]
    parameters = {"rope_type": "yarn", "rope_theta": 10000.0, "factor": 8.0}
    default = {"rope_type": "default"}
    return {
        "schema": 1,
        "method": "yarn",
        "factor": 8.0,
        "original_max_position_embeddings": 256,
        "max_position_embeddings": 2048,
        "rope_theta": 10000.0,
        "inv_freq": inv_freq,
        "attention_factor": 1.2079,
        "rope_parameters": {**parameters, "original_max_position_embeddings": 256},
        "hash": "9f" * 32,
        "base": {"inv_freq": base, "attention_factor": 1.0, "rope_parameters": default},
    }


def source(kind: str, share: float, **extra: Any) -> dict[str, Any]:
    row = {"kind": kind, "documents": 812, "tokens": 3_412_908}
    row |= {"heldout_documents": 41, "heldout_tokens": 170_233}
    row |= {"dropped": 3, "cut": 17, "refused": {}, "epochs": 0.62, "share_in_plan": share}
    return row | {"tokens_in_plan": round(1_228_800 * share)} | extra


def ledger() -> dict[str, Any]:
    plan: dict[str, Any] = {"sequences": 600, "seq_len": 2048, "tokens": 1_228_800}
    plan |= {"padding": 1311, "fill": 0.99893, "pieces": 1483}
    plan |= {"packer": "best_fit", "document_mask": True, "positions": "restart"}
    plan["own_context_share"] = {"256": 0.712, "512": 0.541, "1024": 0.318, "2048": 0.0}
    plan["piece_lengths"] = {"1-256": 322, "257-1024": 659, "1025-2048": 502}
    stdlib = source("tree", 0.452, refused={"not UTF-8": 2, "empty": 5})
    sources = {
        "stdlib": stdlib,
        "<script>alert(1)</script>": source("repeat", 0.25),
        "passkey $a$": source("passkey", 0.298),
    }
    return {"schema": 1, "sources": sources, "plan": plan}


def metrics() -> list[dict[str, Any]]:
    return [
        {
            "step": k,
            "loss": 2.7 + 0.5 * math.exp(-k / 25) + 0.05 * math.sin(k * 2.3),
            "grad_norm": None if k == 7 else 0.4 + 0.1 * math.cos(k * 1.7),
            "lr": 1e-3 * min(k / 10, (150 - k) / 140),
            "tokens": 8192,
            "tokens_per_s": 5400 + 130 * math.sin(k),
            "step_time_s": 1.5,
            "peak_memory_bytes": 2 * 1024**3,
            "sequences": [4 * k, 4 * k + 1],
        }
        for k in range(1, 151)
    ]


def write_json(path: Path, value: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value))


def write_metrics(run: Path, rows: list[dict[str, Any]]) -> None:
    (run / "train").mkdir(exist_ok=True)
    text = "".join(json.dumps(row) + "\n" for row in rows)
    (run / "train" / "metrics.jsonl").write_text(text)


def make_run(folder: Path, evaluation: dict[str, Any] | None = None) -> Path:
    """A run folder with the artifacts of every stage; `evaluation`: results.json."""
    run = folder / "demo-x8"
    write_json(run / "rope.json", rope())
    write_json(run / "data" / "ledger.json", ledger())
    write_json(run / "eval" / "results.json", evaluation or results())
    stages = {
        name: {"fingerprint": f"{k}a" * 32, "seconds": 71.5 * k}
        for k, name in enumerate(("data", "rope", "train", "eval"))
    }
    manifest = {"schema": 1, "stages": stages, "command": "ropewalk run recipe=demo name=demo-x8"}
    manifest |= {"versions": {"torch": "2.14.1"}, "machine": {"cores": 2, "gpus": []}}
    write_json(run / "manifest.json", manifest)
    write_metrics(run, metrics())
    config = "name: demo-x8\nmodel:\n  path: builtin:demo\nnote: <b>&\nseed: 0\n"
    (run / "config.yaml").write_text(config)
    return run


class Page(HTMLParser):
    """The parsed page: text by section, tags, attributes."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.section, self.text, self.tags, self.attributes = "", {}, [], []
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [(key, value or "") for key, value in attrs]
        if tag in ("section", "header"):
            self.section = dict(attrs).get("id") or tag

    def handle_data(self, data: str) -> None:
        self.text[self.section] = self.text.get(self.section, "") + " " + data

    def tokens(self, section: str) -> set[str]:
        return set(self.text[section].replace("\u2212", "-").split())

    def values(self, name: str) -> list[str]:
        return [value for key, value in self.attributes if key == name]
