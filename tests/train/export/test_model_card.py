"""The model card: what huggingface_hub reads from it is what results.json says."""

import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml
from huggingface_hub import ModelCard, parse_eval_result_entries
from huggingface_hub.repocard_data import eval_results_to_model_index, model_index_to_eval_results
from report_run import ledger, results

from ropewalk.conf.artifacts.records import is_signed
from ropewalk.train.export import benchmarks, model_card
from ropewalk.train.export.card_sections import Origin

PLAN: Any = SimpleNamespace(
    method="yarn",
    factor=8.0,
    rope_theta=10000.0,
    rope_parameters={"rope_type": "yarn", "factor": 8.0},
    hash="9f" * 32,
    attention_factor=1.2079,
    original_max_position_embeddings=256,
    max_position_embeddings=2048,
)
PROTOCOL = {"unit": "haystack", "protocol": "JSON key-value, 2 shots"}
FOUND = {"length": 2048, "n": 400, "accuracy": 0.835, "low": 0.79, "high": 0.87, **PROTOCOL}


def measured() -> dict[str, Any]:
    """The sample, with key-value rows: two depths, all depths, and a length without a value."""
    content = results()
    floor = {"length": 64, "n": 0, "accuracy": None, "low": None, "reason": "too short", **PROTOCOL}
    cells = [FOUND | {"depth": depth, "accuracy": 0.5} for depth in (0.0, 1.0)]
    content["models"]["extended"]["json_kv"] = [floor, *cells, FOUND]
    content["models"]["extended"]["longppl"] = [{"longppl": math.inf, "n": 8}]
    return content


def front(text: str) -> Any:
    return yaml.safe_load(text.split("---")[1])


def test_the_hub_reads_the_values_of_the_results() -> None:
    content = measured()
    text = model_card.card("demo-x8", PLAN, Origin("meta-llama/Llama-3.2-1B"), content)
    read: Any = ModelCard(text).data
    name, entries = model_index_to_eval_results(front(text)["model-index"])
    assert name == read.model_name == "demo-x8" and read.base_model == "meta-llama/Llama-3.2-1B"
    assert eval_results_to_model_index(name, entries) == front(text)["model-index"]
    own = content["models"]["extended"]
    by_type: dict[str, list[Any]] = {}
    for entry in entries:
        by_type.setdefault(entry.dataset_type, []).append(entry)
    values = {e.dataset_config: e.metric_value for e in by_type["ropewalk-perplexity"]}
    assert values == own["perplexity"]
    (found,) = by_type["ropewalk-json-kv"]
    assert (found.metric_type, found.metric_value, found.dataset_config) == (
        "accuracy",
        0.835,
        "2048",
    )
    assert found.metric_args == {"low": 0.79, "high": 0.87, "n": 400, **PROTOCOL}
    assert found.dataset_name == "JSON key-value, 2 shots"
    hits = [row["accuracy"] * row["n"] for row in own["passkey"] if row["length"] == 2048]
    passkeys = {e.dataset_config: e for e in by_type["ropewalk-passkey"]}
    assert passkeys["2048"].metric_value == pytest.approx(sum(hits) / 100)
    assert passkeys["2048"].metric_args["n"] == 100


def test_parts_of_a_task_at_one_length_are_told_apart() -> None:
    """All documents, and the two bounds beside them: three metrics with names of their own."""
    content, kinds = results(), ("all documents", "closed book", "oracle")
    row = {"length": 2048, "n": 40, "low": 0.1, "high": 0.9, **PROTOCOL}
    rows = [row | {"documents": kind, "accuracy": 0.5} for kind in kinds]
    content["models"]["extended"]["multi_document_qa"] = rows
    entries = model_card.eval_results(content)
    own = [entry for entry in entries if entry.dataset_type == "ropewalk-multi-document-qa"]
    assert [entry.dataset_config for entry in own] == [f"{kind} 2048" for kind in kinds]
    assert len({entry.metric_name for entry in own}) == 3


def test_only_the_exported_model_s_column_counts_and_no_value_is_no_metric() -> None:
    content = measured()
    content["models"]["base"]["json_kv"] = [FOUND | {"accuracy": 0.111}]
    text = model_card.card("demo-x8", PLAN, Origin(), content)
    assert "0.111" not in text and "inf" not in text and "base_model" not in text
    del content["models"]["extended"]
    assert "model-index" not in model_card.card("demo-x8", PLAN, Origin(), content)


