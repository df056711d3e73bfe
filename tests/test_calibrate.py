"""`ropewalk calibrate` on a tiny corpus: kept promises about documents, budget, seeds and kills, and a plan that training takes."""

import json
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
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
def found(work):
    """The folder that one whole calibration left."""
    ropewalk(work, "calibrate", "name=whole", *QUICK)
    return work / "runs" / "whole" / "calibration"


def read(folder: Path, name: str = "results.json"):
    return json.loads((folder / name).read_text())


def test_choice_and_report_are_on_different_documents(found):
    results = read(found)
    chosen, reported = (set(results[key]["names"]) for key in ("chosen_on", "reported_on"))
    assert chosen and reported and not chosen & reported
    assert set(read(found, "rope.json")["calibrated_on"]) == chosen


def test_budget_is_kept_and_told(found):
    budget, trials = read(found)["budget"], read(found)["trials"]
    assert (
        budget["passes"]
        == 16
        >= budget["spent"]
        == pytest.approx(sum(t["passes"] for t in trials), abs=1e-3)
    )
    assert [t["searcher"] for t in trials[:2]] == ["paper", "paper"] and budget["trials"] == len(
        trials
    ) > 4
    assert {"ramp", "longrope"} <= {t["searcher"] for t in trials}


def test_on_two_documents_the_paper_stands_and_the_reason_is_told(found, work):
    """The lowest of many on little text is luck: what is chosen must be shown on four documents."""
    results = read(found)
    whole = [t for t in results["trials"] if t["value"] is not None]
    chosen, lowest = results["chosen"], min(whole, key=lambda t: t["value"])
    assert chosen["lowest"] == lowest["number"] and results["chosen_on"]["documents"] < 4
    papers = [t for t in whole if t["searcher"] == "paper"]
    assert (
        chosen["trial"] == min(papers, key=lambda t: t["value"])["number"]
        and chosen["searcher"] == "paper"
    )
    if lowest["searcher"] != "paper":
        assert "are needed to prefer it; raise calibrate.windows" in chosen["kept"]
        page = (work / "runs" / "whole" / "report" / "index.html").read_text()
        assert "settings stand, for trial" in page


def test_reported_losses_are_those_of_plain_transformers(found, work):
    """The live model that was given one table after another reads as a model built by transformers with that table."""
    import torch.nn.functional as F
    from transformers import AutoConfig, AutoModelForCausalLM

    from ropewalk.data.dataset import DataArtifacts, heldout_windows
    from ropewalk.train.base import BASES

    results, plan = read(found), read(found, "rope.json")
    store = DataArtifacts.of(work / "runs" / "whole", work / "cache").store("stdlib")
    windows = [
        w
        for w in heldout_windows([store], 512, None, 2)
        if w.document in results["reported_on"]["names"]
    ][:3]
    assert len(windows) == 3
    yarn = {
        "rope_type": "yarn",
        "rope_theta": 1e4,
        "factor": 2.0,
        "original_max_position_embeddings": 256,
    }
    for name, parameters in (
        ("none", {"rope_type": "default", "rope_theta": 1e4}),
        ("yarn", yarn),
        ("pi", {"rope_type": "linear", "rope_theta": 1e4, "factor": 2.0}),
        ("calibrated", plan["rope_parameters"]),
    ):
        config = AutoConfig.from_pretrained(BASES / "demo")
        config.rope_parameters, config.max_position_embeddings = parameters, 512
        model = AutoModelForCausalLM.from_pretrained(
            BASES / "demo", config=config, dtype=torch.float32
        )
        with torch.no_grad():
            ids = torch.from_numpy(np.stack([w.ids for w in windows]))
            logits = model(input_ids=ids).logits
        nll = F.cross_entropy(
            logits[:, :-1].flatten(0, 1), ids[:, 1:].flatten(), reduction="none"
        ).reshape(3, -1)
        assert results["methods"][name]["inside"]["nll"] == pytest.approx(
            nll[:, :255].mean().item(), rel=1e-5
        )
        assert results["methods"][name]["beyond"]["nll"] == pytest.approx(
            nll[:, 255:].mean().item(), rel=1e-5
        )


