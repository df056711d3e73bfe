"""The training that stands in a run's folder, and what a command may change beside it.

A training stands when it is finished, or when it was interrupted and left a checkpoint. The run's
record is its record: config.yaml, rope.json, data/ and manifest.json. A command with another plan
or other data writes them into looks/FINGERPRINT. They move to the run's folder when a training of
theirs starts, which the verbs of TRAINING alone may do in place of the one that stands.
"""

import shutil
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from ropewalk.conf import check, phases
from ropewalk.conf.artifacts import manifest
from ropewalk.conf.artifacts.manifest import Manifest, fingerprint, first_difference
from ropewalk.conf.artifacts.records import UNREADABLE, read_json, write_text
from ropewalk.conf.errors import ConfigError
from ropewalk.conf.rules import content
from ropewalk.launch.pipeline.record import write_manifest
from ropewalk.launch.pipeline.run import Run
from ropewalk.train import stage as train_stage

LOOKS = "looks"
TRAINING = ("train", "eval", "run")
"""Verbs that may set a finished training of other settings aside. The others only look."""
RECORDED = ("model", "rope", "data", "train", "seed")
"""Settings that a training is known by, in messages."""
INPUTS = {
    "base": "the files of model.path have another content",
    "rope": "the base's own rope words make another plan",
    "data": "the documents of data.sources have another content",
}
CONFIRMED = ("rope", "train", "seed")
"""Those whose every value is in the training's fingerprint."""


def protect(runs: Sequence[Run], shows_training: bool, adds_stages: bool) -> None:
    """Protect the record if a training of any phase stands, else begin a new one.

    `shows_training`: the command has a train stage. `adds_stages`: it is no look.
    """
    stands = any(map(has_training, runs))
    for run in runs:
        run.protected, run.shows_training, run.adds_stages = stands, shows_training, adds_stages
        if not stands:
            _begin_record(run)


def has_training(run: Run) -> bool:
    """Whether a training stands in the run's folder."""
    return train_stage.standing(run.folder / "train") is not None


def _begin_record(run: Run) -> None:
    run.folder.mkdir(parents=True, exist_ok=True)
    write_text(run.folder / "config.yaml", check.to_yaml(run.frozen))


def write(run: Run, stage: str, made: str, differs: bool = False) -> tuple[Manifest, str]:
    """Write the stage's result, of fingerprint `made`, where it changes no standing training.

    `differs`: it must not lie in the record in any case.
    """
    if run.in_place and (differs or _recorded(run, stage) not in (None, made)):
        run.aside = look_folder(run)
        run.aside.mkdir(parents=True, exist_ok=True)
        write_text(run.aside / "config.yaml", check.to_yaml(run.frozen))
        for writer in run.writers.values():
            writer(run.aside)
    return run.writers[stage](run.output)


def _recorded(run: Run, stage: str) -> str | None:
    """The fingerprint of the stage's result that the training was made from, or is to be."""
    training = train_stage.standing(run.folder / "train")
    if training is not None:
        return str(training["inputs"][stage])
    if stage == "rope":
        with suppress(*UNREADABLE, KeyError, TypeError):
            return str(read_json(run.folder / "rope.json")["fingerprint"])
        return None
    finished = manifest.read(run.folder / stage)
    return finished.fingerprint if finished else None


def look_folder(run: Run) -> Path:
    """A folder for these settings, within that of the run."""
    values = content(run.config)
    return run.folder / LOOKS / fingerprint({key: values[key] for key in RECORDED})[:8]


