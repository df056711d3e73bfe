"""A page that does not show the results that stand is told, until it is written anew."""

from pathlib import Path

from run_folders import CONTENT, begin, finish, of_page, only

from ropewalk.conf.artifacts import manifest
from ropewalk.launch.runs import listing


def test_a_page_of_a_former_evaluation_is_told_until_it_is_written_anew(tmp_path: Path) -> None:
    """By another `ropewalk eval`, which writes no page; its record is the last command's."""
    run = begin(tmp_path, command="ropewalk eval recipe=demo eval.windows=4")
    finish(run, "data", "train", "eval", "report")
    (run / "report" / "index.html").write_text("")
    assert only(tmp_path)["reason"] == ""
    manifest.run_stage("eval", CONTENT | {"eval": {"windows": 4}}, run / "eval", lambda _: {})
    row = only(tmp_path)
    assert (row["state"], row["stage"]) == ("finished", "eval")
    assert row["reason"] == "the page is of a former evaluation"
    assert row["next"] == f"ropewalk report recipe=demo eval.windows=4 runs_dir={tmp_path}"
    assert "reason: the page is of a former evaluation" in listing.as_text("", [row])
    finish(run, "report")
    assert (only(tmp_path)["reason"], only(tmp_path)["stage"]) == ("", "report")


def test_an_evaluation_of_a_former_training_belongs_on_no_page(tmp_path: Path) -> None:
    run = begin(tmp_path)
    finish(run, "data", "train")
    before = {"inputs": {"train": "of a training set aside"}}
    manifest.run_stage("eval", before, run / "eval", lambda _: {})
    manifest.run_stage("report", of_page(run) | before, run / "report", lambda _: {})
    assert only(tmp_path)["reason"] == "the page is of a former training"
    finish(run, "report")
    assert only(tmp_path)["reason"] == ""
