"""Published values stand beside rows of the very same protocol, those of a recipe first."""

from pathlib import Path
from typing import Any

import yaml
from compared_runs import RunFolder, planted

from ropewalk.conf import recipe_card
from ropewalk.conf.artifacts.records import signed, write_json
from ropewalk.launch.compare.published import beside, recipe_of
from ropewalk.launch.compare.reading import Model, models_of

ANCHORS = Path(recipe_card.__file__).parents[1] / "eval" / "anchors.yaml"


def model(runs: Path, recipe: str, **row: Any) -> Model:
    """A run of a recipe, with one row of the task that measures as YaRN's authors did."""
    run = RunFolder(f"run-{recipe}", {"base": planted(9), "extended": planted(1)})
    content = run._content()
    content["models"]["extended"]["yarn_compat"] = [{"length": 2048, "perplexity": 4.0, **row}]
    run.results = {"models": content["models"]}
    folder = run.write(runs)
    record = {"name": run.name, "command": f"ropewalk run recipe={recipe} name=x", "stages": {}}
    write_json(folder / "manifest.json", signed(record))
    return models_of([str(folder), f"{folder}:base"])[0]


def first_group() -> dict[str, Any]:
    groups: list[dict[str, Any]] = yaml.safe_load(ANCHORS.read_text())
    return groups[0]


def test_results_of_the_same_protocol_are_listed_those_of_the_card_first(tmp_path: Path) -> None:
    group = first_group()
    same = {key: group[key] for key in ("protocol", "data", "tokenizer")}
    own = model(tmp_path, "yarn_llama2", **same)
    assert recipe_of(own) == "yarn_llama2"
    listed = beside([own])
    named = [entry for entry in listed if entry.recipes]
    card = yaml.safe_load((recipe_card.FOLDER / "yarn_llama2.yaml").read_text())
    rows = {row["row"] for row in group["rows"] if row.get("tokenizer", "llama-2") == "llama-2"}
    assert {entry.anchor.row for entry in named} == rows & set(card["anchor_rows"])
    assert {entry.anchor.row for entry in listed} == rows
    assert listed[: len(named)] == named


def test_another_protocol_has_none(tmp_path: Path) -> None:
    group = first_group()
    other = {"protocol": group["protocol"], "data": "other text", "tokenizer": group["tokenizer"]}
    assert beside([model(tmp_path, "yarn_llama2", **other)]) == []


def test_a_recipe_of_the_users_own_has_no_card(tmp_path: Path) -> None:
    group = first_group()
    same = {key: group[key] for key in ("protocol", "data", "tokenizer")}
    listed = beside([model(tmp_path, "my_own", **same)])
    assert listed and not any(entry.recipes for entry in listed)
