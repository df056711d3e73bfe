"""`compare_runs`, which a sweep ends in."""

import json
from pathlib import Path

import numpy as np
import pytest
from compared_runs import WINDOW, RunFolder, planted
from scipy import stats

from ropewalk.conf.errors import ConfigError
from ropewalk.launch.compare.command import compare_runs


def test_two_runs_give_a_page_and_rows_whose_means_are_those_of_the_samples(tmp_path: Path) -> None:
    kept = {"plain": planted(1), "better": planted(2, past=-0.2)}
    runs = [
        RunFolder(name, {"base": planted(9), "extended": part}).write(tmp_path)
        for name, part in kept.items()
    ]
    page = compare_runs(runs, "plain", tmp_path / "out")
    assert page == tmp_path / "out" / "index.html" and "better" in page.read_text()
    plain, better = json.loads((tmp_path / "out" / "comparison.json").read_text())
    assert (plain["name"], better["name"]) == ("plain", "better")
    own, theirs = (kept[name].windows[:, WINDOW - 1 :].mean(axis=1) for name in ("better", "plain"))
    measured = better["measures"]["past_window"]
    assert measured["value"] == pytest.approx(own.mean(), abs=1e-6)
    change = measured["difference"]
    assert change["value"] == pytest.approx((own - theirs).mean(), abs=1e-6)
    expected = stats.ttest_rel(own, theirs).confidence_interval()
    np.testing.assert_allclose((change["low"], change["high"]), expected, atol=0.02)
    assert change["paired"] and change["answer"] == "better"


def test_a_folder_that_is_no_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="must be the folder of a run"):
        compare_runs([tmp_path / "none", tmp_path], None, tmp_path / "out")
    assert not (tmp_path / "out").exists()
