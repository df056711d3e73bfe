"""The run's manifest.json: the stages that stand, after any order of commands and any damage."""

from pathlib import Path
from typing import Any

import pytest

from ropewalk.conf.artifacts import manifest as manifests
from ropewalk.conf.artifacts.manifest import Manifest, read_json
from ropewalk.launch.config.compose import compose
from ropewalk.launch.pipeline.record import FOLDERS, write_manifest
from ropewalk.launch.pipeline.run import Run


@pytest.fixture
def runs_dir(tmp_path: Path) -> Path:
    (tmp_path / "runs" / "demo").mkdir(parents=True)
    return tmp_path / "runs"


def stage(name: str, number: int, **inputs: Manifest) -> Manifest:
    """A finished stage; `number` is its content, `inputs` what it was made from."""
    made_from = {key: manifest.fingerprint for key, manifest in inputs.items()}
    return Manifest.for_content(name, {"number": number, "inputs": made_from})


def recorded(
    runs_dir: Path, *manifests_of_command: Manifest, stands: bool = False, adds: bool = True
) -> dict[str, Any]:
    """Fingerprints of the stages in manifest.json after a command that went through these."""
    run = Run(compose(["recipe=demo", f"runs_dir={runs_dir}"]))
    run.protected, run.adds_stages = stands, adds
    run.manifests = {manifest.stage: manifest for manifest in manifests_of_command}
    for manifest in manifests_of_command:
        if folder := FOLDERS.get(manifest.stage):
            (run.folder / folder).mkdir(exist_ok=True)
            manifests.write(run.folder / folder, manifest)
    write_manifest(run)
    stages = read_json(runs_dir / "demo" / "manifest.json")["stages"]
    return {name: entry["fingerprint"] for name, entry in stages.items()}


ROPE, DATA = stage("rope", 1), stage("data", 1)
TRAIN = stage("train", 1, rope=ROPE, data=DATA)
EXPORT = stage("export", 1, train=TRAIN)


def of(*manifests_of_run: Manifest) -> dict[str, str]:
    return {manifest.stage: manifest.fingerprint for manifest in manifests_of_run}


def test_a_look_at_a_training_that_stands_adds_nothing(runs_dir: Path) -> None:
    recorded(runs_dir, ROPE, DATA, TRAIN)
    assert recorded(runs_dir, EXPORT, stands=True, adds=False) == of(ROPE, DATA, TRAIN)


def test_a_run_adds_the_stages_that_stand_on_its_own(runs_dir: Path) -> None:
    recorded(runs_dir, ROPE, DATA, TRAIN)
    recorded(runs_dir, EXPORT, stands=True, adds=False)
    assert recorded(runs_dir, ROPE, DATA, TRAIN, stands=True) == of(ROPE, DATA, TRAIN, EXPORT)


def test_a_new_training_drops_what_was_made_from_the_former(runs_dir: Path) -> None:
    recorded(runs_dir, ROPE, DATA, TRAIN, EXPORT)
    again = stage("train", 2, rope=ROPE, data=DATA)
    assert recorded(runs_dir, ROPE, DATA, again) == of(ROPE, DATA, again)


def test_stages_that_a_command_does_not_run_stay(runs_dir: Path) -> None:
    recorded(runs_dir, ROPE)
    assert recorded(runs_dir, DATA) == of(ROPE, DATA)


@pytest.mark.parametrize("content", [None, "", "{}", '{"stages": {}}', "[" * 9000])
def test_a_damaged_record_is_made_again(runs_dir: Path, content: str | None) -> None:
    path = runs_dir / "demo" / "manifest.json"
    expected = recorded(runs_dir, ROPE, DATA, TRAIN, EXPORT)
    path.unlink() if content is None else path.write_text(content)
    assert recorded(runs_dir, ROPE, DATA, TRAIN, stands=True) == expected


def test_a_record_that_nothing_changes_is_not_written(runs_dir: Path) -> None:
    path = runs_dir / "demo" / "manifest.json"
    recorded(runs_dir, ROPE, DATA, TRAIN)
    before = path.stat().st_mtime_ns
    recorded(runs_dir, ROPE, DATA, TRAIN, stands=True)
    assert path.stat().st_mtime_ns == before
