"""The first difference of two runs: what was changed by hand, in the order of the stages."""

import copy
import json
from pathlib import Path
from typing import Any

import pytest

from ropewalk.conf.artifacts.records import fingerprint, signed
from ropewalk.conf.errors import ConfigError
from ropewalk.launch.reproduce import compare, evidence, inputs
from ropewalk.launch.reproduce.evidence import Evidence

LINES: list[dict[str, Any]] = [
    {"step": step, "loss": 3.0 - step / 10, "grad_norm": 1.0, "sequences": [step]}
    for step in (1, 2, 3)
]
RESULTS: dict[str, Any] = {
    "judged": "extended",
    "models": {"extended": {"nll_by_position": [{"from": 0, "to": 32, "nll": 2.5, "tokens": 8}]}},
}


def run(**changes: Any) -> Evidence:
    """Evidence of a run; `changes`: lines, results, and values within the record by dotted key."""
    lines = changes.pop("lines", LINES)
    results = changes.pop("results", RESULTS)
    record: dict[str, Any] = {
        "schema": 1,
        "settings": {},
        "stages": {"train": {"environment": "e"}},
        "environments": {"e": {"torch": {"version": "2.14.1"}, "packages": {"numpy": "2.4.6"}}},
        "mesh": {"ranks_per_node": 1},
        "results": {
            "rope": {"hash": "aa"},
            "data": {"plan": "bb", "stores": {"books": "cc"}},
            "train": {
                "steps_sha256": fingerprint(lines),
                "losses": [line["loss"] for line in lines],
                "files": {"model/model.safetensors": "dd"},
                "checkpoint": None,
            },
            "eval": {"measures": fingerprint(results), "samples": {"samples/losses.f32": "ee"}},
        },
    }
    for key, value in changes.items():
        *parents, name = key.split("__")
        section = record
        for parent in parents:
            section = section[parent]
        section[name] = value
    members = {
        "train/metrics.jsonl": "\n".join(json.dumps(x | {"step_time_s": 1.0}) for x in lines),
        "eval/results.json": json.dumps(results),
    }
    return Evidence(record, None, {name: text.encode() for name, text in members.items()})


def other_lines(step: int, **changes: Any) -> list[dict[str, Any]]:
    return [line | changes if line["step"] == step else line for line in LINES]


def other_results(nll: float) -> dict[str, Any]:
    changed = copy.deepcopy(RESULTS)
    changed["models"]["extended"]["nll_by_position"][0]["nll"] = nll
    return changed


CASES: list[tuple[dict[str, Any], str]] = [
    ({"results__rope__hash": "ab"}, 'rope: hash was "aa", is "ab"'),
    ({"results__data__plan": "bc"}, 'data: plan was "bb", is "bc"'),
    ({"results__data__stores": {"books": "cd"}}, 'data: stores.books was "cc", is "cd"'),
    ({"lines": other_lines(2, loss=9.0)}, "train: step 2: loss was 2.8, is 9.0"),
    ({"lines": other_lines(3, sequences=[7])}, "train: step 3: sequences was [3], is [7]"),
    ({"lines": LINES[:2]}, "train: steps was 3, is 2"),
    ({"results": other_results(2.6)},
     "eval: models.extended.nll_by_position.0.nll was 2.5, is 2.6"),
    ({"results__eval": None}, "eval: it has no result"),
]  # fmt: skip


@pytest.mark.parametrize(("changes", "text"), CASES, ids=[text[:30] for _, text in CASES])
def test_the_first_difference_is_what_was_changed(changes: dict[str, Any], text: str) -> None:
    assert str(compare.of_results(run(), run(**changes))) == text


def test_the_earlier_stage_is_named_first() -> None:
    both = run(lines=other_lines(1, loss=0.0), results__data__plan="bc")
    assert str(compare.of_results(run(), both)).startswith("data: plan")


def test_equal_runs_have_none_and_seconds_do_not_count() -> None:
    assert compare.of_results(run(), run()) is None


def test_without_metrics_the_losses_of_the_manifest_name_the_step() -> None:
    changed = run(lines=other_lines(2, loss=9.0))
    alone = Evidence(run().record)
    assert str(compare.of_results(alone, changed)) == "train: step 2: loss was 2.8, is 9.0"


