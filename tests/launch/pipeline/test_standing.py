"""A look changes nothing: every verb on runs in every state, under the same and other settings.

The ranks and the measurements are stand-ins; what is compared is the record: its bytes before and
after each command.
"""

import os
import shutil
from collections.abc import Iterator
from itertools import product
from pathlib import Path
from typing import Any

import pytest

from ropewalk.conf.artifacts.locks import lock_or_refuse
from ropewalk.conf.artifacts.manifest import read_json, write_json
from ropewalk.conf.errors import Stopped
from ropewalk.eval import stage as eval_stage
from ropewalk.eval.calibrate import stage as calibrate_stage
from ropewalk.eval.report import page
from ropewalk.eval.report.figures import rope as rope_figure
from ropewalk.launch.cli import main
from ropewalk.launch.config.compose import compose
from ropewalk.launch.pipeline.run import Run
from ropewalk.launch.pipeline.standing import LOOKS
from ropewalk.train import stage as train_stage
from ropewalk.train.base import BASES, Base
from ropewalk.train.export import stage as export_stage
from ropewalk.train.results import write_done

SETTINGS = [
    "name=run",
    "model.path=builtin:demo",
    "rope=yarn",
    "rope.factor=2",
    "data.seq_len=512",
    "data.sources.texts.path=texts",
    "data.heldout_share=0.3",
    "train.steps=2",
    "train.optimizer.lr=1e-3",
    "train.global_batch_tokens=1024",
    "train.metrics.wandb=off",
    "eval.windows=2",
    "eval.passkey_lengths=[256]",
]
SAME, ROPE, DATA = "seed=0", "rope=ntk", "data.heldout_share=0.4"
LR, EVAL, CLEANING = "train.optimizer.lr=2e-3", "eval.windows=1", "data.contamination.action=off"
LOOK_VERBS = {
    "rope": [],
    "rope --compare": ["--compare", "pi,ntk"],
    "data": ["--show", "1"],
    "calibrate": [],
}
"""Verbs without a train stage."""


def save_checkpoint(folder: Path) -> None:
    """A checkpoint as the next command reads it."""
    checkpoint = folder / "checkpoints" / "step-00000001"
    checkpoint.mkdir(parents=True, exist_ok=True)
    content = read_json(folder / "content.json")["content"]
    write_json(checkpoint / "complete.json", {"schema": 1, "step": 1, "content": content})


def train(_config: object, _run_dir: Path, folder: Path) -> None:
    """In place of the ranks: the base's own weights."""
    save_checkpoint(folder)
    shutil.copytree(BASES / "demo", folder / "model", dirs_exist_ok=True)
    (folder / "metrics.jsonl").write_text('{"step": 1}\n')
    write_done(folder, {"steps": 2})


def interrupt(_config: object, _run_dir: Path, folder: Path) -> None:
    save_checkpoint(folder)
    raise Stopped("stopped")


def evaluate(_config: object, _base: object, _named: object, _run_dir: Path, folder: Path) -> None:
    write_json(folder / "results.json", {"gates": []})


def calibrate(_config: object, _base: object, _plan: object, folder: Path) -> dict[str, Any]:
    write_json(folder / "rope.json", {})
    return {}


