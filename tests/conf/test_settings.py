"""`ropewalk settings`: every setting is listed with its doc, and docs/settings.md is current."""

import dataclasses
import json
import re
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
from omegaconf import OmegaConf

from ropewalk.conf import rules, settings
from ropewalk.conf.data_mixture import SourceLengths
from ropewalk.conf.errors import ConfigError
from ropewalk.conf.rope_methods import ROPE_METHODS
from ropewalk.conf.schema import Config
from ropewalk.conf.sources import READ_BY, SourceConfig
from ropewalk.launch.cli import main

PAGE = Path(__file__).parents[2] / "docs" / "settings.md"
ROWS = settings.rows()


def row(name: str) -> settings.Row:
    (result,) = [r for r in ROWS if r["name"] == name]
    return result


def leaves(node: Any, prefix: str = "") -> Iterator[str]:
    """The keys of plain values; an empty mapping is a value."""
    for key, value in node.items():
        if isinstance(value, dict) and value:
            yield from leaves(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}"


def names_of(section: type) -> set[str]:
    return {field.name for field in fields(section)}


def structured_keys(section: Any) -> set[str]:
    return set(leaves(OmegaConf.to_container(OmegaConf.structured(section))))


def test_the_page_is_current() -> None:
    assert PAGE.read_text() == settings.as_markdown(ROWS), "run make settings"


@pytest.mark.parametrize("listed", ROWS, ids=lambda r: r["name"])
def test_every_setting_has_a_doc(listed: settings.Row) -> None:
    assert listed["doc"].endswith(".") and len(listed["doc"].split()) > 1


def test_the_rows_are_the_leaves_of_the_configuration() -> None:
    values = {"model": {}, "rope": {}, "data": {}, "train": {"optimizer": {}}, "eval": {}}
    schema = OmegaConf.merge(OmegaConf.structured(Config), values)
    expected = set(leaves(OmegaConf.to_container(schema)))
    for rope in ROPE_METHODS.values():
        expected |= {f"rope.{key}" for key in structured_keys(rope)}
    names = {r["name"] for r in ROWS}
    below = (
        "data.sources.NAME.",
        "eval.models.NAME.",
        "model.scratch.",
        "train.optimizer.lr_groups[].",
    )
    assert {n for n in names if not n.startswith(below)} == expected


def test_sections_below_a_name_an_option_or_a_list_are_listed() -> None:
    assert row("data.sources.NAME.weight")["default"] == "null"
    assert row("model.scratch.hidden_size")["default"] == "required"
    assert row("train.optimizer.lr_groups[].lr_scale")["rule"] == "above 0"


def test_a_row_has_type_default_rule_and_fingerprint() -> None:
    lr = row("train.optimizer.lr")
    assert (lr["type"], lr["default"], lr["rule"]) == ("float", "required", "above 0")
    assert lr["fingerprint"] is True and "Peak learning rate" in lr["doc"]
    assert row("train.attention.kernel")["rule"].startswith("one of auto, flash")
    assert row("train.memory.compile")["fingerprint"] is False
    assert row("train.checkpoint.keep_last")["fingerprint"] is False  # by its section
    assert row("train.lora.rank")["fingerprint"] == "if_set"  # by its section
    assert row("train.profiler.steps")["type"] == "list[int]"
    assert row("model.revision")["type"] == "str or null"


def test_a_methods_settings_name_the_methods() -> None:
    assert row("rope.beta_fast")["methods"] == ["ntk_by_parts", "yarn"]
    assert row("rope.factor")["methods"] == []
    methods = [r["methods"] for r in ROWS if r["name"] == "rope.attention_factor"]
    assert methods == [["yarn"], ["longrope"]]


def test_each_setting_of_a_source_says_which_kinds_read_it() -> None:
    """One that is in neither table would be missing from a store's identity in silence."""
    of_any_kind = {"path", "kind", "weight", "loss", "filler", *names_of(SourceLengths)}
    assert names_of(SourceConfig) == {*READ_BY, *of_any_kind, "piece_len"}


def test_json_is_a_list_filtered_by_the_word(capsys: pytest.CaptureFixture[str]) -> None:
    main(["settings", "WARMUP", "--json"])
    listed = json.loads(capsys.readouterr().out)
    assert "train.schedule.warmup_steps" in [r["name"] for r in listed]
    assert all(next(iter(r)) == "name" for r in listed)
    assert all("warmup" in f"{r['name']} {r['doc']}".lower() for r in listed)
    main(["settings", "--json"])
    assert json.loads(capsys.readouterr().out) == ROWS


def test_text_has_each_setting_in_lines_of_a_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    main(["settings", "beta_fast"])
    output = capsys.readouterr().out
    assert re.search(
        r"^rope\.beta_fast \(rope=ntk_by_parts, yarn\): float; default 32\.0; above 0$",
        output,
        re.M,
    )


def test_an_unmatched_word_exits_2_with_the_nearest_keys(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with pytest.raises(SystemExit) as exit_:
        main(["settings", "train.optimzer.lr"])
    assert exit_.value.code == 2
    assert "train.optimizer.lr" in capsys.readouterr().err


@pytest.mark.parametrize("arguments", [["a", "b"], ["--json", "--markdown"], ["--show", "3"]])
def test_wrong_usage_exits_2(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as exit_:
        main(["settings", *arguments])
    assert exit_.value.code == 2 and capsys.readouterr().err


def test_the_help_of_a_verb_names_the_list(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["train", "--help"])
    assert "ropewalk settings [WORD] lists what may be set" in capsys.readouterr().out


def test_only_settings_near_an_unmatched_word_are_named() -> None:
    with pytest.raises(ConfigError) as error:
        settings.matching("train.optimzer.lr")
    nearest = str(error.value).split("the nearest are ")[1].split(", ")
    assert nearest[0] == "train.optimizer.lr" and len(nearest) <= 10
    with pytest.raises(ConfigError, match="try a shorter one$"):
        settings.matching("qqqqqqqq")


def test_a_setting_has_a_default_or_a_factory() -> None:
    made = dataclasses.make_dataclass(
        "Made",
        [
            ("items", list, rules.setting(factory=list)),
            ("number", int, rules.setting(3, fingerprint="if_set", at_least=1)),
        ],
    )
    first, second = made(), made()
    assert first.items == [] and first.items is not second.items and first.number == 3
    items, number = dataclasses.fields(made)
    assert items.metadata["fingerprint"] is True and number.metadata["fingerprint"] == "if_set"
    assert (
        number.metadata["rule"] == rules.Rule(at_least=1) and items.metadata["rule"] == rules.Rule()
    )
