"""The report page, read back with an HTML parser: complete, escaped, self-contained, the same bytes every time."""

import json
import math
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from ropewalk.conf.errors import DataError
from ropewalk.eval.report.figures.rope import dimensions
from ropewalk.eval.report.page import render

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
    return [
        {
            "from": 256 * k,
            "to": 256 * (k + 1),
            "nll": nll,
            "tokens": 3072 + k,
            "low": nll - 0.081,
            "high": nll + 0.084,
        }
        for k, nll in enumerate(BLOCKS[model])
    ]


def gain_rows(model: str) -> list[dict[str, Any]]:
    rows, reference = [], GAIN[model][2]
    for context, nll in zip(CONTEXTS, GAIN[model], strict=True):
        change, half = nll - reference, 0.0 if context == 256 else 0.03
        row = {
            "context": context,
            "nll": nll,
            "tokens": 2048,
            "low": nll - 0.07,
            "high": nll + 0.07,
        }
        row |= {
            "difference": change,
            "difference_low": change - 1.1 * half,
            "difference_high": change + half,
        }
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
    verdicts = [
        (
            "Base past its window",
            "+2.13 nats",
            "loss past the window over inside it: above +1",
            True,
        ),
        ("Inside the original window", 0.003, "extended against base: at most +0.05", True),
        ("Same tokens, longer context", "-0.180 nats [-0.213, -0.150]", "interval below 0", True),
        ("Passkey at 2,048", "75%", "mean over the depths: at least 80%", False),
    ]
    verdicts = [
        dict(zip(("name", "value", "rule", "holds"), verdict, strict=True)) for verdict in verdicts
    ]
    return {
        "schema": 1,
        "base_window": 256,
        "length": 2048,
        "documents": 12,
        "windows": 16,
        "models": models,
        "verdicts": verdicts,
        "notes": ["Intervals are bootstrapped over documents."],
    }


def rope() -> dict[str, Any]:
    """Ramp by hand: four frequencies kept, four blended, eight interpolated, of sixteen."""
    base = [10_000 ** (-i / 16) for i in range(16)]
    shares = [0.0] * 4 + [0.2, 0.4, 0.6, 0.8] + [1.0] * 8
    inv_freq = [f * (1 - s * (1 - 1 / 8)) for f, s in zip(base, shares, strict=True)]
    parameters = {
        "rope_type": "yarn",
        "rope_theta": 10000.0,
        "factor": 8.0,
        "original_max_position_embeddings": 256,
    }
    return {
        "schema": 1,
        "method": "yarn",
        "factor": 8.0,
        "original_max_position_embeddings": 256,
        "max_position_embeddings": 2048,
        "rope_theta": 10000.0,
        "inv_freq": inv_freq,
        "attention_factor": 1.2079,
        "rope_parameters": parameters,
        "hash": "9f" * 32,
        "base": {
            "inv_freq": base,
            "attention_factor": 1.0,
            "rope_parameters": {"rope_type": "default"},
        },
    }


def source(kind: str, share: float, **extra: Any) -> dict[str, Any]:
    row = {
        "kind": kind,
        "documents": 812,
        "tokens": 3_412_908,
        "heldout_documents": 41,
        "heldout_tokens": 170_233,
    }
    row |= {"dropped": 3, "cut": 17, "refused": {}, "epochs": 0.62, "share_in_plan": share}
    return row | {"tokens_in_plan": round(1_228_800 * share)} | extra


def ledger() -> dict[str, Any]:
    plan = {
        "sequences": 600,
        "seq_len": 2048,
        "tokens": 1_228_800,
        "padding": 1311,
        "fill": 0.99893,
        "pieces": 1483,
    }
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


def make_run(folder: Path) -> Path:
    run = folder / "demo-x8"
    write_json(run / "rope.json", rope())
    write_json(run / "data" / "ledger.json", ledger())
    write_json(run / "eval" / "results.json", results())
    stages = {
        name: {"fingerprint": f"{k}a" * 32, "seconds": 71.5 * k}
        for k, name in enumerate(("data", "rope", "train", "eval"))
    }
    manifest = {
        "schema": 1,
        "stages": stages,
        "versions": {"torch": "2.14.1"},
        "machine": {"cores": 2, "gpus": []},
    }
    write_json(
        run / "manifest.json", manifest | {"command": "ropewalk run recipe=demo name=demo-x8"}
    )
    (run / "train").mkdir()
    (run / "train" / "metrics.jsonl").write_text(
        "".join(json.dumps(row) + "\n" for row in metrics())
    )
    (run / "config.yaml").write_text(
        "name: demo-x8\nmodel:\n  path: builtin:demo\nnote: <b>&\nseed: 0\n"
    )
    return run