def test_a_model_that_was_not_measured_has_a_card_without_numbers() -> None:
    text = model_card.card("demo-x8", PLAN, Origin(), None)
    assert (
        "Not measured." in text and ModelCard(text).data.to_dict()["library_name"] == "transformers"
    )


def test_a_card_that_is_there_keeps_its_text_and_licence(tmp_path: Path) -> None:
    (tmp_path / "README.md").write_text(
        "---\nlicense: apache-2.0\ntags: [mine]\n---\nMy own text.\n"
    )
    model_card.write(tmp_path, model_card.card("demo-x8", PLAN, Origin(), measured()))
    text = (tmp_path / "README.md").read_text()
    assert "My own text." in text and "Ropewalk" not in text
    assert front(text)["license"] == "apache-2.0" and "yarn" in front(text)["tags"]
    assert ModelCard(text).data.to_dict()["model-index"]


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("meta-llama/Llama-3.2-1B", "meta-llama/Llama-3.2-1B"),
        ("/home/me/base", None),
        ("./base", None),
    ]
    + [("~/base", None), ("builtin:demo", None), ("", None)],
)
def test_a_folder_s_path_is_no_name(path: str, name: str | None) -> None:
    config: Any = SimpleNamespace(model=SimpleNamespace(path=path))
    assert model_card.public_name(config) == name


RECORD: dict[str, Any] = {
    "command": "ropewalk run recipe=demo",
    "seeds": {"seed": 3},
    "environment": "e",
    "environments": {
        "e": {"code": {"ropewalk": "0.1.0", "commit": "c" * 40, "diff": "secret text"}}
    },
    "results": {"train": {"files": {"model/model.safetensors": "d" * 64}}},
}


def test_the_card_has_every_part_and_the_hub_reads_its_metadata() -> None:
    origin = Origin(
        base="meta-llama/Llama-3.2-1B",
        license="llama3.2",
        license_source="by the base's card",
        license_files=["LICENSE"],
        datasets=["allenai/c4"],
        ledger=ledger(),
        record=RECORD,
        commands="vLLM:\n\n```sh\nvllm serve hf --max-model-len 2048\n```",
    )
    text = model_card.card("demo-x8", PLAN, origin, measured())
    read = ModelCard(text).data.to_dict()
    assert (read["license"], read["datasets"]) == ("llama3.2", ["allenai/c4"])
    assert (read["base_model"], read["base_model_relation"]) == (origin.base, "finetune")
    headings = [line for line in text.splitlines() if line.startswith("## ")]
    assert headings == [
        *("## Rope", "## Evaluation", "## Training data", "## Licence", "## Reproduce")
    ]
    assert "--max-model-len 2048" in text and "`LICENSE`" in text and "d" * 64 in text
    assert "| stdlib | tree | 812 | 3,412,908 | 45.2% | 3 |" in text
    failed = next(line for line in text.splitlines() if line.startswith("| gate 2 |"))
    assert (
        failed
        == "| gate 2 | **no** | -0.003 nats [-0.009, -0.001] | 32 (document) | interval below 0 |"
    )


def test_the_manifest_that_is_published_has_no_text_of_changes_and_is_signed() -> None:
    public = model_card.public_record(RECORD)
    assert "secret text" not in str(public) and is_signed(public)
    assert public["environments"]["e"]["code"]["commit"] == "c" * 40


def test_a_licence_is_that_of_the_base_s_card(tmp_path: Path) -> None:
    assert model_card.license_of(tmp_path) is None
    (tmp_path / "README.md").write_text("---\nlicense: gemma\n---\ntext\n")
    assert model_card.license_of(tmp_path) == "gemma"


def test_results_of_registered_benchmarks_are_read_by_the_hub_and_no_others(tmp_path: Path) -> None:
    content = results()
    row = {"part": "lm_eval", "n": 1319, "metric": "exact_match", "protocol": "lm-eval 0.4.13"}
    rows = [
        row | {"task": "gsm8k", "accuracy": 41.5},
        row | {"task": "hellaswag", "accuracy": 60.0},
    ]
    content["models"]["extended"]["short_context"] = rows
    found = benchmarks.entries(content, {"gsm8k": "openai/gsm8k:main", "mmlu": "a/b:c"}, "extended")
    assert benchmarks.write(tmp_path, found) == [".eval_results/gsm8k.yaml"]
    data = yaml.safe_load((tmp_path / ".eval_results" / "gsm8k.yaml").read_text())
    (entry,) = parse_eval_result_entries(data)
    assert (entry.dataset_id, entry.task_id, entry.value) == ("openai/gsm8k", "main", 41.5)
    assert "n 1319" in str(entry.notes)
