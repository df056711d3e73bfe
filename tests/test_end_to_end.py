"""All stages through the command line on a tiny corpus, held against oracles that are not ours."""

import json
import os
import signal
import subprocess
import sys
import time

import psutil
import pytest
from commands import ENV, command, corpus, ropewalk


@pytest.fixture(scope="module")
def work(tmp_path_factory):
    """A folder with the corpus."""
    folder = tmp_path_factory.mktemp("work")
    corpus(folder)
    return folder


@pytest.fixture(scope="module")
def run(work):
    ropewalk(work, "run", "name=first")
    return work / "runs" / "first"


def losses(folder):
    return [
        json.loads(line)["loss"] for line in (folder / "metrics.jsonl").read_text().splitlines()
    ]


def test_artifacts_have_the_promised_keys(run):
    rope = json.loads((run / "rope.json").read_text())
    assert {
        "method",
        "factor",
        "inv_freq",
        "attention_factor",
        "rope_parameters",
        "hash",
        "max_position_embeddings",
    } <= set(rope)
    results = json.loads((run / "eval" / "results.json").read_text())
    assert list(results["models"]) == ["base", "rescaled", "extended"]
    for model in results["models"].values():
        assert {"nll_by_position", "perplexity", "passkey", "context_gain"} <= set(model)
    rows = [json.loads(line) for line in (run / "train" / "metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == [1, 2, 3, 4]
    expected = {
        "loss",
        "grad_norm",
        "lr",
        "tokens",
        "tokens_per_s",
        "step_time_s",
        "peak_memory_bytes",
        "sequences",
    }
    assert all(expected <= set(row) for row in rows)
    assert (run / "report" / "index.html").stat().st_size > 10_000


def test_no_artifact_names_a_folder_of_the_user(run, work):
    """The frozen config says what was set, paths included; nothing else may."""
    for file in run.rglob("*"):
        if file.is_file() and file.suffix in (".json", ".jsonl"):
            assert str(work) not in file.read_text(), file


def test_two_ranks_that_share_each_sequence_give_the_losses_of_one(run, work):
    """Through the launcher, at ZeRO 3: parameters in pieces, one sequence in two slices."""
    arguments = (
        "train.launcher.ranks_per_node=2",
        "train.sp_size=2",
        "train.zero_stage=3",
        "train.micro_batch_size=2",
    )
    output = ropewalk(work, "train", "name=shared", *arguments)
    assert "1 group(s) of 2 ranks" in output and "ZeRO 3" in output
    shared = losses(work / "runs" / "shared" / "train")
    assert shared == pytest.approx(losses(run / "train"), rel=1e-5) and len(shared) == 4


def test_a_second_run_does_no_work_and_says_so(run, work):
    mtimes = {
        p: p.stat().st_mtime_ns
        for p in run.rglob("*")
        if p.is_file() and p.name not in ("manifest.json", "config.yaml")
    }
    output = ropewalk(work, "run", "name=first")
    for stage in ("rope", "data", "train", "eval", "report"):
        assert f"{stage}: done before with the same settings and inputs; skipped" in output
    assert mtimes == {p: p.stat().st_mtime_ns for p in mtimes}


def exported_logits(run):
    """Logits by plain transformers in another process in which ropewalk cannot be imported."""
    script = """
import json, sys, torch
sys.modules["ropewalk"] = None
from transformers import AutoModelForCausalLM
model = AutoModelForCausalLM.from_pretrained(sys.argv[1], dtype=torch.float32)
ids = torch.arange(500)[None] % 700 + 5
with torch.no_grad():
    torch.save(model(input_ids=ids).logits[0], sys.argv[2])
"""
    logits_path = run / "logits.pt"
    subprocess.run(
        [sys.executable, "-c", script, str(run / "train" / "model"), str(logits_path)],
        env=ENV,
        check=True,
        timeout=300,
    )
    import torch

    return torch.load(logits_path)


def test_export_gives_the_same_logits_in_plain_transformers(run):
    import torch

    from ropewalk.data.dataset import concatenate
    from ropewalk.eval.measure import score
    from ropewalk.train.model.build import load_trained
    from ropewalk.train.rope.plan import RopePlan

    model = load_trained(
        run / "train" / "model", RopePlan.read(run / "rope.json"), dtype=torch.float32
    )
    ids = (torch.arange(500) % 700 + 5).numpy()
    with score.evaluating(model):
        ours = score.hidden_states(model, concatenate([ids], 500)) @ score.head(model).T
    torch.testing.assert_close(ours, exported_logits(run), atol=1e-5, rtol=1e-5)


def test_export_of_an_untrained_run_is_the_base_rescaled_by_transformers_itself(work):
    """Export against the shipped weights with YaRN written by hand in transformers' own words: nothing lost on the way."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    from ropewalk.train.base import BASES

    ropewalk(work, "train", "name=untrained", "train.steps=0")
    config = AutoConfig.from_pretrained(BASES / "demo")
    config.rope_parameters = {
        "rope_type": "yarn",
        "rope_theta": 10000.0,
        "factor": 2.0,
        "original_max_position_embeddings": 256,
    }
    config.max_position_embeddings = 512
    model = AutoModelForCausalLM.from_pretrained(BASES / "demo", config=config, dtype=torch.float32)
    with torch.no_grad():
        expected = model(input_ids=torch.arange(500)[None] % 700 + 5).logits[0]
    torch.testing.assert_close(
        exported_logits(work / "runs" / "untrained"), expected, atol=1e-5, rtol=1e-5
    )


def test_perplexity_equals_a_plain_transformers_loop(run, work):
    import torch
    import torch.nn.functional as F
    from transformers import AutoModelForCausalLM

    from ropewalk.data.dataset import DataArtifacts, heldout_windows

    windows = heldout_windows([DataArtifacts.of(run, work / "cache").store("stdlib")], 512, 4, 2)
    model = AutoModelForCausalLM.from_pretrained(run / "train" / "model", dtype=torch.float32)
    total, count = {256: 0.0, 512: 0.0}, {256: 0, 512: 0}
    for window in windows:
        ids = torch.from_numpy(window.ids)[None]
        for length in total:
            with torch.no_grad():
                logits = model(input_ids=ids[:, :length]).logits
            total[length] += F.cross_entropy(
                logits[0, :-1], ids[0, 1:length], reduction="sum"
            ).item()
            count[length] += length - 1
    losses_found = json.loads((run / "eval" / "results.json").read_text())["models"]["extended"][
        "perplexity"
    ]
    for length in total:
        expected = torch.tensor(total[length] / count[length]).exp().item()
        assert losses_found[str(length)] == pytest.approx(expected, rel=1e-4)


def test_changing_lr_redoes_train_and_what_follows_but_not_data(run, work):
    try:
        output = ropewalk(work, "run", "name=first", "train.optimizer.lr=5e-4")
    finally:
        output_back = ropewalk(work, "run", "name=first")  # for the other tests
    assert "data: done before with the same settings and inputs; skipped" in output
    assert "rope: done before with the same settings and inputs; skipped" in output
    assert "redone: train.optimizer.lr was 0.001, is 0.0005" in output
    assert all(f"{stage}: done in" in output for stage in ("train", "eval", "report"))
    assert all(
        f"{stage}: done before with the same settings and inputs; brought back" in output_back
        for stage in ("train", "eval")
    )


@pytest.mark.parametrize(("processes", "stage"), [(2, 1), (2, 3)])
def test_ranks_and_zero_stages_give_the_losses_of_one_process(run, work, processes, stage):
    name = f"ranks-{processes}-{stage}"
    ropewalk(
        work,
        "train",
        f"name={name}",
        f"train.launcher.ranks_per_node={processes}",
        f"train.zero_stage={stage}",
    )
    losses_found = losses(work / "runs" / name / "train")
    assert losses_found == pytest.approx(losses(run / "train"), rel=1e-5)


def killed(work, name, number):
    """Start a long run, wait for its second checkpointed step, send the signal to the command; its exit code."""
    arguments = command(
        work, "train", f"name={name}", "train.steps=40", "train.schedule.kind=constant"
    )
    process = subprocess.Popen(
        arguments, env=ENV, cwd=work, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    metrics = work / "runs" / name / "train.tmp" / "metrics.jsonl"
    deadline = time.monotonic() + 240
    while not (metrics.is_file() and metrics.read_text().count("\n") >= 5):
        assert time.monotonic() < deadline and process.poll() is None
        time.sleep(0.05)
    if number == signal.SIGKILL:  # the training's own process group, ranks included
        (leader,) = [
            child.pid
            for child in psutil.Process(process.pid).children()
            if os.getpgid(child.pid) == child.pid
        ]
        os.killpg(leader, number)
    else:
        process.send_signal(number)
    return process.wait(timeout=240)


@pytest.fixture(scope="module")
def uninterrupted(work):
    ropewalk(work, "train", "name=whole", "train.steps=40", "train.schedule.kind=constant")
    return losses(work / "runs" / "whole" / "train")


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 75), (signal.SIGKILL, 1)])
def test_an_interrupted_run_resumes_bit_for_bit(work, uninterrupted, number, code):
    name = f"cut-{number.name}"
    assert killed(work, name, number) == code
    output = ropewalk(
        work, "train", f"name={name}", "train.steps=40", "train.schedule.kind=constant"
    )
    assert "resumed at step" in output
    assert losses(work / "runs" / name / "train") == uninterrupted
