"""What to type next, from the record of a run or from its frozen settings."""

from pathlib import Path

import pytest
from run_folders import begin, finish, only

from ropewalk.launch.runs import listing


def test_a_finished_run_has_its_page_and_what_follows(tmp_path: Path) -> None:
    run = begin(tmp_path, command="ropewalk run recipe=demo")
    finish(run, "data", "train", "eval", "report")
    (run / "report" / "index.html").write_text("")
    row = only(tmp_path)
    assert (row["state"], row["stage"], row["steps"]) == ("finished", "report", 40)
    assert row["report"] == str(run / "report" / "index.html")
    assert row["next"] == f"ropewalk export recipe=demo runs_dir={tmp_path}"


@pytest.mark.parametrize(
    ("verb", "stages", "following"),
    [
        ("rope", [], "data"),
        ("data", ["data"], "train"),
        ("train", ["data", "train"], "eval"),
        ("eval", ["data", "train", "eval"], "report"),
    ],
)
def test_the_next_command_is_the_first_stage_that_is_not_done(
    tmp_path: Path, verb: str, stages: list[str], following: str
) -> None:
    run = begin(tmp_path, command=f"ropewalk {verb} recipe=demo 'eval.tasks=[passkey, ruler]'")
    finish(run, *stages)
    row = only(tmp_path)
    expected = f"ropewalk {following} recipe=demo 'eval.tasks=[passkey, ruler]' runs_dir={tmp_path}"
    assert (row["state"], row["next"]) == ("finished", expected)


def test_models_alone_are_measured_without_a_training(tmp_path: Path) -> None:
    run = begin(tmp_path, command="ropewalk eval recipe=demo")
    (run / "config.yaml").write_text("eval: {run_models: false}\n")
    finish(run, "data", "eval")
    row = only(tmp_path)
    assert row["state"] == "finished" and row["next"].startswith("ropewalk report recipe=demo")
    finish(run, "report")
    assert only(tmp_path)["next"] == ""


def test_folders_that_the_record_leaves_out_come_from_the_frozen_settings(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    begin(tmp_path / "runs")
    monkeypatch.chdir(tmp_path)
    (row,) = listing.rows("")
    assert row["next"] == "ropewalk run recipe=demo name=first 'data.sources.books.path=./my books'"


def test_a_renamed_folder_is_told_by_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    begin(tmp_path / "runs").rename(tmp_path / "runs" / "second")
    monkeypatch.chdir(tmp_path)
    assert listing.rows("")[0]["next"].endswith(" name=second")
