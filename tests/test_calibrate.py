"""`ropewalk calibrate` on a tiny corpus: documents, budget, seeds, kills; training on its plan."""

import json
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from commands import ENV, command, corpus, ropewalk

QUICK = [
    "calibrate.methods=[yarn,pi]",
    "calibrate.windows=2",
    "calibrate.report_windows=3",
    "calibrate.max_forward_passes=16",
]
QUICK += ["data.heldout_share=0.6", "calibrate.searcher=both"]


@pytest.fixture(scope="module")
def work(tmp_path_factory):
    folder = tmp_path_factory.mktemp("work")
    corpus(folder)
    return folder


@pytest.fixture(scope="module")
def calibration(work):
    """The folder of one finished calibration."""
    ropewalk(work, "calibrate", "name=full", *QUICK)
    return work / "runs" / "full" / "calibration"


def read(folder: Path, name: str = "results.json"):
    return json.loads((folder / name).read_text())


def test_choice_and_report_are_on_different_documents(calibration):
    results = read(calibration)
    chosen, reported = (set(results[key]["names"]) for key in ("chosen_on", "reported_on"))
    assert chosen and reported and not chosen & reported
    assert set(read(calibration, "rope.json")["calibrated_on"]) == chosen


def test_trials_stay_within_the_budget_and_their_cost_is_reported(calibration):
    budget, trials = read(calibration)["budget"], read(calibration)["trials"]
    assert budget["passes"] == 16 >= budget["spent"]
    assert budget["spent"] == pytest.approx(sum(t["passes"] for t in trials), abs=1e-3)
    assert [t["searcher"] for t in trials[:2]] == ["paper", "paper"]
    assert budget["trials"] == len(trials) > 4
    assert {"ramp", "longrope"} <= {t["searcher"] for t in trials}


def test_on_two_documents_the_paper_is_chosen_with_a_reason(calibration, work):
    """The lowest of many on little text is luck: a choice must be shown on four documents."""
    results = read(calibration)
    full = [t for t in results["trials"] if t["value"] is not None]
    chosen, lowest = results["chosen"], min(full, key=lambda t: t["value"])
    assert chosen["lowest"] == lowest["number"] and results["chosen_on"]["documents"] < 4
    papers = [t for t in full if t["searcher"] == "paper"]
    assert chosen["trial"] == min(papers, key=lambda t: t["value"])["number"]
    assert chosen["searcher"] == "paper"
    if lowest["searcher"] != "paper":
        assert "are needed to prefer it; raise calibrate.windows" in chosen["kept"]
        page = (work / "runs" / "full" / "report" / "index.html").read_text()
        assert "settings are kept: trial" in page


def test_reported_losses_equal_plain_transformers(calibration, work):
    """The live model under each table in turn has the losses of a model built with that table."""
    from transformers import AutoConfig, AutoModelForCausalLM

    from ropewalk.data.dataset import DataArtifacts, HeldoutText
    from ropewalk.train.base import BASES

    results, plan = read(calibration), read(calibration, "rope.json")
    store = DataArtifacts.of(work / "runs" / "full", work / "cache").store("stdlib")
    documents = results["reported_on"]["names"]
    heldout = HeldoutText({"stdlib": store}).windows(512, None, 2)
    windows = [window for window in heldout if window.document in documents][:3]
    assert len(windows) == 3
    ids = torch.from_numpy(np.stack([w.ids for w in windows]))
    scaled = {"rope_theta": 1e4, "factor": 2.0}
    for name, parameters in {
        "none": {"rope_type": "default", "rope_theta": 1e4},
        "yarn": {"rope_type": "yarn", "original_max_position_embeddings": 256, **scaled},
        "pi": {"rope_type": "linear", **scaled},
        "calibrated": plan["rope_parameters"],
    }.items():
        config = AutoConfig.from_pretrained(BASES / "demo")
        config.rope_parameters, config.max_position_embeddings = parameters, 512
        model = AutoModelForCausalLM.from_pretrained(
            BASES / "demo", config=config, dtype=torch.float32
        )
        with torch.no_grad():
            logits = model(input_ids=ids).logits[:, :-1].flatten(0, 1)
        nll = F.cross_entropy(logits, ids[:, 1:].flatten(), reduction="none").reshape(3, -1)
        expected = {"inside": nll[:, :255].mean().item(), "beyond": nll[:, 255:].mean().item()}
        for part, loss in expected.items():
            assert results["methods"][name][part]["nll"] == pytest.approx(loss, rel=1e-5)


