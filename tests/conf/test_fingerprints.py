"""The settings in a fingerprint, by the fingerprint functions and by `ropewalk settings`."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from changed_settings import GOOD
from train_settings import train_config

from ropewalk.conf import phases, settings
from ropewalk.conf.eval_short_context import LmEvalConfig, ShortContextConfig
from ropewalk.conf.rules import content
from ropewalk.conf.schema import Config
from ropewalk.data.mixture import Mixture
from ropewalk.data.tokens.store import BoundaryTokens
from ropewalk.eval import stage as eval_stage
from ropewalk.launch.config.compose import compose
from ropewalk.train import identity
from ropewalk.train import stage as train_stage
from ropewalk.train.base import locate
from ropewalk.train.export import stage as export_stage

CONFIG = compose([*GOOD, "model.path=organisation/model"])


@pytest.fixture
def stage_contents(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[Config], Any]:
    """A function that returns the contents that the stages take fingerprints of."""
    recorded: list[Any] = []

    def record(_stage: str, stage_content: Any, *_args: Any, **_kwargs: Any) -> tuple[None, str]:
        recorded.append(stage_content)
        return None, ""

    for stage in (train_stage, eval_stage, export_stage):
        monkeypatch.setattr(stage, "run_stage", record)
    monkeypatch.setattr(train_stage, "is_finished", lambda *_: True)
    monkeypatch.setattr(export_stage, "refuse_missing_package", lambda _: None)
    monkeypatch.setattr(identity, "hub_commit", lambda name, revision: f"{revision} of {name}")

    def contents(config: Config) -> list[Any]:
        recorded.clear()
        base = locate(config.model, tmp_path)
        train_stage.run(config, {}, tmp_path / "train")
        eval_stage.run(config, base, {}, tmp_path / "eval")
        export_stage.run(config, {}, tmp_path / "export")
        plan = Mixture(config, {}, {}, {}, BoundaryTokens()).cache_key()
        return [
            base.identity,
            phases.cache_key(config),
            content(config.rope),
            plan,
            *recorded,
        ]

    return contents


def test_the_tasks_of_lm_eval_below_include_path_count_by_their_content(
    stage_contents: Callable[[Config], Any], tmp_path: Path
) -> None:
    file = tmp_path / "tasks" / "mine.yaml"
    file.parent.mkdir()
    lm_eval = LmEvalConfig(tasks=["mine"], include_path=str(file.parent))
    config = changed("eval.short_context", ShortContextConfig(lm_eval=lm_eval))
    found = []
    for text in ("task: mine", "task: mine # changed", "task: mine"):
        file.write_text(text)
        found.append([*stage_contents(config)])
    assert found[0] == found[2] != found[1]


def changed(key: str, value: object) -> Config:
    """CONFIG with one setting changed, at the top or in a section."""
    section, _, name = key.rpartition(".")
    if not section:
        return replace(CONFIG, **{name: value})
    return replace(CONFIG, **{section: replace(getattr(CONFIG, section), **{name: value})})


LEFT_OUT = {"schema": 2, "name": "other", "phase": 1, "model.trust_remote_code": True}
"""Settings with a value that differs from CONFIG's."""


@pytest.mark.parametrize("key", LEFT_OUT)
def test_settings_outside_the_fingerprints_change_none(
    stage_contents: Callable[[Config], Any], key: str
) -> None:
    other = changed(key, LEFT_OUT[key])
    assert other != CONFIG and stage_contents(other) == stage_contents(CONFIG)


def test_the_list_names_the_settings_that_no_fingerprint_has() -> None:
    assert set(LEFT_OUT) == set(settings.WITHOUT_FINGERPRINT)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("seed", 5),
        ("model.path", "other/model"),
        ("model.revision", "v2"),
        ("rope.factor", 8.0),
        ("data.seq_len", 512),
        ("train.steps", 11),
        ("eval.windows", 3),
        ("export.gguf", "off"),
    ],
)
def test_settings_in_a_fingerprint_change_it(
    stage_contents: Callable[[Config], Any], key: str, value: object
) -> None:
    assert stage_contents(changed(key, value)) != stage_contents(CONFIG)


def keys_of(values: dict[str, Any], prefix: str = "") -> Iterator[str]:
    """The keys of nested values and of the sections around them."""
    for name, value in values.items():
        yield f"{prefix}{name}"
        if isinstance(value, dict):
            yield from keys_of(value, f"{prefix}{name}.")


def test_the_listed_fingerprints_are_those_of_content() -> None:
    keys = set(keys_of(content(CONFIG)))
    for row in settings.rows():
        below = any(part in row["name"] for part in (".NAME.", "[].", ".scratch."))
        other_method = row["methods"] and CONFIG.rope.method not in row["methods"]
        if not below and not other_method and row["name"] not in LEFT_OUT:
            assert (row["name"] in keys) == (row["fingerprint"] is True), row


def test_content_leaves_out_settings_without_effect_on_the_output() -> None:
    small = train_config(steps=1, optimizer__lr=0.1)
    other = train_config(steps=1, optimizer__lr=0.1, metrics__wandb="off", micro_batch_size=4)
    assert content(small) == content(other)
    assert content(small) != content(train_config(steps=2, optimizer__lr=0.1))
    assert "metrics" not in content(small) and content(small)["optimizer"]["betas"] == [0.9, 0.95]


def test_if_set_is_in_the_fingerprint_only_off_its_default() -> None:
    default = content(train_config(steps=1, optimizer__lr=0.1))["optimizer"]
    frozen = content(train_config(steps=1, optimizer__lr=0.1, optimizer__freeze=["norm"]))
    assert "freeze" not in default and frozen["optimizer"] == {**default, "freeze": ["norm"]}


def test_settings_that_affect_the_output_are_in_the_fingerprint() -> None:
    fingerprinted = content(train_config(steps=1, optimizer__lr=0.1))
    assert {"steps", "global_batch_tokens", "precision"} <= set(fingerprinted)
    assert {"lr", "weight_decay", "betas", "eps"} <= set(fingerprinted["optimizer"])
    assert "kind" in fingerprinted["schedule"]