def refuse(run: Run, verb: str, inputs: Mapping[str, Any]) -> None:
    """Check what is known of a training's settings and inputs against the one that stands.

    Raises: ConfigError when they differ, and the verb may not or cannot train anew.
    """
    output = run.folder / "train"
    stands = train_stage.standing(output)
    if stands is None:
        return
    wanted = train_stage.cache_key_of(run.config, {**stands["inputs"], **inputs})
    if wanted == stands:
        return
    if verb not in TRAINING:
        raise ConfigError(
            f"{_difference(run, stands, wanted)}; {verb} shows the training that stands in "
            f"{run.config.name}; set it back, give another name, or train anew with ropewalk "
            "train, which keeps the former result"
        )
    set_aside = any(run.folder.glob("train." + "?" * 8))  # one may be of these very inputs
    if manifest.read(output) or ("data" not in inputs and set_aside):
        return
    if not manifest.is_finished("train", wanted, output):
        raise ConfigError(
            f"{_difference(run, stands, wanted)}; a training was interrupted in {run.config.name} "
            "and is resumed with the settings it was started with; set it back, give another name, "
            "or remove train.tmp of this run to start anew"
        )


def _difference(run: Run, stands: Mapping[str, Any], wanted: Mapping[str, Any]) -> str:
    """The first setting that differs, else what differs in its content."""
    recorded, values = recorded_settings(run), content(run.frozen)
    for key in RECORDED if recorded else ():
        if line := first_difference({key: recorded[key]}, {key: values[key]}):
            return line
    for name, text in INPUTS.items():
        if stands["inputs"].get(name) != wanted["inputs"].get(name):
            return text
    return first_difference(stands, wanted) or ""


def has_other_settings(run: Run, *sections: str) -> bool:
    """Whether config.yaml can be read and has other settings in these sections."""
    recorded, values = recorded_settings(run), content(run.frozen)
    return any(recorded[key] != values[key] for key in sections if recorded)


def recorded_settings(run: Run) -> dict[str, Any]:
    """The content of config.yaml; empty when it is damaged, missing or of another version."""
    try:
        return content(check.load(run.folder / "config.yaml"))  # type: ignore[no-any-return]
    except ConfigError:
        return {}


def start_training(runs: Sequence[Run], verb: str) -> None:
    """Open the record for the training that this command starts, goes on with or confirms.

    It stays closed for a verb that only looks, when every phase's training is finished.
    """
    if not runs[0].protected:
        return
    looks = verb not in TRAINING and all(manifest.read(run.folder / "train") for run in runs)
    for run in runs:
        _repair(run) if looks else _move_in(run)


def _repair(run: Run) -> None:
    """Write a damaged config.yaml again: the training of these settings stands."""
    if not recorded_settings(run) or has_other_settings(run, *CONFIRMED):
        file = run.folder / "config.yaml"
        print(f"{file} is not that of its training; written again", flush=True)
        write_text(file, check.to_yaml(run.frozen))


def _move_in(run: Run) -> None:
    aside, run.aside, run.protected = run.aside, None, False
    _begin_record(run)
    for stage, writer in run.writers.items():
        run.manifests[stage], message = writer(run.folder)
        if aside is not None:
            print(phases.title(run.config) + message)
    write_manifest(run)
    remove(aside)


def remove(aside: Path | None) -> None:
    """Remove the folder of a command that was to train, and `looks` if it is empty."""
    if aside is not None and aside.is_dir():
        shutil.rmtree(aside)
        if not any(aside.parent.iterdir()):
            aside.parent.rmdir()


def announce(run: Run) -> None:
    """One line about the folder of a look."""
    if run.aside is not None:
        print(
            f"{phases.title(run.config)}a training of other settings stands in {run.config.name} "
            f"and keeps its record; this is in {LOOKS}/{run.aside.name}"
        )


def refuse_other_evaluation(run: Run, inputs: Mapping[str, Any]) -> None:
    """For a verb that looks. Raises: ConfigError when the evaluation of this very training stands
    with other settings."""
    finished = manifest.read(run.folder / "eval")
    if not run.protected or finished is None or finished.content["inputs"] != inputs:
        return
    from ropewalk.eval import stage as eval_stage

    values = {"eval": eval_stage.settings(run.config)}
    if line := first_difference({"eval": finished.content["eval"]}, values):
        raise ConfigError(
            f"{line}; report shows the evaluation that stands in {run.config.name}; set it back, "
            "or measure anew with ropewalk eval, which keeps the former result"
        )