def test_gain_has_an_interval_and_a_verdict(calibration):
    results = read(calibration)
    gain, methods = results["gain"]["value"], results["methods"]
    calibrated, yarn = (methods[name]["value"]["nll"] for name in ("calibrated", "yarn"))
    assert gain["low"] <= gain["nll"] <= gain["high"]
    assert gain["nll"] == pytest.approx(calibrated - yarn, abs=1e-9)
    verdicts = ("better", "worse", "no gain shown", "undecided", "the same plan")
    assert results["verdict"].startswith(verdicts)


def test_page_shows_every_method(calibration, work):
    page = (work / "runs" / "full" / "report" / "index.html").read_text()
    assert all(text in page for text in ("Methods before training", "calibrated"))
    assert "The evaluation was not run" in page


def test_same_seed_gives_the_same_plan_and_a_kill_changes_nothing(calibration, work):
    process = subprocess.Popen(
        command(work, "calibrate", "name=killed", *QUICK),
        env=ENV,
        cwd=work,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    log = work / "runs" / "killed" / "calibration.tmp" / "trials.jsonl"
    deadline = time.monotonic() + 120
    while not (log.is_file() and log.read_text().count("\n") >= 3):
        assert time.monotonic() < deadline and process.poll() is None
        time.sleep(0.01)
    process.kill()
    process.wait()
    log_at_kill = log.read_text()
    assert not (work / "runs" / "killed" / "calibration").exists()
    ropewalk(work, "calibrate", "name=killed", *QUICK)
    resumed = work / "runs" / "killed" / "calibration"
    resumed_log = (resumed / "trials.jsonl").read_text()
    assert resumed_log == (calibration / "trials.jsonl").read_text()
    assert resumed_log.startswith(log_at_kill[: log_at_kill.rfind("\n") + 1])
    for name in ("rope.json", "results.json"):
        assert read(resumed, name) == read(calibration, name)


def test_second_calibration_does_no_work(calibration, work):
    output = ropewalk(work, "calibrate", "name=full", *QUICK)
    assert "calibrate: done before with the same settings and inputs; skipped" in output


def test_training_takes_the_plan_and_its_export_has_the_table(calibration, work):
    from transformers import AutoModelForCausalLM

    plan_path = calibration / "rope.json"
    overrides = ["data.heldout_share=0.6", "rope=table", f"rope.path={plan_path}", "train.steps=1"]
    ropewalk(work, "eval", "name=trained", *overrides)
    notes = " ".join(read(work / "runs" / "trained" / "eval")["notes"])
    documents = read(calibration)["chosen_on"]["documents"]
    assert f"calibrated on {documents} of the held-out documents" in notes
    model = AutoModelForCausalLM.from_pretrained(work / "runs" / "trained" / "train" / "model")
    plan, live = read(calibration, "rope.json"), model.model.rotary_emb
    assert live.inv_freq.tolist() == pytest.approx(plan["inv_freq"], rel=1e-6)
    assert live.attention_scaling == pytest.approx(plan["attention_factor"], rel=1e-6)


def test_a_plan_without_a_factor_is_refused(work):
    data = [override for override in QUICK if not override.startswith("data.heldout_share")]
    process = subprocess.run(
        command(work, "calibrate", "name=none", *data, "rope=none", "rope.factor=1"),
        env=ENV,
        cwd=work,
        capture_output=True,
        text=True,
    )
    assert process.returncode == 2
    assert "rope is none; calibrate searches a scaling" in process.stderr


@pytest.mark.slow
def test_the_demo_s_plan_is_at_least_as_good_as_yarn_on_other_documents(tmp_path):
    """The defaults, as the README has them."""
    folders = [f"cache_dir={tmp_path / 'cache'}", f"runs_dir={tmp_path / 'runs'}"]
    argv = [sys.executable, "-m", "ropewalk.launch.cli", "calibrate", "recipe=demo", *folders]
    subprocess.run(argv, env=ENV, cwd=tmp_path, check=True, timeout=1800)
    results = read(tmp_path / "runs" / "demo" / "calibration")
    assert results["gain"]["value"]["nll"] <= 0
    assert results["budget"]["spent"] <= results["budget"]["passes"]
    assert results["reported_on"]["documents"] >= 4
    assert not results["verdict"].startswith("worse")


@pytest.mark.slow
def test_a_calibration_of_another_seed_is_not_on_the_page(calibration, work):
    page = work / "runs" / "full" / "report" / "index.html"
    assert 'id="calibration"' in page.read_text()
    data = [override for override in QUICK if override.startswith("data")]
    ropewalk(work, "report", "name=full", *data, "seed=5", "train.steps=0")
    assert 'id="calibration"' not in page.read_text()