@pytest.fixture
def run_dir(tmp_path: Path) -> Path:
    """A run folder that the test may change."""
    return make_run(tmp_path)


@pytest.fixture(scope="module")
def html(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The full page, rendered once for the tests that only read it."""
    return render(make_run(tmp_path_factory.mktemp("run")))


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

    def words(self, section: str) -> list[str]:
        return self.text[section].replace("\u2212", "-").split()

    def values(self, name: str) -> list[str]:
        return [value for key, value in self.attributes if key == name]


def test_every_number_of_the_results_is_on_the_page(html):
    page = Page(html)
    for model in results()["models"].values():
        for row in model["nll_by_position"]:
            expected = [f"{row[key]:,}" for key in ("from", "to", "tokens")] + [
                f"{row[key]:.3f}" for key in ("nll", "low", "high")
            ]
            assert set(expected) <= set(page.words("position"))
        assert {f"{value:.2f}" for value in model["perplexity"].values()} <= set(
            page.words("perplexity")
        )
        for row in model["context_gain"]:
            expected = [f"{row[key]:.3f}" for key in ("nll", "low", "high")]
            expected += [
                f"{row[key]:+.3f}" for key in ("difference", "difference_low", "difference_high")
            ]
            assert {*expected, f"{row['context']:,}", f"{row['tokens']:,}"} <= set(
                page.words("gain")
            )
        for row in model["passkey"]:
            expected = [f"{row[key]:.2f}" for key in ("accuracy", "low", "high")]
            assert {*expected, f"{row['length']:,}", f"{row['depth']:.0%}", str(row["n"])} <= set(
                page.words("passkey")
            )


def test_verdicts_show_what_does_not_hold(html):
    header = re.sub(r"\s+", " ", Page(html).text["header"])
    for verdict in results()["verdicts"]:
        assert (
            verdict["name"] in header
            and verdict["rule"] in header
            and str(verdict["value"]) in header
        )
    assert header.count("✓ holds") == 3 and header.count("✗ does not hold") == 1
    assert "3 of 4 checks hold" in header and "1 does not" in header
    assert "256 → 2,048 tokens (×8, yarn)" in header


def test_the_sentences_agree_with_the_numbers(html):
    page = Page(html)
    beyond = {
        name: sum(v * (3073 + k) for k, v in enumerate(b[1:])) / sum(3073 + k for k in range(7))
        for name, b in BLOCKS.items()
    }
    listed = "{base:.3f} (base), {rescaled:.3f} (rescaled) and {extended:.3f} (extended)".format(
        **beyond
    )
    assert (
        f"Beyond the base's window of 256 tokens the mean loss is {listed};"
        in page.text["position"]
    )
    assert (
        "targets changes by \u22120.180 nats (\u22120.213 to \u22120.150): lower."
        in page.text["gain"]
    )
    assert (
        "Beyond 256 tokens the keys found are 0 of 300 (base), 95 of 300 (rescaled) and 270 of 300 (extended)"
        in page.text["passkey"]
    )
    assert (
        "Of 16 frequencies 4 are kept, 8 are interpolated by the full factor and 4 lie in between"
        in page.text["rope"]
    )
    assert "71.2% of the plan's tokens have more than 256 tokens" in page.text["data"]
    assert "31.8% have more than 1,024." in page.text["data"]


def test_a_difference_whose_interval_holds_zero_is_not_called_one(run_dir):
    changed = results()
    changed["models"]["extended"]["context_gain"][-1] |= {
        "difference": -0.01,
        "difference_low": -0.03,
        "difference_high": 0.01,
    }
    write_json(run_dir / "eval" / "results.json", changed)
    assert "not shown to differ" in Page(render(run_dir)).text["gain"]


def test_the_page_needs_nothing_outside_itself(html):
    page = Page(html)
    assert not {"script", "link", "iframe", "img", "object", "embed", "base"} & set(page.tags)
    assert not page.values("src")
    assert all(value.startswith("#") for value in page.values("href"))
    assert not re.search(r"https?:|//[a-z]|@import|@font-face", html)
    assert all(target.startswith("#") for target in re.findall(r"url\(([^)]*)\)", html))


def test_text_from_the_run_is_escaped(html):
    page = Page(html)
    assert "script" not in page.tags and "b" in page.tags
    assert "<script>alert(1)</script>" in page.text["data"]
    assert "passkey $a$" in page.text["data"]
    assert "note: <b>&" in page.text["reproduce"]


def test_ids_are_unique_and_every_reference_is_met(html):
    page = Page(html)
    ids = page.values("id")
    assert len(ids) == len(set(ids)) > 100
    references = {value[1:] for value in page.values("href")} | set(
        re.findall(r"url\(#([^)]*)\)", html)
    )
    assert references <= set(ids)


def test_the_same_files_give_the_same_bytes(html, run_dir):
    assert render(run_dir) == html


def test_figures_take_their_colours_from_the_page(html):
    svg = "".join(re.findall(r"<svg.*?</svg>", html, flags=re.S))
    assert not re.search(r"#[0-9a-f]{6}\b", svg)
    assert {"var(--base)", "var(--rescaled)", "var(--extended)"} <= set(
        re.findall(r"var\(--\w+\)", svg)
    )


MISSING = {
    "eval/results.json": ["position", "perplexity", "gain", "passkey"],
    "rope.json": ["rope"],
    "data/ledger.json": ["data"],
    "train/metrics.jsonl": ["training"],
}


@pytest.mark.parametrize("name", MISSING)
def test_a_missing_stage_is_reported(html, run_dir, name):
    (run_dir / name).unlink()
    for section, text in Page(render(run_dir)).text.items():
        if section not in ("header", "reproduce"):
            assert ("Not run." in text) == (section in MISSING[name]), section
    assert "Not run." not in "".join(Page(html).text.values())


def test_an_empty_run_folder_is_all_not_run(tmp_path):
    page = Page(render(tmp_path))
    assert sum(text.count("Not run.") for text in page.text.values()) == 7
    assert page.text["reproduce"].count("not run") == 4
    assert "config.yaml is not in this run" in page.text["reproduce"]
    assert "svg" not in page.tags


def test_a_missing_model_keeps_its_column(run_dir):
    changed = results()
    del changed["models"]["extended"]
    write_json(run_dir / "eval" / "results.json", changed)
    page = Page(render(run_dir))
    assert "extended" in page.words("perplexity")
    assert page.text["perplexity"].count("not run") == 4
    assert "Not run." in page.text["passkey"]
    assert "(extended)" not in page.text["position"]


def test_rows_without_intervals_are_drawn_and_dashed(run_dir):
    changed = results()
    for model in changed["models"].values():
        for row in [*model["nll_by_position"], *model["passkey"], *model["context_gain"]]:
            for key in [k for k in row if k.endswith(("low", "high")) or k == "difference"]:
                del row[key]
    write_json(run_dir / "eval" / "results.json", changed)
    page = Page(render(run_dir))
    assert "– to –" in re.sub(r"\s+", " ", page.text["gain"])
    assert "changes by" not in page.text["gain"]


@pytest.mark.parametrize(
    "name", ["rope.json", "data/ledger.json", "eval/results.json", "manifest.json"]
)
def test_every_part_may_be_null(run_dir, name):
    """A null is a missing value: no crash, and no number in its place."""
    write_json(run_dir / name, dict.fromkeys(json.loads((run_dir / name).read_text())))
    page = Page(render(run_dir))
    assert "None" not in "".join(page.text.values())


def test_one_step_and_a_resumed_run(run_dir):
    path = run_dir / "train" / "metrics.jsonl"
    first = metrics()[0]
    path.write_text(json.dumps(first) + "\n")
    assert (
        "the loss of the first and the last step" in Page(render(run_dir)).text["training"].lower()
    )
    path.write_text(
        "".join(
            json.dumps(row) + "\n" for row in [first, metrics()[1], {**metrics()[1], "loss": 9.125}]
        )
    )
    text = Page(render(run_dir)).text["training"]
    assert "9.125" in text and "1 steps were written again" in text


@pytest.mark.parametrize(
    ("name", "content"), [("rope.json", "{"), ("rope.json", "[]"), ("rope.json", '{"schema": 2}')]
)
def test_an_unreadable_artifact_is_refused_by_name(run_dir, name, content):
    (run_dir / name).write_text(content)
    with pytest.raises(DataError, match=r"rope\.json .*; .*; "):
        render(run_dir)


def test_shares_and_rotations_of_the_rope_table():
    rows = dimensions(rope())
    assert [round(row["share"], 9) for row in rows] == [0.0] * 4 + [0.2, 0.4, 0.6, 0.8] + [1.0] * 8
    assert rows[0]["before"] == pytest.approx(6.283185) and rows[0]["rotations"] == pytest.approx(
        40.743665
    )
    assert rows[-1]["after"] == pytest.approx(8 * rows[-1]["before"])
    assert all(row["share"] is None for row in dimensions(rope() | {"factor": 1.0}))
