"""Which results a page may show: only results of the run's present settings and inputs."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from train_settings import changed as with_settings

from ropewalk.conf.artifacts.manifest import Manifest, read_json, write, write_json
from ropewalk.conf.rules import content
from ropewalk.conf.schema import Config
from ropewalk.eval.report import page
from ropewalk.eval.stage import settings as eval_settings
from ropewalk.launch.config.compose import compose
from ropewalk.launch.pipeline import stages
from ropewalk.launch.pipeline.current import agrees, current_results
from ropewalk.launch.pipeline.run import Run
from ropewalk.train.base import Base

INPUTS = {"rope": "r", "data": "d"}
TRAINED = {"base": "a", "seed": 0, "inputs": INPUTS}
ROPE_PLAN = {"factor": 8.0, "original_max_position_embeddings": 256}


def test_equal_values_agree() -> None:
    assert agrees(TRAINED, {"base": "a", "seed": 0})
    assert agrees(INPUTS, {"rope": "r", "data": "d"})


def test_another_base_seed_or_input_does_not_agree() -> None:
    assert not agrees(TRAINED, {"base": "b", "seed": 0})
    assert not agrees(TRAINED, {"base": "a", "seed": 1})
    assert not agrees(INPUTS, {"rope": "other", "data": "d"})


def test_a_key_that_only_one_side_has_is_ignored() -> None:
    assert agrees(TRAINED, {"eval": {"windows": 3}})


def finish(folder: Path, name: str, stage_content: dict[str, Any]) -> str:
    """Write the manifest of a finished stage and return its fingerprint."""
    (folder / name).mkdir(parents=True)
    manifest = Manifest.for_content(name, stage_content)
    write(folder / name, manifest)
    return manifest.fingerprint


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """A folder with every stage finished, and a command that ran rope and data only."""
    config, folder = compose(["recipe=demo", f"runs_dir={tmp_path}"]), tmp_path / "demo"
    seed = {"seed": config.seed}
    trained = {
        "inputs": {**INPUTS, "base": "b"},
        "train": content(config.train),
        "seq_len": config.data.seq_len,
    }
    inputs = {**INPUTS, "train": finish(folder, "train", seed | trained)}
    finish(folder, "eval", seed | {"inputs": inputs, "eval": eval_settings(config)})
    calibrated = {
        "inputs": {"data": "d"},
        "base": "b",
        "calibrate": content(config.calibrate),
        "form": 2,
    }
    finish(folder, "calibration", seed | calibrated | ROPE_PLAN)
    write_json(folder / "rope.json", ROPE_PLAN)
    monkeypatch.setattr(Run, "base", Base("./b"))
    monkeypatch.setattr(Base, "identity", "b")
    manifests = {
        name: Manifest(stage=name, fingerprint=fingerprint, content={})
        for name, fingerprint in INPUTS.items()
    }
    return Run(config, manifests)


def shown(run: Run, **changes: Any) -> list[str]:
    return list(current_results(Run(replace(run.config, **changes), run.manifests)))


def test_the_last_phase_is_shown_while_the_earlier_ones_are_unchanged(
    run: Run, tmp_path: Path
) -> None:
    config, folder = run.config, tmp_path / "demo" / "phases" / "1"
    trained = {
        "seed": config.seed,
        "inputs": {**INPUTS, "base": "b"},
        "train": content(config.train),
    }
    fingerprint = finish(folder, "train", trained)
    write_json(folder / "rope.json", ROPE_PLAN)
    previous = Run(replace(config, name="1", runs_dir=str(folder.parent)), run.manifests)
    (tmp_path / "demo" / "train" / "manifest.json").unlink()
    (tmp_path / "demo" / "train").rmdir()
    last = {**trained, "inputs": {**INPUTS, "base": "b", "before": fingerprint}}
    finish(tmp_path / "demo", "train", last)
    assert "train" in current_results(Run(config, run.manifests, previous_phase=previous))
    changed = replace(previous.config, train=with_settings(config.train, optimizer__lr=1e-5))
    previous = Run(changed, run.manifests)
    assert "train" not in current_results(Run(config, run.manifests, previous_phase=previous))


def test_every_result_of_the_same_settings_is_on_the_page(run: Run) -> None:
    assert shown(run) == ["train", "eval", "calibration"]


def test_another_base_or_seed_leaves_every_result_out(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert shown(run, seed=run.config.seed + 1) == []
    monkeypatch.setattr(Base, "identity", "c")
    assert shown(run) == []


def test_a_stage_of_other_settings_is_left_out_and_eval_goes_with_its_train(run: Run) -> None:
    config: Config = run.config
    everything = ["train", "eval", "calibration"]
    assert shown(run, train=replace(config.train, steps=1)) == ["calibration"]
    assert shown(run, eval=replace(config.eval, windows=1)) == ["train", "calibration"]
    assert shown(run, calibrate=replace(config.calibrate, max_forward_passes=999)) == everything
    not_fingerprinted = with_settings(config.train, checkpoint__interval_steps=7)
    assert shown(run, train=not_fingerprinted) == everything


def test_an_evaluation_of_another_train_than_the_folder_has_is_left_out(run: Run) -> None:
    path = run.folder / "train" / "manifest.json"
    other = Manifest(stage="train", fingerprint="other", content=read_json(path)["content"])
    write(path.parent, other)
    assert shown(run) == ["train", "calibration"]
    path.unlink()
    assert shown(run) == ["calibration"]


def test_a_calibration_for_another_factor_is_left_out(run: Run) -> None:
    write_json(run.folder / "rope.json", {**ROPE_PLAN, "factor": 4.0})
    assert shown(run) == ["train", "eval"]


def test_the_page_is_drawn_again_when_only_the_ledger_or_a_finding_changed(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A skipped data stage renews its ledger when the search for contamination changes."""
    (run.folder / "data").mkdir()
    ledger = run.folder / "data" / "ledger.json"
    write_json(run.folder / "rope.json", ROPE_PLAN | {"findings": []})
    write_json(ledger, {"contamination": {"action": "report"}})
    monkeypatch.setattr(page, "render", lambda *_: "a page")

    def report() -> str:
        return stages._report(run)[1]

    assert report().startswith("report: done in")
    assert report().endswith("skipped")
    write_json(ledger, {"contamination": {"action": "off"}})
    assert 'redone: ledger.contamination.action was "report", is "off"' in report()
    write_json(run.folder / "rope.json", ROPE_PLAN | {"findings": ["look at theta"]})
    assert "redone: findings was [], is" in report()
