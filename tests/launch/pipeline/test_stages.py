"""What a page may show: results that were made from what the run is now."""

from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest

from ropewalk.conf.artifacts.manifest import Manifest, write_json
from ropewalk.conf.schema import Config, content
from ropewalk.eval.report import page
from ropewalk.launch.config.compose import compose
from ropewalk.launch.pipeline import stages
from ropewalk.launch.pipeline.run import Run
from ropewalk.launch.pipeline.stages import agrees
from ropewalk.train.base import Base

TRAINED = {"base": "a", "seed": 0, "inputs": {"rope": "r", "data": "d"}}


def test_what_was_made_from_the_same_agrees() -> None:
    assert agrees(TRAINED, {"base": "a", "seed": 0})
    assert agrees(TRAINED["inputs"], {"rope": "r", "data": "d"})  # type: ignore[arg-type]


def test_another_base_seed_or_input_does_not() -> None:
    assert not agrees(TRAINED, {"base": "b", "seed": 0})
    assert not agrees(TRAINED, {"base": "a", "seed": 1})
    assert not agrees(TRAINED["inputs"], {"rope": "other", "data": "d"})  # type: ignore[arg-type]


def test_what_it_does_not_name_is_no_matter() -> None:
    assert agrees(TRAINED, {"eval": {"windows": 3}})


MADE_FOR = {"factor": 8.0, "original_max_position_embeddings": 256}
MARKS = {"rope": "r", "data": "d"}


def finished(folder: Path, name: str, made: dict[str, Any]) -> str:
    (folder / name).mkdir(parents=True)
    found = Manifest.of(name, made)
    write_json(folder / name / "manifest.json", asdict(found))
    return found.fingerprint


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """A folder with everything finished, and a verb that made rope and data only."""
    config, folder = compose(["recipe=demo", f"runs_dir={tmp_path}"]), tmp_path / "demo"
    beside = {"seed": config.seed}
    trained = {
        "inputs": {**MARKS, "base": "b"},
        "train": content(config.train),
        "seq_len": config.data.seq_len,
    }
    inputs = {**MARKS, "train": finished(folder, "train", beside | trained)}
    finished(folder, "eval", beside | {"inputs": inputs, "eval": content(config.eval)})
    searched = {
        "inputs": {"data": "d"},
        "base": "b",
        "calibrate": content(config.calibrate),
        "form": 2,
    }
    finished(folder, "calibration", beside | searched | MADE_FOR)
    write_json(folder / "rope.json", MADE_FOR)
    monkeypatch.setattr(stages, "_base", lambda _: Base("./b", identity="b"))
    done = {
        name: Manifest(stage=name, fingerprint=mark, content={}) for name, mark in MARKS.items()
    }
    return Run(config, done)


def shown(run: Run, **changes: Any) -> list[str]:
    return list(stages._in_force(Run(replace(run.config, **changes), run.done)))


def test_of_phases_the_last_is_shown_while_the_ones_before_are_what_they_were(
    run: Run, tmp_path: Path
) -> None:
    config, folder = run.config, tmp_path / "demo" / "phases" / "1"
    trained = {
        "seed": config.seed,
        "inputs": {**MARKS, "base": "b"},
        "train": content(config.train),
    }
    mark = finished(folder, "train", trained)
    write_json(folder / "rope.json", MADE_FOR)
    before = Run(replace(config, name="1", runs_dir=str(folder.parent)), run.done)
    (tmp_path / "demo" / "train" / "manifest.json").unlink()
    (tmp_path / "demo" / "train").rmdir()
    own = {**trained, "inputs": {**MARKS, "base": "b", "before": mark}}
    finished(tmp_path / "demo", "train", own)
    assert "train" in stages._in_force(Run(config, run.done, before=before))
    changed = replace(before.config, train=replace(config.train, lr=1e-5))
    assert "train" not in stages._in_force(Run(config, run.done, before=Run(changed, run.done)))


def test_everything_of_the_same_settings_is_on_the_page(run: Run) -> None:
    assert shown(run) == ["train", "eval", "calibration"]


def test_another_base_or_seed_leaves_all_of_it_out(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert shown(run, seed=run.config.seed + 1) == []
    monkeypatch.setattr(stages, "_base", lambda _: Base("./c", identity="c"))
    assert shown(run) == []


def test_a_stage_of_other_settings_is_left_out_and_eval_goes_with_its_train(run: Run) -> None:
    config: Config = run.config
    assert shown(run, train=replace(config.train, steps=1)) == ["calibration"]
    assert shown(run, eval=replace(config.eval, windows=1)) == ["train", "calibration"]
    assert shown(run, calibrate=replace(config.calibrate, passes=999)) == [
        "train",
        "eval",
        "calibration",
    ]
    assert shown(run, train=replace(config.train, checkpoint_steps=7)) == [
        "train",
        "eval",
        "calibration",
    ]  # neutral


def test_an_evaluation_of_another_train_than_the_folder_has_is_left_out(run: Run) -> None:
    path = run.folder / "train" / "manifest.json"
    write_json(
        path,
        asdict(
            Manifest(stage="train", fingerprint="other", content=stages.read_json(path)["content"])
        ),
    )
    assert shown(run) == ["train", "calibration"]
    path.unlink()
    assert shown(run) == ["calibration"]


def test_a_calibration_for_another_factor_is_left_out(run: Run) -> None:
    write_json(run.folder / "rope.json", {**MADE_FOR, "factor": 4.0})
    assert shown(run) == ["train", "eval"]


def test_the_page_is_drawn_again_when_only_the_ledger_or_a_finding_changed(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is looked for in the documents renews the ledger of a data stage that is skipped."""
    (run.folder / "data").mkdir()
    looked = {
        "report": {"contamination": {"action": "report"}},
        "off": {"contamination": {"action": "off"}},
    }
    write_json(run.folder / "rope.json", MADE_FOR | {"findings": []})
    write_json(run.folder / "data" / "ledger.json", looked["report"])
    monkeypatch.setattr(page, "render", lambda *_: "a page")
    assert stages._report(run)[1].startswith("report: done in")
    assert stages._report(run)[1].endswith("skipped")
    write_json(run.folder / "data" / "ledger.json", looked["off"])
    assert 'redone: ledger.contamination.action was "report", is "off"' in stages._report(run)[1]
    write_json(run.folder / "rope.json", MADE_FOR | {"findings": ["look at theta"]})
    assert "redone: findings was [], is" in stages._report(run)[1]
