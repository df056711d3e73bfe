"""The model card: what huggingface_hub reads from it is what results.json says."""

import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml
from huggingface_hub import ModelCard
from huggingface_hub.repocard_data import eval_results_to_model_index, model_index_to_eval_results
from report_run import results

from ropewalk.train.export import model_card

PLAN: Any = SimpleNamespace(
    method="yarn",
    factor=8.0,
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
    text = model_card.card("demo-x8", PLAN, "meta-llama/Llama-3.2-1B", content)
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
    text = model_card.card("demo-x8", PLAN, None, content)
    assert "0.111" not in text and "inf" not in text and "base_model" not in text
    del content["models"]["extended"]
    assert "model-index" not in model_card.card("demo-x8", PLAN, None, content)


def test_a_model_that_was_not_measured_has_a_card_without_numbers() -> None:
    text = model_card.card("demo-x8", PLAN, None, None)
    assert (
        "Not measured." in text and ModelCard(text).data.to_dict()["library_name"] == "transformers"
    )


def test_a_card_that_is_there_keeps_its_text_and_licence(tmp_path: Path) -> None:
    (tmp_path / "README.md").write_text(
        "---\nlicense: apache-2.0\ntags: [mine]\n---\nMy own text.\n"
    )
    model_card.write(tmp_path, model_card.card("demo-x8", PLAN, None, measured()))
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