def test_files_beside_the_manifest_that_are_not_its_own_are_not_believed() -> None:
    """metrics.jsonl of another training: the losses in the manifest decide."""
    swapped = Evidence(run().record, None, run(lines=other_lines(1, loss=5.0)).members)
    changed = run(lines=other_lines(2, loss=9.0))
    assert str(compare.of_results(swapped, changed)) == "train: step 2: loss was 2.8, is 9.0"


def test_settings_but_for_seed_and_place() -> None:
    recorded = {"seed": 0, "name": "a", "train": {"optimizer": {"lr": 1e-3}}}
    assert compare.of_settings(recorded, recorded | {"seed": 1, "name": "b"}) is None
    changed = {**recorded, "train": {"optimizer": {"lr": 2e-3}}}
    text = "settings: train.optimizer.lr was 0.001, is 0.002"
    assert str(compare.of_settings(recorded, changed)) == text


def test_the_environment_is_told_package_by_package() -> None:
    other = {"e": {"torch": {"version": "2.15.0"}, "packages": {"numpy": "2.4.6", "jax": "1"}}}
    lines = compare.environments(run(), run(environments=other, mesh={"ranks_per_node": 2}))
    assert lines == [
        "torch version was 2.14.1, is 2.15.0",
        "packages jax was absent, is 1",
        "mesh ranks_per_node was 1, is 2",
    ]


def write(folder: Path, record: dict[str, Any]) -> str:
    (folder / "manifest.json").write_text(json.dumps(record))
    return str(folder / "manifest.json")


def test_a_manifest_of_a_newer_schema_is_refused_whatever_else_it_has(tmp_path: Path) -> None:
    path = write(tmp_path, {"schema": 2, "versions": {"ropewalk": "9.1"}})
    with pytest.raises(ConfigError, match=r"schema 2; this version .* reads 1; use .*9\.1"):
        evidence.read(path)


@pytest.mark.parametrize("edit", [{"name": "x"}, {"results": {}}])
def test_an_edited_manifest_is_refused(tmp_path: Path, edit: dict[str, Any]) -> None:
    record = signed({"schema": 1, "name": "a", "settings": {}, "results": {"rope": {}}})
    assert evidence.read(write(tmp_path, record)).record["name"] == "a"
    with pytest.raises(ConfigError, match="damaged or edited"):
        evidence.read(write(tmp_path, record | edit))


def test_other_refusals(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="is no manifest"):
        evidence.read(str(tmp_path))
    old = write(tmp_path, signed({"schema": 1, "stages": {}}))
    with pytest.raises(ConfigError, match="no settings and results"):
        evidence.read(old)


def test_content_that_changed_is_named_by_its_first_file() -> None:
    known = {"files": 2, "bytes": 9, "sha256": "s", "digests": {"a.txt": "1", "b.txt": "2"}}
    base = {"identity": "i", "files": {"model.safetensors": "3"}}
    recorded = {"data": {"books": known}, "base": base, "tokenizer": "t"}
    assert list(inputs.changes(recorded, recorded)) == []
    new = {
        "data": {"books": known | {"sha256": "z", "digests": {"a.txt": "1", "b.txt": "4"}}},
        "base": {"identity": "j", "files": {"model.safetensors": "5"}},
        "tokenizer": "u",
    }
    assert list(inputs.changes(recorded, new)) == [
        "data.sources.books has another content: b.txt is another (sha256)",
        "model.path has another base: model.safetensors is another (sha256)",
        "model.path has another tokenizer",
    ]
    gone = known | {"sha256": "z", "digests": {"a.txt": "1"}}
    assert list(inputs.changes({"data": {"books": known}}, {"data": {"books": gone}})) == [
        "data.sources.books has another content: b.txt is missing"
    ]
    many = {"files": 5000, "bytes": 9, "sha256": "s"}
    (line,) = inputs.changes(
        {"data": {"a": many}}, {"data": {"a": many | {"files": 4999, "sha256": "z"}}}
    )
    assert line.endswith("4999 files of 9 bytes, 5000 of 9 in the manifest")