def test_gain_is_told_with_its_interval(found):
    results = read(found)
    gain, methods = results["gain"]["value"], results["methods"]
    half = [methods[name]["value"]["nll"] for name in ("calibrated", "yarn")]
    assert gain["low"] <= gain["nll"] <= gain["high"] and gain["nll"] == pytest.approx(
        half[0] - half[1], abs=1e-9
    )
    assert results["verdict"].startswith(
        ("better", "worse", "no gain shown", "not to be told", "the same plan")
    )


def test_page_shows_every_method(found, work):
    page = (work / "runs" / "whole" / "report" / "index.html").read_text()
    assert (
        "Methods before training" in page
        and "calibrated" in page
        and "The evaluation was not run" in page
    )


def test_same_seed_gives_the_same_plan_and_a_kill_changes_nothing(found, work):
    words = command(work, "calibrate", "name=killed", *QUICK)
    process = subprocess.Popen(
        words, env=ENV, cwd=work, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    log = work / "runs" / "killed" / "calibration.tmp" / "trials.jsonl"
    deadline = time.monotonic() + 120
    while not (log.is_file() and log.read_text().count("\n") >= 3):
        assert time.monotonic() < deadline and process.poll() is None
        time.sleep(0.01)
    process.kill()
    process.wait()
    before = log.read_text()
    assert not (work / "runs" / "killed" / "calibration").exists()
    ropewalk(work, "calibrate", "name=killed", *QUICK)
    again = work / "runs" / "killed" / "calibration"
    assert (again / "trials.jsonl").read_text() == (found / "trials.jsonl").read_text()
    assert (again / "trials.jsonl").read_text().startswith(before[: before.rfind("\n") + 1])
    assert read(again, "rope.json") == read(found, "rope.json") and read(again) == read(found)


def test_second_calibration_does_no_work(found, work):
    said = ropewalk(work, "calibrate", "name=whole", *QUICK)
    assert "calibrate: done before with the same settings and inputs; skipped" in said


def test_training_takes_the_plan_and_its_export_has_the_table(found, work):
    from transformers import AutoModelForCausalLM

    words = [
        "name=taken",
        "data.heldout_share=0.6",
        "rope=table",
        f"rope.path={found / 'rope.json'}",
        "train.steps=1",
    ]
    ropewalk(work, "eval", *words)
    notes = " ".join(
        json.loads((work / "runs" / "taken" / "eval" / "results.json").read_text())["notes"]
    )
    assert (
        f"calibrated on {read(found)['chosen_on']['documents']} of the held-out documents" in notes
    )
    model = AutoModelForCausalLM.from_pretrained(work / "runs" / "taken" / "train" / "model")
    plan = read(found, "rope.json")
    live = model.model.rotary_emb
    assert live.inv_freq.tolist() == pytest.approx(plan["inv_freq"], rel=1e-6)
    assert live.attention_scaling == pytest.approx(plan["attention_factor"], rel=1e-6)


def test_without_a_factor_or_a_second_document_it_is_refused(work):
    words = [w for w in QUICK if not w.startswith("data.heldout_share")]
    said = subprocess.run(
        command(work, "calibrate", "name=none", *words, "rope=none", "rope.factor=1"),
        env=ENV,
        cwd=work,
        capture_output=True,
        text=True,
    )
    assert said.returncode == 2 and "rope is none; calibrate searches a scaling" in said.stderr


@pytest.mark.slow
def test_the_demo_s_plan_is_at_least_as_good_as_yarn_on_documents_it_was_not_chosen_on(tmp_path):
    """The defaults, as the README has them."""
    places = [f"cache_dir={tmp_path / 'cache'}", f"runs_dir={tmp_path / 'runs'}"]
    words = [sys.executable, "-m", "ropewalk.launch.cli", "calibrate", "recipe=demo", *places]
    subprocess.run(words, env=ENV, cwd=tmp_path, check=True, timeout=1800)
    results = read(tmp_path / "runs" / "demo" / "calibration")
    assert (
        results["gain"]["value"]["nll"] <= 0
        and results["budget"]["spent"] <= results["budget"]["passes"]
    )
    assert results["reported_on"]["documents"] >= 4 and not results["verdict"].startswith("worse")


def test_a_calibration_of_another_seed_is_not_on_the_page(found, work):
    page = work / "runs" / "whole" / "report" / "index.html"
    assert 'id="calibration"' in page.read_text()
    ropewalk(
        work,
        "report",
        "name=whole",
        *[w for w in QUICK if w.startswith("data")],
        "seed=5",
        "train.steps=0",
    )
    assert 'id="calibration"' not in page.read_text()