def export(_model: object, _plan: object, folder: Path, *_: object) -> dict[str, Any]:
    (folder / "hf").mkdir()
    (folder / "SERVING.md").write_text("to serve")
    return {}


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder with a run in each state: `data`, `interrupted`, `trained` and `all`."""
    folder = tmp_path_factory.mktemp("standing")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setattr(train_stage, "launch", train)
        patch.setattr(train_stage, "_prove_reloaded", lambda *_: None)
        patch.setattr(eval_stage, "evaluate", evaluate)
        patch.setattr(page, "render", lambda *_: "a page")
        patch.setattr(export_stage, "export_model", export)
        patch.setattr(calibrate_stage, "work", calibrate)
        patch.setattr(rope_figure, "draw", lambda _plans, path: path.write_text("a figure"))
        Path("texts").mkdir()
        for number in range(20):
            words = " ".join(f"strand {number * index % 97}" for index in range(600))
            Path("texts", f"{number}.txt").write_text(words)
        for verb, state in (("data", "data"), ("train", "trained"), ("run", "all")):
            assert command(verb) == 0
            shutil.copytree("runs", state)
        shutil.rmtree("runs")
        patch.setattr(train_stage, "launch", interrupt)
        assert command("train") == 75
        Path("runs").rename("interrupted")
        patch.setattr(train_stage, "launch", train)
        yield folder


@pytest.fixture
def state(runs: Path, request: pytest.FixtureRequest) -> str:
    """The name of the state that `runs/run` is in."""
    shutil.rmtree(runs / "runs", ignore_errors=True)
    shutil.copytree(runs / request.param, runs / "runs")
    return str(request.param)


def command(verb: str, *arguments: str) -> object:
    """The exit code of a command."""
    try:
        main([verb, *SETTINGS, *arguments])
    except SystemExit as stopped:
        return stopped.code
    return 0


def record() -> dict[str, bytes]:
    """The bytes of all that belongs to the training of a run."""
    run = Path("runs", "run")
    files = [*run.glob("[a-z]*.[yj]*"), *run.glob("[dt]*/**/*")]
    return {f.relative_to(run).as_posix(): f.read_bytes() for f in files if f.is_file()}


EVERY_SETTING = (SAME, ROPE, DATA, LR, EVAL, CLEANING)


@pytest.mark.parametrize(
    ("state", "setting"),
    [
        *product(("interrupted", "all"), EVERY_SETTING),
        *product(("trained",), (SAME, EVAL)),
    ],
    indirect=["state"],
)
def test_a_look_leaves_the_record_as_it_is(state: str, setting: str) -> None:
    before = record()
    assert {"config.yaml", "rope.json", "manifest.json", "data/where.json"} <= before.keys()
    for name, flags in LOOK_VERBS.items():
        assert command(name.split()[0], setting, *flags) == 0
        assert record() == before, name
    for verb in ("export", "report"):
        if state == "interrupted" and setting in (SAME, EVAL, CLEANING):
            continue  # goes on with the training
        refused = setting in (ROPE, DATA, LR) or (verb, state, setting) == ("report", "all", EVAL)
        assert command(verb, setting) == (2 if refused else 0)
        assert record() == before, verb


@pytest.mark.parametrize("state", ["all"], indirect=True)
def test_a_look_shows_its_own_settings(state: str, capsys: pytest.CaptureFixture[str]) -> None:
    """The plan and the ledger that are printed, and their files, are not those of the record."""
    plan, ledger = Path("runs/run/rope.json"), Path("runs/run/data/ledger.json")
    for arguments, file in ((["rope", ROPE], plan), (["data", CLEANING], ledger)):
        capsys.readouterr()
        assert command(*arguments, "--json") == 0
        output = capsys.readouterr()
        assert (
            output.out != file.read_text() and "keeps its record; this is in looks/" in output.err
        )
        (shown,) = Path("runs/run", LOOKS).rglob(file.name)
        assert shown.read_text() == output.out
        shutil.rmtree(Path("runs/run", LOOKS))
        assert command(arguments[0], "--json") == 0
        assert capsys.readouterr().out == file.read_text()


@pytest.mark.parametrize("state", ["interrupted"], indirect=True)
@pytest.mark.parametrize(("verb", "setting"), [("train", ROPE), ("eval", DATA), ("run", LR)])
def test_an_interrupted_training_is_not_thrown_away(
    state: str, setting: str, verb: str, capsys: pytest.CaptureFixture[str]
) -> None:
    before = record()
    assert command(verb, setting) == 2
    key = "rope.method" if setting == ROPE else setting.split("=")[0]
    assert f"\n{key} was " in capsys.readouterr().err
    assert record() == before and not Path("runs/run", LOOKS).exists()


@pytest.mark.parametrize("state", ["interrupted"], indirect=True)
@pytest.mark.parametrize("verb", ["run", "report", "export"])
def test_an_interrupted_training_of_these_settings_goes_on(state: str, verb: str) -> None:
    before = record()
    assert command(verb) == 0
    after = record()
    kept = ("config.yaml", "rope.json", "data/where.json", "data/ledger.json")
    assert {key: before[key] for key in kept} == {key: after[key] for key in kept}
    assert set(read_json(Path("runs/run/manifest.json"))["stages"]) >= {"rope", "data", "train"}


@pytest.mark.parametrize(
    ("state", "setting"), [("trained", ROPE), ("all", DATA), ("all", LR)], indirect=["state"]
)
def test_a_training_of_other_settings_sets_the_record_aside_and_brings_it_back(
    state: str, setting: str
) -> None:
    before, verb = record(), "run" if state == "all" else "train"
    assert command(verb, setting) == 0
    after = record()
    changed = {key for key in before if before[key] != after.get(key)}
    assert {"config.yaml", "manifest.json", "train/manifest.json"} <= changed
    assert ("rope.json" in changed) == (setting == ROPE)
    assert ("data/where.json" in changed) == (setting == DATA)
    assert not Path("runs/run", LOOKS).exists()
    assert command(verb) == 0
    restored = record()
    kept = before.keys() - {"manifest.json"}  # which names the command
    assert {key: restored[key] for key in kept} == {key: before[key] for key in kept}


@pytest.mark.parametrize("state", ["all"], indirect=True)
def test_a_training_that_fails_in_its_data_leaves_the_record(state: str) -> None:
    before = record()
    assert command("train", ROPE, "data.seq_len=100000") == 2
    assert record() == before and not Path("runs/run", LOOKS).exists()


@pytest.mark.parametrize("state", ["data", "all"], indirect=True)
def test_a_look_during_another_command_is_refused(state: str) -> None:
    before = record()
    with lock_or_refuse(Path("runs/run")):
        assert [command(verb, ROPE) for verb in ("rope", "data", "report")] == [2, 2, 2]
    assert record() == before


@pytest.mark.parametrize("state", ["data"], indirect=True)
def test_without_a_training_the_last_command_is_the_record(state: str) -> None:
    assert command("rope", ROPE) == 0
    assert read_json(Path("runs/run/rope.json"))["method"] == "ntk"
    assert not Path("runs/run", LOOKS).exists()


@pytest.mark.parametrize("state", ["all"], indirect=True)
def test_documents_edited_under_their_time_are_told(
    state: str, capsys: pytest.CaptureFixture[str]
) -> None:
    before, file = record(), Path("texts/3.txt")
    status, text = file.stat(), file.read_text()
    try:
        file.write_text(text.swapcase())
        os.utime(file, ns=(status.st_atime_ns, status.st_mtime_ns))
        assert command("report") == 2
        assert "\nthe documents of data.sources have another content; " in capsys.readouterr().err
        assert record() == before
    finally:
        file.write_text(text)
    assert command("report") == 0


def test_the_frozen_settings_name_the_commit_of_a_hub_model(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The ranks read them, perhaps hours later."""
    config = compose([*SETTINGS, "model.path=organisation/model"])
    monkeypatch.setattr(Run, "base", Base("organisation/model", "a" * 40))
    assert Run(config).frozen.model.revision == "a" * 40
    monkeypatch.setattr(Run, "base", Base(str(BASES / "demo")))
    assert Run(config).frozen == config
